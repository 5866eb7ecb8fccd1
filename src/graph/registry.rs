//! All streams, by name.

use super::dials::Dials;
use super::events::{Event, Events, StreamChange};
use super::preload::{Preload, Preloads};
use super::source::{OpenSource, Source};
use super::stream::Stream;
use crate::config::StreamConfig;
use dashmap::DashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

/// Streams at most: a client that may add streams can't grow the list without end.
pub const MAX_STREAMS: usize = 10_000;

/// All streams of the process and the tasks that run them.
pub struct Registry {
    streams: DashMap<String, Arc<Stream>>,
    /// One change at a time, so that two edits of a name can't leave two streams running.
    changes: parking_lot::Mutex<()>,
    open: OpenSource,
    dials: Arc<Dials>,
    events: Events,
    preloads: Preloads,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// What [`Registry::set`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A stream of that name is new.
    Created,
    /// The old one was ended, viewers included: its sources are others, or its sound is.
    Replaced,
    /// How long its sources run changed; they go on, and so do its viewers.
    Adjusted,
    /// It was configured like this already; nothing was touched.
    Unchanged,
}

impl Registry {
    /// An empty registry; `open` makes sources from URLs.
    pub fn new(open: OpenSource) -> Arc<Registry> {
        Arc::new(Registry {
            streams: DashMap::new(),
            changes: parking_lot::Mutex::new(()),
            open,
            dials: Arc::default(),
            events: Events::default(),
            preloads: Preloads::default(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        })
    }

    /// Creates, adjusts or replaces a stream. Nothing changes if a source's URL can't be used.
    pub fn set(&self, name: &str, config: StreamConfig) -> Result<Change, String> {
        let _one_at_a_time = self.changes.lock();
        let old = self.get(name);
        if let Some(old) = &old {
            let was = old.config();
            if *was == config {
                return Ok(Change::Unchanged);
            }
            if was.sources == config.sources && was.audio == config.audio {
                old.adjust(config);
                self.tell(name, StreamChange::Changed);
                return Ok(Change::Adjusted);
            }
        }
        if old.is_none() && self.is_full() {
            return Err(format!("there are {MAX_STREAMS} streams already, that is the limit"));
        }
        if config.sources.is_empty() {
            return Err("a stream needs at least one source".into());
        }
        let sources = config.sources.iter().map(|url| (self.open)(url)).collect::<Result<Vec<_>, _>>()?;
        if let Some(old) = &old {
            old.close();
        }
        let stream = self.start(name, config, sources, &self.events);
        self.streams.insert(name.to_owned(), stream.clone());
        self.preloads.begin(&stream, &self.tasks);
        self.tell(name, if old.is_some() { StreamChange::Changed } else { StreamChange::Created });
        Ok(if old.is_some() { Change::Replaced } else { Change::Created })
    }

    /// Ends a stream with its viewers and sources. False if there is none of that name.
    pub fn remove(&self, name: &str) -> bool {
        let _one_at_a_time = self.changes.lock();
        match self.streams.remove(name) {
            Some((_, stream)) => {
                stream.close();
                self.tell(name, StreamChange::Removed);
                true
            }
            None => false,
        }
    }

    /// The stream of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Stream>> {
        self.streams.get(name).map(|entry| entry.value().clone())
    }

    /// Whether there are [`MAX_STREAMS`].
    pub fn is_full(&self) -> bool {
        self.streams.len() >= MAX_STREAMS
    }

    /// All streams, by name.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        let mut streams: Vec<_> = self.streams.iter().map(|entry| entry.value().clone()).collect();
        streams.sort_by(|a, b| a.name().cmp(b.name()));
        streams
    }

    /// A stream that is not listed: for a look at a source (`probe`). End it with [`Stream::close`].
    pub fn unlisted(&self, config: StreamConfig) -> Result<Arc<Stream>, String> {
        let sources = config.sources.iter().map(|url| (self.open)(url)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.start("probe", config, sources, &Events::default()))
    }

    fn start(
        &self,
        name: &str,
        config: StreamConfig,
        sources: Vec<Arc<dyn Source>>,
        events: &Events,
    ) -> Arc<Stream> {
        Stream::start(name.to_owned(), config, sources, &self.dials, events, &self.tasks, &self.cancel)
    }

    fn tell(&self, name: &str, change: StreamChange) {
        self.events.publish_with(|| Event::Stream { stream: name.to_owned(), change });
    }

    /// What happens to streams and viewers.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Resolves when everything is being ended.
    pub fn ending(&self) -> WaitForCancellationFutureOwned {
        self.cancel.clone().cancelled_owned()
    }

    /// Keeps these streams warm, and only these.
    pub fn set_preloads(&self, wanted: Vec<(String, Preload)>) {
        // A stream that is being replaced is neither found twice nor missed.
        let _one_at_a_time = self.changes.lock();
        self.preloads.set(wanted, |name| self.get(name), &self.tasks);
    }

    /// The streams that are kept warm.
    pub fn preloads(&self) -> BTreeMap<String, Preload> {
        self.preloads.list()
    }

    /// Ends everything and waits for the tasks.
    pub async fn shutdown(&self) {
        for stream in self.list() {
            stream.close();
        }
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
