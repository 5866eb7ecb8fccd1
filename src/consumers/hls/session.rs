//! One stream's segmenter at work: a task that reads frames and publishes playlists while somebody asks.

use super::segmenter::{Event, Input, Segmenter, Settings};
use super::version::{Text, Version};
use super::waiters::{Place, Waiters};
use super::window::{Bounds, Window};
use super::{HlsError, Options, playlist};
use crate::graph::{ConnectError, ConsumerGuard, ConsumerInfo, FrameReader, Selection, Stream, Wants};
use crate::media::mp4::Media;
use crate::media::{Frame, Kind};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

/// Frames taken from the ring at once.
const BATCH: usize = 256;

/// The number of the segment that grows, and texts by what their URIs begin with.
type Rendered = (u64, Vec<(String, Arc<Text>)>);

/// Where a session is in its life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// The source is dialled, or its first segment is not complete.
    Starting,
    /// There is a playlist.
    Playing(Arc<Version>),
    /// It is over.
    Ended(Option<ConnectError>),
}

/// What HTTP sees of a segmenter.
pub struct Session {
    /// Part of all its URLs: unguessable, so that no cache mixes it up with an earlier one.
    pub prefix: String,
    /// What is played.
    pub stream: Arc<Stream>,
    /// The codecs that it may use.
    pub wants: Wants,
    /// Segments and parts.
    pub window: Mutex<Window>,
    /// Changes with each part.
    pub phase: watch::Sender<Phase>,
    options: Options,
    waiters: Waiters,
    /// The multivariant playlist, for as long as no segment is added.
    multivariant: Mutex<Rendered>,
    asked: Mutex<Instant>,
    consumer: Mutex<Option<ConsumerGuard>>,
    cancel: CancellationToken,
}

impl Session {
    /// A session to be run by [`Session::run`].
    pub fn new(
        prefix: String,
        stream: Arc<Stream>,
        wants: Wants,
        options: Options,
        cancel: CancellationToken,
    ) -> Session {
        let config = &options.config;
        let bounds = Bounds { segments: config.window, bytes: options.max_bytes, target: config.target() };
        Session {
            prefix,
            stream,
            wants,
            window: Mutex::new(Window::new(bounds)),
            phase: watch::Sender::new(Phase::Starting),
            options,
            waiters: Waiters::default(),
            multivariant: Mutex::default(),
            asked: Mutex::new(Instant::now()),
            consumer: Mutex::new(None),
            cancel,
        }
    }

