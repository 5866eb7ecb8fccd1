//! Who reads a stream: listed for the API, ended with the stream or one by one.

use super::producer::State;
use crate::media::Codec;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// Why a consumer is ended from the graph's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The stream was removed or replaced.
    StreamRemoved,
    /// Somebody asked for this consumer to go.
    Kicked,
}

impl EndReason {
    /// For whoever is ended. Without a reason it is the program that ends.
    pub fn words(reason: Option<EndReason>) -> &'static str {
        match reason {
            Some(EndReason::Kicked) => "this viewer was ended by the server's operator",
            Some(EndReason::StreamRemoved) => "the stream was removed or replaced",
            None => "the server is shutting down",
        }
    }
}

/// Set when a consumer is ended from outside: for whoever waits for something else meanwhile.
#[derive(Debug)]
pub struct End {
    cancel: CancellationToken,
    reason: Mutex<Option<EndReason>>,
}

impl End {
    /// Ends with `cancel`, too.
    pub fn new(cancel: CancellationToken) -> End {
        End { cancel, reason: Mutex::new(None) }
    }

    /// Ends it.
    pub fn set(&self, reason: EndReason) {
        self.reason.lock().get_or_insert(reason);
        self.cancel.cancel();
    }

    /// Waits for the end.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// `None` when it ended with the token it was made with, or did not end.
    pub fn reason(&self) -> Option<EndReason> {
        *self.reason.lock()
    }
}

/// What a consumer is told when it must end. Called once, from any thread; must not block.
pub type OnEnd = Box<dyn Fn(EndReason) + Send + Sync>;

/// What a consumer says of itself.
#[derive(Debug, Clone, Default)]
pub struct ConsumerInfo {
    /// The kind, e.g. `webrtc`.
    pub format_name: &'static str,
    /// Transport, e.g. `udp`, `tcp`; empty until known.
    pub protocol: &'static str,
    /// Peer address; the HTTP client's until media flows to another.
    pub remote_addr: String,
    /// The HTTP client's `User-Agent`.
    pub user_agent: String,
    /// The codecs it gets.
    pub codecs: Vec<Codec>,
    /// The codecs that the stream has and that it can't get, with the reason.
    pub left_out: Vec<String>,
    /// Of one that we connect to: how that is going.
    pub dialled: Option<Dialled>,
}

/// A consumer that is a server elsewhere.
#[derive(Debug, Clone)]
pub struct Dialled {
    /// Its URL, without credentials.
    pub url: String,
    /// As of a source: connecting, live or retrying.
    pub state: State,
    /// Why the last connection failed; kept until media flows again.
    pub last_error: Option<String>,
}

/// One consumer of a stream. Counters are written by the consumer, read by the API.
pub struct Consumer {
    /// Unique in the process.
    pub id: u64,
    /// When it came.
    pub since: SystemTime,
    /// What it says of itself.
    pub info: Mutex<ConsumerInfo>,
    /// Media bytes sent.
    pub bytes: AtomicU64,
    /// Media packets sent.
    pub packets: AtomicU64,
    /// Packets it was not sent because it was behind; it went on at a keyframe.
    pub drops: AtomicU64,
    /// Round-trip time in microseconds; 0 while unknown.
    pub rtt_us: AtomicU32,
    /// Share of packets lost on the way, in thousandths, as it reported last.
    pub loss_permille: AtomicU32,
    on_end: OnEnd,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Consumer {
    /// A consumer with a new id.
    pub fn new(info: ConsumerInfo, on_end: OnEnd) -> Consumer {
        Consumer {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            since: SystemTime::now(),
            info: Mutex::new(info),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            drops: AtomicU64::new(0),
            rtt_us: AtomicU32::new(0),
            loss_permille: AtomicU32::new(0),
            on_end,
        }
    }

    /// Tells the consumer to end.
    pub fn end(&self, reason: EndReason) {
        (self.on_end)(reason);
    }
}
