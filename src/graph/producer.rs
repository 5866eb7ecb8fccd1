//! One source of a stream and its supervisor: dialled on demand, retried with backoff, stopped after a linger.

use super::convert::Frames;
use super::dials::Dials;
use super::ring::{Epoch, Limits, Ring};
use super::source::{Source, SourceError};
use super::writer::{Observed, SourceWriter, WriterEvents};
use crate::media::{Packet, Reordering};
use futures_util::FutureExt;
use parking_lot::Mutex;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant as TokioInstant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Where a source is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nobody wants it.
    Idle,
    /// Dialling, or playing and nothing has come yet.
    Connecting,
    /// Media flows.
    Live,
    /// Failed, and will be dialled again after a pause.
    Retrying,
}

impl State {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Live => "live",
            State::Retrying => "retrying",
        }
    }
}

/// A source's state and how it came to it.
#[derive(Debug, Clone)]
pub struct Status {
    /// The state.
    pub state: State,
    /// When it was entered.
    pub since: SystemTime,
    /// Why the last run failed; kept until media flows again.
    pub last_error: Option<SourceError>,
    /// Failed attempts since media flowed last.
    pub retries: u32,
    /// The tracks of the running connection are known.
    pub described: bool,
}

/// A dial that follows a failure waits at least this long after the one before it began.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A connection that played this long was a good one: the next failure starts at the shortest pause.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// Pictures to look at before B-frames are ruled out in practice: encoders use at most a handful in a row.
const PICTURES_TO_JUDGE: u64 = 12;

/// One source of a stream.
pub struct Producer {
    source: Arc<dyn Source>,
    packets: Arc<Ring<Packet>>,
    observed: Arc<Mutex<Observed>>,
    status: watch::Sender<Status>,
    leases: watch::Sender<usize>,
    /// A new consumer came: worth a dial before the backoff ends.
    poke: Notify,
    /// Counts reports about pictures.
    pictures: watch::Sender<u64>,
    frames: Mutex<Weak<Frames>>,
}

impl Producer {
    /// An idle producer. [`supervise`] brings it to life.
    pub fn new(source: Arc<dyn Source>) -> Arc<Producer> {
        let idle = Status {
            state: State::Idle,
            since: SystemTime::now(),
            last_error: source.unsupported().map(|why| SourceError::Refused(why.to_owned())),
            retries: 0,
            described: false,
        };
        Arc::new(Producer {
            source,
            packets: Ring::new(Limits::default()),
            observed: Arc::new(Mutex::new(Observed::new(Instant::now()))),
            status: watch::Sender::new(idle),
            leases: watch::Sender::new(0),
            poke: Notify::new(),
            pictures: watch::Sender::new(0),
            frames: Mutex::new(Weak::new()),
        })
    }

    /// Keeps the source running for as long as the lease lives. Somebody waits for it: it is dialled at once.
    pub fn lease(self: &Arc<Self>) -> Lease {
        let lease = self.keep_warm();
        self.poke.notify_one();
        lease
    }

    /// The same where nobody waits: its dials take their turn among those of all cameras.
    pub fn keep_warm(self: &Arc<Self>) -> Lease {
        self.leases.send_modify(|leases| *leases += 1);
        Lease(self.clone())
    }

    /// The packets that this source writes.
    pub fn packets(&self) -> &Arc<Ring<Packet>> {
        &self.packets
    }

    /// The frames, derived from the packets while anybody holds what this returns.
    pub fn frames(&self) -> Arc<Frames> {
        let mut shared = self.frames.lock();
        shared.upgrade().unwrap_or_else(|| {
            let frames = Frames::derive(&self.packets);
            *shared = Arc::downgrade(&frames);
            frames
        })
    }

    /// Whether somebody holds frames, so that packets are being converted.
    pub fn is_converting(&self) -> bool {
        self.frames.lock().strong_count() > 0
    }

    /// The URL as it may be shown.
    pub fn url(&self) -> &str {
        self.source.url()
    }

