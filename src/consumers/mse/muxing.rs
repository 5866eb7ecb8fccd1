//! A muxer at work: a task that reads a selection's frames and fills a ring with fragments, while somebody holds it.

use super::Counters;
use super::fragment::Fragment;
use super::muxer::Muxer;
use crate::graph::ring::Limits;
use crate::graph::{Epoch, Feed, FrameReader, Ring, Selection, Wants};
use crate::media::mp4::Media;
use crate::media::{Codec, Frame, Kind, Track};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Frames taken from the ring at once.
const BATCH: usize = 64;
/// A viewer may be this many fragments late even when GOPs are shorter.
const LIMITS: Limits = Limits { bytes: 48 << 20, units: 8192, slack: 64 };

/// A muxer and its fragments. It ends when the last holder lets go, or by itself when the source has other codecs.
pub struct Muxing {
    ring: Arc<Ring<Fragment>>,
    over: CancellationToken,
    task: AbortHandle,
}

impl Muxing {
    /// Starts at the cached GOP. Must be called within a tokio runtime.
    pub fn start(selection: Selection, counters: &Arc<Counters>) -> Arc<Muxing> {
        let ring = Ring::new(LIMITS);
        let over = CancellationToken::new();
        let feeds: Vec<&Feed> = selection.video.iter().chain(&selection.audio).collect();
        let known = feeds.iter().map(|feed| codecs(&feed.epoch)).collect();
        // Whoever selects again after a change decides anew.
        let one = |feed: &Option<Feed>| feed.iter().filter_map(Feed::codec).collect();
        let wants = Wants { video: one(&selection.video), audio: one(&selection.audio) };
        let work = Work {
            reader: FrameReader::new(selection, wants),
            known,
            muxer: Muxer::default(),
            written: None,
            ring: ring.clone(),
            counters: counters.clone(),
            _running: Running::new(counters.clone()),
            _over: over.clone().drop_guard(),
        };
        let task = tokio::spawn(work.run()).abort_handle();
        Arc::new(Muxing { ring, over, task })
    }

    /// The fragments.
    pub fn ring(&self) -> &Arc<Ring<Fragment>> {
        &self.ring
    }

    /// Cancelled once nothing more comes.
    pub fn over(&self) -> &CancellationToken {
        &self.over
    }
}

impl Drop for Muxing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a muxer while it runs.
struct Running(Arc<Counters>);

impl Running {
    fn new(counters: Arc<Counters>) -> Running {
        counters.muxers.fetch_add(1, Relaxed);
        counters.running.fetch_add(1, Relaxed);
        Running(counters)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

struct Work {
    reader: FrameReader,
    /// The codecs that each source had when it was selected.
    known: Vec<Vec<Codec>>,
    muxer: Muxer,
    /// The tracks that the muxer was told last.
    written: Option<(Option<Media>, Option<Media>)>,
    ring: Arc<Ring<Fragment>>,
    counters: Arc<Counters>,
    _running: Running,
    _over: DropGuard,
}

impl Work {
    async fn run(mut self) {
        let (mut frames, mut fragments) = (Vec::new(), Vec::new());
        loop {
            if let Some(epoch) = self.reader.read(BATCH, &mut frames).await
                && (!self.known.contains(&codecs(&epoch)) || !self.begin())
            {
                return;
            }
            if self.written.is_some() {
                for (kind, Frame { time, keyframe, data, .. }) in frames.drain(..) {
                    self.muxer.push(kind, time.0, keyframe, data, &mut fragments);
                }
            }
            frames.clear();
            self.counters.fragments.fetch_add(fragments.len() as u64, Relaxed);
            self.ring.push_all(&mut fragments);
        }
    }

    /// Tells the muxer which tracks there are, once they are known. False if they can't be written.
    fn begin(&mut self) -> bool {
        let (video, audio) = self.reader.tracks();
        let media = |track: Option<&Track>| track.and_then(Media::of);
        let now = (media(video), media(audio));
        // Pictures that can't be described yet are waited for.
        if (video.is_some() && now.0.is_none()) || self.written.as_ref() == Some(&now) {
            return true;
        }
        let tracks: Vec<Track> = video.into_iter().chain(audio).cloned().collect();
        self.ring.begin_epoch(tracks);
        if let Err(error) = self.muxer.begin(now.0.clone(), now.1.clone()) {
            tracing::warn!("the tracks can't be written as MP4: {error}");
            return false;
        }
        self.written = Some(now);
        true
    }
}

fn codecs(epoch: &Epoch) -> Vec<Codec> {
    epoch.tracks.iter().map(|track| track.codec).collect()
}

/// What makes two viewers share a muxer: the same sources with the same codecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([Option<(usize, Codec)>; 2]);

impl Key {
    /// Of a selection. Valid for as long as anybody holds its leases.
    pub fn of(selection: &Selection) -> Key {
        Key([Kind::Video, Kind::Audio].map(|kind| {
            let feed = match kind {
                Kind::Video => &selection.video,
                Kind::Audio => &selection.audio,
            };
            feed.as_ref().and_then(|feed| Some((Arc::as_ptr(feed.lease.producer()) as usize, feed.codec()?)))
        }))
    }
}
