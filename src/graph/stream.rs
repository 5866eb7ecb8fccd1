//! A stream: a name, its sources, and who reads it.

use super::consumer::{Consumer, ConsumerInfo, EndReason, OnEnd};
use super::dials::Dials;
use super::events::{self, Event, Events};
use super::negotiate::{self, Wants};
use super::producer::{Lease, Producer, State, supervise};
use super::ring::Epoch;
use super::source::{Source, SourceError};
use crate::config::StreamConfig;
use crate::media::{Codec, Kind, Track};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::Instant as TokioInstant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a viewer whose picture is found waits for another source's sound.
const AUDIO_PATIENCE: Duration = Duration::from_secs(2);

/// A named stream.
pub struct Stream {
    name: String,
    config: Mutex<Arc<StreamConfig>>,
    linger: watch::Sender<Duration>,
    producers: Vec<Arc<Producer>>,
    consumers: Mutex<Consumers>,
    events: Events,
    cancel: CancellationToken,
    /// Keeps the sources running with `on_demand: false`.
    warm: Mutex<Vec<Lease>>,
}

#[derive(Default)]
struct Consumers {
    closed: bool,
    list: BTreeMap<u64, Arc<Consumer>>,
}

/// One track that a consumer reads.
pub struct Feed {
    /// Keeps the source running.
    pub lease: Lease,
    /// The tracks as they were when this was chosen.
    pub epoch: Arc<Epoch>,
    /// Index of the track in `epoch.tracks`.
    pub track: usize,
}

impl Feed {
    /// The track.
    pub fn codec(&self) -> Option<Codec> {
        self.epoch.tracks.get(self.track).map(|track| track.codec)
    }
}

/// What a consumer gets.
#[derive(Default)]
pub struct Selection {
    /// Video, if wanted and offered.
    pub video: Option<Feed>,
    /// Audio, if wanted and offered in a codec the consumer can use.
    pub audio: Option<Feed>,
    /// Every codec that the sources offered.
    pub offered: Vec<Codec>,
}

/// Why a consumer gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The sources offer nothing that the consumer can use. Becomes a 422.
    #[error("no codec in common: the stream has {}, the viewer can use {}", list(.offered), list(.wanted))]
    NoCommonCodec {
        /// What the sources have.
        offered: Vec<Codec>,
        /// What the consumer can use.
        wanted: Vec<Codec>,
    },
    /// No source could be played. Becomes a 502 or 504.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The stream was removed meanwhile. Becomes a 404.
    #[error("the stream was removed")]
    Removed,
}

fn list(codecs: &[Codec]) -> String {
    if codecs.is_empty() {
        return "none".into();
    }
    codecs.iter().map(|codec| codec.name()).collect::<Vec<_>>().join(", ")
}

/// Keeps a consumer listed; dropping it takes it off the list.
pub struct ConsumerGuard {
    stream: Arc<Stream>,
    consumer: Arc<Consumer>,
}

impl std::ops::Deref for ConsumerGuard {
    type Target = Consumer;
    fn deref(&self) -> &Consumer {
        &self.consumer
    }
}

impl ConsumerGuard {
    /// The stream that is read.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }
}

impl Drop for ConsumerGuard {
    fn drop(&mut self) {
        self.stream.consumers.lock().list.remove(&self.consumer.id);
        self.stream
            .events
            .publish_with(|| Event::Left { stream: self.stream.name.clone(), id: self.consumer.id });
    }
}

