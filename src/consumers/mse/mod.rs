//! Fragmented MP4, live: MSE over WebSocket and progressive MP4 over HTTP. One muxer for each selection of tracks, shared.
//! May use `graph` and `media`. Knows nothing of HTTP or WebSocket: it gives bytes.
//! Must never let one viewer's pace change what others get, nor run a muxer that nobody watches.

mod fragment;
mod keyframe;
mod muxer;
mod muxing;
mod retime;
mod viewer;

pub use fragment::{Fragment, Init};
pub use keyframe::Keyframe;
pub use muxer::Muxer;
pub use retime::Retimer;
pub use viewer::{Chunk, Viewer};

use crate::graph::{ConnectError, ConsumerInfo, End, EndReason, Feed, Selection, Stream, Wants};
use crate::media::Codec;
use muxing::{Key, Muxing};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use viewer::Listed;

/// How the consumer runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a viewer waits for the source.
    pub source_deadline: Duration,
    /// Viewers at most.
    pub max_viewers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { source_deadline: Duration::from_secs(10), max_viewers: 4096 }
    }
}

/// How a viewer watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// As the list of consumers names it.
    pub format_name: &'static str,
    /// `ws` or `http`.
    pub protocol: &'static str,
    /// Live is what counts: the past is shown in fast motion. Else each picture lasts as long as it did.
    pub live: bool,
}

impl Way {
    /// Media Source Extensions over WebSocket.
    pub const MSE: Way = Way { format_name: "mse/fmp4", protocol: "ws", live: true };
    /// Progressive MP4 over HTTP.
    pub const MP4: Way = Way { format_name: "mp4", protocol: "http", live: false };
    /// Keyframes over WebSocket.
    pub const KEYFRAMES: Way = Way { format_name: "mp4", protocol: "ws", live: true };
}

/// Who watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The client's address.
    pub remote_addr: String,
    /// Its `User-Agent`.
    pub user_agent: String,
}

/// Why there is no media, or no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MseError {
    /// The stream can't be played.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The source plays, but nothing that can be shown has come in time.
    #[error("the source is connected, but no keyframe has come from it in time")]
    NoMedia,
    /// Ended from outside.
    #[error("{}", EndReason::words(*.0))]
    Ended(Option<EndReason>),
    /// There are as many viewers as allowed.
    #[error("there are as many viewers as allowed")]
    Busy,
}

/// What was done, since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Muxers that were started.
    pub muxers: AtomicU64,
    /// Muxers that run now.
    pub running: AtomicU64,
    /// Fragments that were made, each once for all viewers.
    pub fragments: AtomicU64,
}

/// All muxers of the process.
pub struct Mse {
    options: Options,
    muxings: Mutex<HashMap<Key, Weak<Muxing>>>,
    viewers: Arc<Semaphore>,
    counters: Arc<Counters>,
    cancel: CancellationToken,
}

impl Mse {
    /// No muxer yet: the first viewer of a stream starts one.
    pub fn new(options: Options) -> Arc<Mse> {
        Arc::new(Mse {
            viewers: Arc::new(Semaphore::new(options.max_viewers)),
            options,
            muxings: Mutex::default(),
            counters: Arc::default(),
            cancel: CancellationToken::new(),
        })
    }

    /// The codecs that can be written.
    pub fn wants() -> Wants {
        Wants {
            video: vec![Codec::H264, Codec::H265],
            audio: vec![Codec::Aac, Codec::Opus, Codec::Pcma, Codec::Pcmu],
        }
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A new viewer of a stream, listed among its consumers. Waits for the source.
    ///
    /// # Errors
    /// The stream can't be played with these codecs, or there are too many viewers.
    pub async fn view(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        wants: Wants,
        way: Way,
        client: Client,
    ) -> Result<Viewer, MseError> {
        let (listed, selection) = self.list(stream, &wants, way, client).await?;
        Ok(Viewer::new(self.clone(), (stream.clone(), wants, way), selection, listed))
    }

    /// Waits for the source and lists a consumer.
    async fn list(
        &self,
        stream: &Arc<Stream>,
        wants: &Wants,
        way: Way,
        client: Client,
    ) -> Result<(Listed, Selection), MseError> {
        let permit = self.viewers.clone().try_acquire_owned().map_err(|_| MseError::Busy)?;
        let selection = stream.connect(wants, self.options.source_deadline).await?;
        let info = ConsumerInfo {
            format_name: way.format_name,
            protocol: way.protocol,
            remote_addr: client.remote_addr,
            user_agent: client.user_agent,
            codecs: codecs(&selection),
            ..ConsumerInfo::default()
        };
        let end = Arc::new(End::new(self.cancel.child_token()));
        let ended = end.clone();
        let consumer = stream.add_consumer(info, Box::new(move |reason| ended.set(reason)))?;
        Ok((Listed { consumer, end, _permit: permit }, selection))
    }

    /// The muxer of a selection, started if there is none.
    fn muxing(&self, selection: Selection) -> Arc<Muxing> {
        let mut muxings = self.muxings.lock();
        let key = Key::of(&selection);
        if let Some(muxing) = muxings.get(&key).and_then(Weak::upgrade)
            && !muxing.over().is_cancelled()
        {
            return muxing;
        }
        muxings.retain(|_, muxing| muxing.strong_count() > 0);
        let muxing = Muxing::start(selection, &self.counters);
        muxings.insert(key, Arc::downgrade(&muxing));
        muxing
    }

    /// Ends all viewers: each is told by its next read.
    pub fn shutdown(&self) {
        self.viewers.close();
        self.cancel.cancel();
    }
}

fn codecs(selection: &Selection) -> Vec<Codec> {
    [&selection.video, &selection.audio].into_iter().flatten().filter_map(Feed::codec).collect()
}
