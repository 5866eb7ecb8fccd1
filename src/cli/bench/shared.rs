//! What all viewers of a run share: the target, the counters, the samples.

use super::floor::Shape;
use super::http::Target;
use super::{hls, webrtc};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Most latencies that are kept, four bytes each.
const MAX_LATENCIES: usize = 4_000_000;
/// Packets of one viewer that the floor is measured with, at most.
const MAX_SHAPES: usize = 100_000;
/// Most kinds of errors that are told apart.
const MAX_ERRORS: usize = 16;

/// What a viewer does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Counts it.
    Counts,
    /// Looks into it besides.
    LooksInside,
    /// Reads nothing any more once it has its first picture.
    Stalls,
}

/// Counters of one run, as they are now.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    pub joined: u64,
    pub failed: u64,
    pub ended_early: u64,
    /// RTP packets, repetitions not counted.
    pub packets: u64,
    /// UDP payload of them.
    pub bytes: u64,
    /// Video frames: marker bits.
    pub frames: u64,
    /// Sequence numbers that never came.
    pub missing: i64,
    pub duplicates: u64,
    pub reordered: u64,
    /// Frames that were put together and looked into.
    pub checked_frames: u64,
    /// Frames that could not be.
    pub broken_frames: u64,
    /// Viewers whose first picture was no keyframe.
    pub late_starts: u64,
    /// HTTP responses of media and playlists.
    pub responses: u64,
    /// HLS: parts and segments.
    pub parts: u64,
}

#[derive(Debug, Default)]
pub struct Counters {
    pub joined: AtomicU64,
    pub failed: AtomicU64,
    pub ended_early: AtomicU64,
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    pub frames: AtomicU64,
    pub missing: AtomicI64,
    pub duplicates: AtomicU64,
    pub reordered: AtomicU64,
    pub checked_frames: AtomicU64,
    pub broken_frames: AtomicU64,
    pub late_starts: AtomicU64,
    pub responses: AtomicU64,
    pub parts: AtomicU64,
}

/// Times of all viewers, in microseconds.
#[derive(Debug, Default)]
pub struct Samples {
    /// From the first request's sending to its answer.
    pub answer: Vec<u32>,
    /// To the first RTP packet or part.
    pub first_media: Vec<u32>,
    /// To the first marker bit.
    pub first_frame: Vec<u32>,
    /// To the first complete keyframe, of those who look inside.
    pub first_keyframe: Vec<u32>,
    /// From stamp to arrival.
    pub latency: Vec<u32>,
}

/// One run.
#[derive(Debug)]
pub struct Shared {
    pub target: Target,
    /// Where the server's HTTP is.
    pub address: SocketAddr,
    pub counters: Counters,
    pub samples: Mutex<Samples>,
    pub errors: Mutex<BTreeMap<String, u64>>,
    /// What the first viewer received in the measured time.
    pub shapes: Mutex<Vec<Shape>>,
    pub stop: CancellationToken,
    pub webrtc: webrtc::Common,
    measuring: AtomicBool,
    /// There is a viewer whose packets' shapes are kept.
    has_recorder: AtomicBool,
}

impl Shared {
    pub fn new(target: Target, address: SocketAddr) -> Result<Shared, String> {
        Ok(Shared {
            webrtc: webrtc::Common::new(address)?,
            target,
            address,
            counters: Counters::default(),
            samples: Mutex::default(),
            errors: Mutex::default(),
            shapes: Mutex::default(),
            stop: CancellationToken::new(),
            measuring: AtomicBool::new(false),
            has_recorder: AtomicBool::new(false),
        })
    }

    /// One viewer, from its join to the run's end.
    pub async fn viewer(self: &Arc<Self>, role: Role) {
        let mut joined = false;
        let outcome = if self.target.is_hls() {
            hls::watch(self, role == Role::LooksInside, &mut joined).await
        } else {
            webrtc::watch(self, role, &mut joined).await
        };
        let Err(error) = outcome else { return };
        let counter = if joined { &self.counters.ended_early } else { &self.counters.failed };
        counter.fetch_add(1, Relaxed);
        let mut errors = self.errors.lock();
        if errors.len() < MAX_ERRORS || errors.contains_key(&error) {
            *errors.entry(error).or_default() += 1;
        }
    }

    /// Latencies count from now on, or no longer.
    pub fn measure(&self, on: bool) {
        self.measuring.store(on, Relaxed);
    }

    /// Viewers that have joined or failed.
    pub fn settled(&self) -> u64 {
        self.counters.joined.load(Relaxed) + self.counters.failed.load(Relaxed)
    }

    /// Nobody is left.
    pub fn all_gone(&self) -> bool {
        let totals = self.totals();
        totals.joined == totals.ended_early
    }

    /// True for the first who asks: it tells what packets it receives.
    pub fn is_recorder(&self) -> bool {
        !self.has_recorder.swap(true, Relaxed)
    }

    /// The recorder received a packet.
    pub fn shape(&self, packet: Shape) {
        let mut shapes = self.shapes.lock();
        if self.measuring.load(Relaxed) && shapes.len() < MAX_SHAPES {
            shapes.push(packet);
        }
    }

    /// Something was sent at `stamp` and is here now.
    pub fn arrived(&self, stamp: SystemTime) {
        if !self.measuring.load(Relaxed) {
            return;
        }
        let latency = SystemTime::now().duration_since(stamp).unwrap_or_default();
        let mut samples = self.samples.lock();
        if samples.latency.len() < MAX_LATENCIES {
            samples.latency.push(micros(latency));
        }
    }

    pub fn totals(&self) -> Totals {
        let counters = &self.counters;
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Totals {
            joined: get(&counters.joined),
            failed: get(&counters.failed),
            ended_early: get(&counters.ended_early),
            packets: get(&counters.packets),
            bytes: get(&counters.bytes),
            frames: get(&counters.frames),
            missing: counters.missing.load(Relaxed),
            duplicates: get(&counters.duplicates),
            reordered: get(&counters.reordered),
            checked_frames: get(&counters.checked_frames),
            broken_frames: get(&counters.broken_frames),
            late_starts: get(&counters.late_starts),
            responses: get(&counters.responses),
            parts: get(&counters.parts),
        }
    }
}

/// In whole microseconds, at most some 71 minutes.
pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