impl Stream {
    /// A stream whose supervisors run on `tasks` until `cancel` or [`Stream::close`].
    pub fn start(
        name: String,
        config: StreamConfig,
        sources: Vec<Arc<dyn Source>>,
        dials: &Arc<Dials>,
        events: &Events,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Arc<Stream> {
        let cancel = cancel.child_token();
        // All sources of a stream share one timeline, so that sound of one fits pictures of another.
        let origin = Instant::now();
        let producers: Vec<_> = sources.into_iter().map(Producer::new).collect();
        let linger = watch::Sender::new(config.linger);
        for producer in producers.iter().filter(|producer| producer.unsupported().is_none()) {
            let (producer, linger, dials) = (producer.clone(), linger.subscribe(), dials.clone());
            let supervisor = supervise(producer, name.clone(), linger, origin, dials, cancel.clone());
            tasks.spawn(supervisor);
        }
        let states = events::report_states(name.clone(), producers.clone(), events.clone(), cancel.clone());
        tasks.spawn(states);
        let stream = Stream {
            name,
            config: Mutex::new(Arc::new(config.clone())),
            linger,
            producers,
            consumers: Mutex::default(),
            events: events.clone(),
            cancel,
            warm: Mutex::default(),
        };
        stream.adjust(config);
        Arc::new(stream)
    }

    /// Makes `config` the one in effect. Its sources and its sound must be what they were: those stay as they are, and
    /// so do the viewers.
    pub fn adjust(&self, config: StreamConfig) {
        self.linger.send_replace(config.linger);
        // The new leases first: a source that runs goes on.
        let warm = match config.on_demand {
            false if !self.cancel.is_cancelled() => self.producers.iter().map(Producer::keep_warm).collect(),
            _ => Vec::new(),
        };
        *self.warm.lock() = warm;
        *self.config.lock() = Arc::new(config);
    }

    /// The name it is found by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is configured.
    pub fn config(&self) -> Arc<StreamConfig> {
        self.config.lock().clone()
    }

    /// Its sources, in the order of the configuration.
    pub fn producers(&self) -> &[Arc<Producer>] {
        &self.producers
    }

    /// Who reads it now.
    pub fn consumers(&self) -> Vec<Arc<Consumer>> {
        self.consumers.lock().list.values().cloned().collect()
    }

    /// The state of the source that is furthest on its way.
    pub fn state(&self) -> State {
        events::leading(self.producers.iter().map(|producer| producer.status().state))
    }

    /// Finds tracks for a consumer, dialling sources in their order as far as needed. Waits up to `patience`.
    pub async fn connect(&self, wants: &Wants, patience: Duration) -> Result<Selection, ConnectError> {
        tokio::select! {
            () = self.cancel.cancelled() => Err(ConnectError::Removed),
            found = self.find(wants, TokioInstant::now() + patience) => found,
        }
    }

    /// Why nothing can come from any of its sources, where that is known beforehand.
    fn unsupported(&self) -> Option<&str> {
        let mut reasons = self.producers.iter().map(|producer| producer.unsupported());
        let first = reasons.next()??;
        reasons.all(|reason| reason.is_some()).then_some(first)
    }

    async fn find(&self, wants: &Wants, deadline: TokioInstant) -> Result<Selection, ConnectError> {
        if let Some(why) = self.unsupported() {
            return Err(SourceError::Refused(why.to_owned()).into());
        }
        let mut leases: Vec<Option<Lease>> = Vec::new();
        let mut known: Vec<Option<Arc<Epoch>>> = vec![None; self.producers.len()];
        let mut failures: Vec<Option<SourceError>> = vec![None; self.producers.len()];
        let is_only = self.producers.iter().filter(|producer| producer.unsupported().is_none()).count() == 1;
        for (index, producer) in self.producers.iter().enumerate() {
            if producer.unsupported().is_some() {
                leases.push(None);
                continue;
            }
            leases.push(Some(producer.lease()));
            let has_video = self.choice(&known, wants).video.is_some();
            let limit = if has_video { deadline.min(TokioInstant::now() + AUDIO_PATIENCE) } else { deadline };
            match producer.described(limit, is_only).await {
                Ok(epoch) => known[index] = Some(epoch),
                Err(error) => failures[index] = Some(error),
            }
            if self.complete(&known, wants) {
                break;
            }
        }
        if self.choice(&known, wants) == negotiate::Choice::default() {
            // Nothing usable yet: those that failed may still come back.
            let mut waits: FuturesUnordered<_> = (0..self.producers.len())
                .filter(|&index| !is_only && failures[index].is_some())
                .map(|index| async move { (index, self.producers[index].described(deadline, true).await) })
                .collect();
            while let Some((index, outcome)) = waits.next().await {
                match outcome {
                    Ok(epoch) => known[index] = Some(epoch),
                    Err(error) => failures[index] = Some(error),
                }
                if self.complete(&known, wants) {
                    break;
                }
            }
        }
        self.select(leases, &known, failures, wants)
    }

    /// The tracks of each source that may be used; sound is left out where the configuration says so.
    fn tracks<'a>(&self, known: &'a [Option<Arc<Epoch>>]) -> Vec<Option<&'a [Track]>> {
        known.iter().map(|epoch| epoch.as_deref().map(|epoch| epoch.tracks.as_slice())).collect()
    }

    fn wants(&self, wants: &Wants) -> Wants {
        let audio = if self.config().audio { wants.audio.clone() } else { Vec::new() };
        Wants { video: wants.video.clone(), audio }
    }

    fn choice(&self, known: &[Option<Arc<Epoch>>], wants: &Wants) -> negotiate::Choice {
        negotiate::choose(&self.tracks(known), &self.wants(wants))
    }

    fn complete(&self, known: &[Option<Arc<Epoch>>], wants: &Wants) -> bool {
        let (choice, wants) = (self.choice(known, wants), self.wants(wants));
        (wants.video.is_empty() || choice.video.is_some())
            && (wants.audio.is_empty() || choice.audio.is_some())
    }

    fn select(
        &self,
        mut leases: Vec<Option<Lease>>,
        known: &[Option<Arc<Epoch>>],
        failures: Vec<Option<SourceError>>,
        wants: &Wants,
    ) -> Result<Selection, ConnectError> {
        let wants = self.wants(wants);
        let tracks = self.tracks(known);
        let choice = negotiate::choose(&tracks, &wants);
        let mut offered: Vec<Codec> =
            tracks.iter().flatten().flat_map(|t| t.iter().map(|t| t.codec)).collect();
        offered.sort_unstable();
        offered.dedup();
        let video_unusable = choice.video.is_none() && !wants.video.is_empty();
        if video_unusable && (negotiate::offers(&tracks, Kind::Video) || choice.audio.is_none()) {
            if let Some(error) = failures.into_iter().flatten().next() {
                return Err(error.into());
            }
            return Err(ConnectError::NoCommonCodec { offered, wanted: [wants.video, wants.audio].concat() });
        }
        if choice == negotiate::Choice::default() {
            return Err(ConnectError::NoCommonCodec { offered, wanted: wants.audio });
        }
        let mut feed = |kind, index: Option<usize>| {
            let index = index?;
            let epoch = known.get(index)?.clone()?;
            let track = negotiate::usable(&epoch.tracks, kind, &wants)?;
            let lease = leases.get_mut(index)?.take().unwrap_or_else(|| self.producers[index].lease());
            Some(Feed { lease, epoch, track })
        };
        Ok(Selection {
            video: feed(Kind::Video, choice.video),
            audio: feed(Kind::Audio, choice.audio),
            offered,
        })
    }

    /// Lists a consumer. `on_end` is called if the stream is removed or the consumer is kicked.
    pub fn add_consumer(
        self: &Arc<Self>,
        info: ConsumerInfo,
        on_end: OnEnd,
    ) -> Result<ConsumerGuard, ConnectError> {
        let consumer = Arc::new(Consumer::new(info, on_end));
        let mut consumers = self.consumers.lock();
        if consumers.closed {
            return Err(ConnectError::Removed);
        }
        consumers.list.insert(consumer.id, consumer.clone());
        drop(consumers);
        self.events.publish_with(|| {
            let ConsumerInfo { format_name, remote_addr, user_agent, .. } = consumer.info.lock().clone();
            Event::Joined { stream: self.name.clone(), id: consumer.id, format_name, remote_addr, user_agent }
        });
        Ok(ConsumerGuard { stream: self.clone(), consumer })
    }

    /// Ends one consumer. False if there is none with that id.
    pub fn kick(&self, id: u64) -> bool {
        let consumer = self.consumers.lock().list.get(&id).cloned();
        consumer.inspect(|consumer| consumer.end(EndReason::Kicked)).is_some()
    }

    /// Ends the sources and all consumers. Whoever comes later is refused.
    pub fn close(&self) {
        self.cancel.cancel();
        self.warm.lock().clear();
        let consumers = {
            let mut consumers = self.consumers.lock();
            consumers.closed = true;
            consumers.list.values().cloned().collect::<Vec<_>>()
        };
        for consumer in consumers {
            consumer.end(EndReason::StreamRemoved);
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
