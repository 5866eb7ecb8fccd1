//! One viewer: its place in the shared fragments, its own time, its line in the list of consumers.

use super::fragment::Init;
use super::muxer::{VIDEO_RATE, ticks};
use super::muxing::Muxing;
use super::retime::Retimer;
use super::{Fragment, Mse, MseError, Way};
use crate::graph::{ConsumerGuard, End, Lease, Reader, Selection, Stream, Wants};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

/// Fragments that are sent as one message at most.
const BATCH: usize = 16;
/// After so many bytes in a row without waiting for anything new, a viewer gets a moment to digest: `video-rtc.js` holds
/// 2 MiB at most while its decoder takes the rest.
const BURST: usize = 1 << 20;
const DIGEST: Duration = Duration::from_millis(40);

/// What a viewer gets.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// The tracks: at first, and when their parameters change.
    Init(Arc<Init>),
    /// One or several fragments.
    Media(Bytes),
}

/// See the module's page. Dropping it ends it and takes it off the list.
pub struct Viewer {
    mse: Arc<Mse>,
    stream: Arc<Stream>,
    wants: Wants,
    way: Way,
    listed: Listed,
    leases: Vec<Lease>,
    /// `None` while it is paused.
    reading: Option<Reading>,
    retimer: Retimer,
    init: Option<Arc<Init>>,
    fragments: Vec<Fragment>,
    /// Bytes since it last waited for something new.
    burst: usize,
    digest_until: Option<Instant>,
}

struct Reading {
    muxing: Arc<Muxing>,
    reader: Reader<Fragment>,
    /// What the reader had skipped when it was looked at last.
    skipped: u64,
}

/// Its line in the list of consumers, for as long as this lives.
pub(super) struct Listed {
    pub(super) consumer: ConsumerGuard,
    pub(super) end: Arc<End>,
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Listed {
    /// Counts what was given to it.
    pub(super) fn sent(&self, bytes: usize, packets: u64) {
        self.consumer.bytes.fetch_add(bytes as u64, Relaxed);
        self.consumer.packets.fetch_add(packets, Relaxed);
    }
}

impl Viewer {
    pub(super) fn new(
        mse: Arc<Mse>,
        (stream, wants, way): (Arc<Stream>, Wants, Way),
        selection: Selection,
        listed: Listed,
    ) -> Viewer {
        let mut viewer = Viewer {
            mse,
            stream,
            wants,
            way,
            listed,
            leases: Vec::new(),
            reading: None,
            retimer: Retimer::default(),
            init: None,
            fragments: Vec::new(),
            burst: 0,
            digest_until: None,
        };
        viewer.read(selection);
        viewer
    }

    /// Begins to read a selection, at its cached GOP.
    fn read(&mut self, selection: Selection) {
        let feeds = selection.video.iter().chain(&selection.audio);
        self.leases = feeds.map(|feed| feed.lease.producer().lease()).collect();
        let muxing = self.mse.muxing(selection);
        let reader = Reader::new(muxing.ring().from_entry());
        self.reading = Some(Reading { muxing, reader, skipped: 0 });
        self.rejoin();
    }

    /// Its time goes on with the next keyframe; what is past by now is for fast motion, where that is wanted.
    fn rejoin(&mut self) {
        let newest = || self.leases.first()?.producer().packets().newest();
        let nanos = newest().map(|packet| i64::try_from(packet.time.0.as_nanos()).unwrap_or(i64::MAX / 4));
        let live = nanos.filter(|_| self.way.live).map(|nanos| ticks(nanos, VIDEO_RATE));
        self.retimer.rejoin(live);
        self.burst = 0;
    }

    /// When it is ended from outside: for whoever waits for the client meanwhile.
    pub fn end(&self) -> Arc<End> {
        self.listed.end.clone()
    }

    /// Stops the media; the place in the list and the source stay.
    pub fn pause(&mut self) {
        self.reading = None;
        self.fragments.clear();
    }

    /// Goes on at the newest keyframe. Nothing if it was not paused.
    ///
    /// # Errors
    /// The stream can't be played any more.
    pub async fn resume(&mut self) -> Result<(), MseError> {
        if self.reading.is_none() {
            self.select().await?;
        }
        Ok(())
    }

    async fn select(&mut self) -> Result<(), MseError> {
        let patience = self.mse.options.source_deadline;
        let selection = self.stream.connect(&self.wants, patience).await?;
        self.listed.consumer.info.lock().codecs = super::codecs(&selection);
        self.read(selection);
        Ok(())
    }

    /// Waits for what comes next. For ever while it is paused. Cancel-safe.
    ///
    /// # Errors
    /// It was ended, or the source has codecs now that this viewer can't play.
    pub async fn next(&mut self) -> Result<Chunk, MseError> {
        let end = self.listed.end.clone();
        tokio::select! {
            biased;
            () = end.cancelled() => Err(MseError::Ended(end.reason())),
            chunk = self.chunk() => chunk,
        }
    }

    async fn chunk(&mut self) -> Result<Chunk, MseError> {
        loop {
            if let Some(until) = self.digest_until {
                sleep_until(until).await;
                self.digest_until = None;
            }
            if self.fragments.is_empty() {
                self.fill().await?;
            }
            if let Some(chunk) = self.take() {
                return Ok(chunk);
            }
        }
    }

    async fn fill(&mut self) -> Result<(), MseError> {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let over = reading.muxing.over().clone();
        let began = Instant::now();
        let batch = tokio::select! {
            biased;
            batch = reading.reader.read(BATCH, &mut self.fragments) => batch,
            () = over.cancelled() => {
                // Tracks that can't be written end each muxer at once: there should not be one after the other.
                self.digest_until = Some(Instant::now() + DIGEST);
                return self.select().await;
            }
        };
        if began.elapsed() > DIGEST {
            self.burst = 0;
        }
        let skipped = reading.reader.skipped();
        if batch.skipped {
            self.listed.consumer.drops.fetch_add(skipped - reading.skipped, Relaxed);
            reading.skipped = skipped;
            self.rejoin();
        }
        Ok(())
    }

    /// The init segment that the fragments at hand need, or those of them that need the one that was given.
    fn take(&mut self) -> Option<Chunk> {
        let first = self.fragments.first()?;
        let init = first.init.clone();
        let before = self.init.replace(init.clone());
        // Another muxer of the same tracks needs nothing new.
        if before.as_ref() != Some(&init) {
            return Some(Chunk::Init(init));
        }
        let mut bytes = Vec::with_capacity(self.fragments.iter().map(|fragment| fragment.data.len()).sum());
        let mut count = 0;
        let same = |fragment: &Fragment| Arc::ptr_eq(&init, &fragment.init);
        let end = self.fragments.iter().position(|fragment| !same(fragment)).unwrap_or(self.fragments.len());
        for fragment in self.fragments.drain(..end) {
            count += u64::from(self.retimer.write(&fragment, &mut bytes));
        }
        if bytes.is_empty() {
            return None;
        }
        self.listed.sent(bytes.len(), count);
        self.burst += bytes.len();
        if self.way.live && self.burst > BURST {
            self.burst = 0;
            self.digest_until = Some(Instant::now() + DIGEST);
        }
        Some(Chunk::Media(bytes.into()))
    }

    /// Seconds that it has been given.
    pub fn length(&self) -> f64 {
        self.retimer.length()
    }
}