    /// The kind of source, e.g. `rtsp`.
    pub fn format_name(&self) -> &'static str {
        self.source.format_name()
    }

    /// Why it is never run; see [`Source::unsupported`].
    pub fn unsupported(&self) -> Option<&str> {
        self.source.unsupported()
    }

    /// State now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The states as they come.
    pub fn statuses(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// What was seen of the media.
    pub fn observed(&self) -> Observed {
        self.observed.lock().clone()
    }

    /// The tracks of the running connection, or of the last one.
    pub fn epoch(&self) -> Arc<Epoch> {
        self.packets.epoch()
    }

    /// Waits until the tracks are known. The source must be leased.
    ///
    /// With `patient`, a source that can't be reached is waited for until the deadline; one that answers with a
    /// refusal twice is given up at once. Without, the first failure ends the wait.
    pub async fn described(&self, deadline: TokioInstant, patient: bool) -> Result<Arc<Epoch>, SourceError> {
        let mut status = self.status.subscribe();
        let failures_before = status.borrow().retries;
        loop {
            let now = status.borrow_and_update().clone();
            if now.described {
                return Ok(self.epoch());
            }
            if let (State::Retrying, Some(error)) = (now.state, &now.last_error) {
                let refused = matches!(error, SourceError::Refused(_));
                if !patient || (refused && now.retries >= failures_before.saturating_add(2)) {
                    return Err(error.clone());
                }
            }
            if !matches!(timeout_at(deadline, status.changed()).await, Ok(Ok(()))) {
                return Err(now
                    .last_error
                    .unwrap_or_else(|| SourceError::TimedOut(format!("no answer from {} yet", self.url()))));
            }
        }
    }

    /// Whether the video has B-frames, after looking at some pictures if the parameter sets leave it open.
    pub async fn reordering(&self, deadline: TokioInstant) -> Reordering {
        let mut pictures = self.pictures.subscribe();
        loop {
            pictures.borrow_and_update();
            let (reordering, units) = {
                let observed = self.observed.lock();
                (observed.reordering, observed.units)
            };
            let judged = reordering != Reordering::Unknown || units >= PICTURES_TO_JUDGE;
            if judged || !matches!(timeout_at(deadline, pictures.changed()).await, Ok(Ok(()))) {
                return reordering;
            }
        }
    }

    fn enter(&self, state: State) {
        self.status.send_modify(|status| {
            (status.state, status.since, status.described) = (state, SystemTime::now(), false);
        });
    }

    fn fail(&self, error: SourceError) {
        self.status.send_modify(|status| {
            status.state = State::Retrying;
            status.since = SystemTime::now();
            status.described = false;
            status.retries = status.retries.saturating_add(1);
            status.last_error = Some(error);
        });
    }
}

/// Weak, because the producer owns what the writer's owner owns.
struct Events {
    producer: Weak<Producer>,
    stream: String,
}

impl WriterEvents for Events {
    fn on_tracks(&self) {
        if let Some(producer) = self.producer.upgrade() {
            producer.status.send_modify(|status| status.described = true);
            producer.pictures.send_modify(|count| *count += 1);
        }
    }

    fn on_media(&self) {
        if let Some(producer) = self.producer.upgrade() {
            tracing::info!(stream = self.stream, source = producer.url(), "source is live");
            producer.status.send_modify(|status| {
                status.state = State::Live;
                status.since = SystemTime::now();
                status.last_error = None;
                status.retries = 0;
            });
        }
    }

    fn on_pictures(&self) {
        if let Some(producer) = self.producer.upgrade() {
            producer.pictures.send_modify(|count| *count += 1);
        }
    }
}

/// Keeps a source running; dropping the last one stops it after the linger.
pub struct Lease(Arc<Producer>);

impl Lease {
    /// What is leased.
    pub fn producer(&self) -> &Arc<Producer> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.send_modify(|leases| *leases = leases.saturating_sub(1));
    }
}

/// Pauses between dials: doubling from one second to a minute, with jitter so that many cameras don't come at once.
struct Backoff(Duration);

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(MAX_BACKOFF);
        pause.mul_f64(rand::random_range(0.8..1.2)).clamp(MIN_BACKOFF, MAX_BACKOFF)
    }
}