    /// No request waits longer for a playlist or part: three target durations.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.options.config.target()) * 3)
    }

    /// Somebody asks: it lives on.
    pub fn touch(&self) {
        *self.asked.lock() = Instant::now();
    }

    /// Counts what was sent to a viewer.
    pub fn served(&self, bytes: usize) {
        if let Some(consumer) = &*self.consumer.lock() {
            consumer.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            consumer.packets.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it has ended or is about to.
    pub fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || matches!(&*self.phase.borrow(), Phase::Ended(_))
    }

    /// The multivariant playlist, whose URI begins with `base`: rendered once for each segment and way to ask for it.
    pub fn multivariant(&self, base: &str) -> Arc<Text> {
        let window = self.window.lock();
        let mut known = self.multivariant.lock();
        if known.0 != window.growing.number {
            *known = (window.growing.number, Vec::new());
        }
        if let Some((_, text)) = known.1.iter().find(|(of, _)| of == base) {
            return text.clone();
        }
        let text = Text::new(playlist::multivariant(&window, &format!("{base}{}/index.m3u8", self.prefix)));
        known.1.push((base.to_owned(), text.clone()));
        text
    }

    /// Waits until `there` holds, as it does once the playlist has come to this place. False at the deadline.
    pub async fn reach(&self, place: Place, deadline: Instant, there: impl Fn(&Phase) -> bool) -> bool {
        // Who waits still asks.
        let _asks = self.phase.subscribe();
        let waiter = self.waiters.at(place);
        let mut rung = std::pin::pin!(waiter.rung());
        rung.as_mut().enable();
        // It may have come between the last look and now.
        there(&self.phase.borrow()) || timeout_at(deadline, rung).await.is_ok()
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
        match &*self.phase.borrow() {
            Phase::Starting => {}
            Phase::Playing(version) => self.waiters.ring(|place| version.has(place)),
            Phase::Ended(_) => self.waiters.ring(|_| true),
        }
    }

    /// Waits for a phase other than [`Phase::Starting`].
    pub async fn started(&self, deadline: Instant) -> Result<(), HlsError> {
        let mut phase = self.phase.subscribe();
        let started = phase.wait_for(|phase| !matches!(phase, Phase::Starting));
        match timeout_at(deadline, started).await {
            Ok(Ok(phase)) => match &*phase {
                Phase::Ended(Some(error)) => Err(HlsError::Connect(error.clone())),
                Phase::Ended(None) => Err(HlsError::Gone),
                _ => Ok(()),
            },
            Ok(Err(_)) => Err(HlsError::Gone),
            Err(_) => Err(HlsError::NoMedia),
        }
    }

    /// Reads the stream until nobody has asked for the linger, or the stream ends.
    pub async fn run(self: Arc<Self>) {
        let outcome = tokio::select! {
            () = self.cancel.cancelled() => Ok(()),
            outcome = self.play() => outcome,
        };
        self.consumer.lock().take();
        let error = outcome.err();
        match &error {
            Some(error) => tracing::info!(stream = self.stream.name(), "HLS not started: {error}"),
            None => tracing::info!(stream = self.stream.name(), "HLS ended"),
        }
        self.enter(Phase::Ended(error));
    }

    /// Ends what can't go on.
    pub fn abandon(&self) {
        self.consumer.lock().take();
        self.enter(Phase::Ended(None));
    }

    async fn play(&self) -> Result<(), ConnectError> {
        let options = &self.options;
        let selection = self.stream.connect(&self.wants, options.source_deadline).await?;
        self.list(&selection)?;
        tracing::info!(stream = self.stream.name(), "HLS started");
        let mut reading = Reading::new(selection, &self.wants, options);
        let mut events = Vec::new();
        reading.begin(&mut events);
        loop {
            tokio::select! {
                () = self.unwanted(options.config.linger) => return Ok(()),
                () = reading.step(&mut events) => self.publish(&mut events),
            }
        }
    }

    fn list(&self, selection: &Selection) -> Result<(), ConnectError> {
        let feeds = [&selection.video, &selection.audio];
        let info = ConsumerInfo {
            format_name: "hls",
            protocol: "http",
            codecs: feeds.iter().filter_map(|feed| feed.as_ref()?.codec()).collect(),
            ..ConsumerInfo::default()
        };
        let cancel = self.cancel.clone();
        let guard = self.stream.add_consumer(info, Box::new(move |_| cancel.cancel()))?;
        *self.consumer.lock() = Some(guard);
        Ok(())
    }

    async fn unwanted(&self, linger: Duration) {
        loop {
            let until = *self.asked.lock() + linger;
            sleep_until(until).await;
            // Who waits for the next part still asks.
            if self.phase.receiver_count() > 0 {
                self.touch();
            } else if *self.asked.lock() + linger <= Instant::now() {
                return;
            }
        }
    }

    fn publish(&self, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let version = {
            let mut window = self.window.lock();
            events.drain(..).for_each(|event| window.apply(event));
            Version::of(&window)
        };
        if let Some(version) = version {
            self.enter(Phase::Playing(Arc::new(version)));
        }
    }
}

/// The stream's frames, and what is made of them.
struct Reading {
    frames: FrameReader,
    read: Vec<(Kind, Frame)>,
    segmenter: Segmenter,
    /// What the segmenter was told last.
    written: (Option<Media>, Option<Media>),
}

impl Reading {
    fn new(selection: Selection, wants: &Wants, options: &Options) -> Reading {
        let config = &options.config;
        let settings = Settings { part: config.part, segment: config.segment, target: config.target() };
        Reading {
            frames: FrameReader::new(selection, wants.clone()),
            read: Vec::new(),
            segmenter: Segmenter::new(settings),
            written: (None, None),
        }
    }

    /// Tells the segmenter which tracks there are, once they are known.
    fn begin(&mut self, events: &mut Vec<Event>) {
        let (video, audio) = self.frames.tracks();
        let now = (video.and_then(Media::of), audio.and_then(Media::of));
        // Pictures that can't be described yet are waited for.
        if video.is_some() && now.0.is_none() {
            return;
        }
        if now != self.written {
            self.segmenter.begin(now.0.clone(), now.1.clone(), events);
            self.written = now;
        }
    }

    /// Waits for frames and gives what becomes of them. Cancel-safe.
    async fn step(&mut self, events: &mut Vec<Event>) {
        if self.frames.read(BATCH, &mut self.read).await.is_some() {
            self.begin(events);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(0);
        for (kind, Frame { time, keyframe, data, .. }) in self.read.drain(..) {
            self.segmenter.push(Input { kind, time: time.0, keyframe, data, now_ms }, events);
        }
    }
}