/// Resolves when nobody has held a lease for as long as `linger`, which may change meanwhile.
async fn unwanted(leases: &mut watch::Receiver<usize>, linger: &mut watch::Receiver<Duration>) {
    loop {
        if leases.wait_for(|&leases| leases == 0).await.is_err() {
            return;
        }
        let since = TokioInstant::now();
        loop {
            let end = since + *linger.borrow_and_update();
            tokio::select! {
                outcome = timeout_at(end, leases.wait_for(|&leases| leases > 0)) => match outcome {
                    Ok(_) => break,
                    Err(_) => return,
                },
                Ok(()) = linger.changed() => {}
            }
        }
    }
}

/// Runs a producer until it is cancelled. `origin` is where the stream's timeline begins.
pub async fn supervise(
    producer: Arc<Producer>,
    name: String,
    mut linger: watch::Receiver<Duration>,
    origin: Instant,
    dials: Arc<Dials>,
    cancel: CancellationToken,
) {
    let body = async {
        let mut leases = producer.leases.subscribe();
        let mut writer = new_writer(&producer, &name, origin);
        loop {
            producer.enter(State::Idle);
            if leases.wait_for(|&leases| leases > 0).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                () = producer.poke.notified() => {}
                () = dials.turn() => {}
            }
            run_while_wanted(&producer, &name, &mut linger, &mut leases, &mut writer, origin, &dials).await;
            producer.packets.clear();
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = body => {}
    }
    producer.enter(State::Idle);
    producer.packets.clear();
}

fn new_writer(producer: &Arc<Producer>, name: &str, origin: Instant) -> SourceWriter {
    let events = Arc::new(Events { producer: Arc::downgrade(producer), stream: name.to_owned() });
    SourceWriter::new(producer.packets.clone(), producer.observed.clone(), events, origin)
}

async fn run_while_wanted(
    producer: &Arc<Producer>,
    name: &str,
    linger: &mut watch::Receiver<Duration>,
    leases: &mut watch::Receiver<usize>,
    writer: &mut SourceWriter,
    origin: Instant,
    dials: &Dials,
) {
    let mut backoff = Backoff(MIN_BACKOFF);
    // What failed the last time somebody was here is not what fails now.
    producer.status.send_modify(|status| (status.last_error, status.retries) = (None, 0));
    loop {
        producer.enter(State::Connecting);
        let started = TokioInstant::now();
        let outcome = tokio::select! {
            biased;
            () = unwanted(leases, linger) => None,
            outcome = AssertUnwindSafe(producer.source.run(writer)).catch_unwind() => Some(outcome),
        };
        // What is cached belongs to a connection that is gone; who joins now waits for the next keyframe.
        producer.packets.forget_entry();
        let error = match outcome {
            None => {
                tracing::info!(stream = name, source = producer.url(), "no viewers left, source stopped");
                return;
            }
            Some(Ok(Ok(()))) => SourceError::Ended("the source ended the stream".into()),
            Some(Ok(Err(error))) => error,
            Some(Err(_panic)) => {
                *writer = new_writer(producer, name, origin);
                SourceError::Ended("internal error in the source, see the log".into())
            }
        };
        if started.elapsed() >= GOOD_RUN && producer.status.borrow().state == State::Live {
            backoff = Backoff(MIN_BACKOFF);
        }
        let pause = backoff.next();
        tracing::warn!(stream = name, source = producer.url(), retry_in = ?pause, "source failed: {error}");
        producer.fail(error);
        // Who came before this failure is no reason to hurry.
        let _ = producer.poke.notified().now_or_never();
        let poked = async {
            producer.poke.notified().await;
            sleep_until(started + MIN_BACKOFF).await;
        };
        tokio::select! {
            () = unwanted(leases, linger) => return,
            () = async { sleep(pause).await; dials.turn().await } => {}
            // Somebody waits now: a camera that is back in a moment must not be missed for a minute.
            () = poked => backoff = Backoff(backoff.0.min(MIN_BACKOFF * 2)),
        }
    }
}
