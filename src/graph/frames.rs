//! The frames of a selection: of the one or two sources that a consumer's tracks come from, under one roof.

use super::convert::Frames;
use super::negotiate::{Wants, usable};
use super::producer::Lease;
use super::ring::{Epoch, Reader};
use super::stream::{Feed, Selection};
use crate::media::{Frame, Kind, Track};
use std::sync::Arc;

/// Reads frames from the cached GOP on. Keeps the sources leased and their conversion to frames running.
pub struct FrameReader {
    wants: Wants,
    first: Option<Source>,
    second: Option<Source>,
    video: Option<Track>,
    audio: Option<Track>,
}

/// One source that is read.
struct Source {
    _lease: Lease,
    /// The conversion to frames runs while this is held.
    _frames: Arc<Frames>,
    reader: Reader<Frame>,
    /// Video or audio is taken from it.
    kinds: Vec<Kind>,
    epoch: Option<u64>,
    /// Indices of the tracks that are taken.
    tracks: Vec<(u8, Kind)>,
}

impl Source {
    fn new(feed: Feed, kinds: Vec<Kind>) -> Source {
        let frames = feed.lease.producer().frames();
        let reader = Reader::new(frames.ring().from_entry());
        Source { _lease: feed.lease, _frames: frames, reader, kinds, epoch: None, tracks: Vec::new() }
    }
}

impl FrameReader {
    /// A reader of the selected sources. `wants` is what was selected by: it decides again when tracks change.
    pub fn new(selection: Selection, wants: Wants) -> FrameReader {
        let track =
            |feed: &Option<Feed>| feed.as_ref().and_then(|feed| feed.epoch.tracks.get(feed.track)).cloned();
        let (video, audio) = (track(&selection.video), track(&selection.audio));
        let (first, second) = match (selection.video, selection.audio) {
            (Some(video), Some(audio)) if Arc::ptr_eq(video.lease.producer(), audio.lease.producer()) => {
                (Some(Source::new(video, vec![Kind::Video, Kind::Audio])), None)
            }
            (video, audio) => (
                video.map(|feed| Source::new(feed, vec![Kind::Video])),
                audio.map(|feed| Source::new(feed, vec![Kind::Audio])),
            ),
        };
        FrameReader { wants, first, second, video, audio }
    }

    /// The tracks that are read now: video and audio.
    pub fn tracks(&self) -> (Option<&Track>, Option<&Track>) {
        (self.video.as_ref(), self.audio.as_ref())
    }

    /// Waits for frames and appends them to `out`, at most `max`. Gives the epoch where one begins with them: then
    /// [`FrameReader::tracks`] may have changed. Cancel-safe.
    pub async fn read(&mut self, max: usize, out: &mut Vec<(Kind, Frame)>) -> Option<Arc<Epoch>> {
        let mut frames = Vec::new();
        let (batch, is_first) = match (&mut self.first, &mut self.second) {
            (Some(first), None) => (first.reader.read(max, &mut frames).await, true),
            (None, Some(second)) => (second.reader.read(max, &mut frames).await, false),
            (Some(first), Some(second)) => {
                // Only one of the reads completes, but each needs a place to write to.
                let mut other = Vec::new();
                tokio::select! {
                    batch = first.reader.read(max, &mut frames) => (batch, true),
                    batch = second.reader.read(max, &mut other) => {
                        frames = other;
                        (batch, false)
                    }
                }
            }
            (None, None) => return std::future::pending().await,
        };
        let source = if is_first { &mut self.first } else { &mut self.second }.as_mut()?;
        let begins = source.epoch != Some(batch.epoch.id);
        if begins {
            source.epoch = Some(batch.epoch.id);
            source.tracks.clear();
            for kind in &source.kinds {
                let found = usable(&batch.epoch.tracks, *kind, &self.wants);
                source.tracks.extend(found.and_then(|index| u8::try_from(index).ok()).map(|i| (i, *kind)));
                let track = found.and_then(|index| batch.epoch.tracks.get(index)).cloned();
                match kind {
                    Kind::Video => self.video = track,
                    Kind::Audio => self.audio = track,
                }
            }
        }
        let kind_of = |frame: &Frame| source.tracks.iter().find(|(i, _)| *i == frame.track).map(|(_, k)| *k);
        out.extend(frames.into_iter().filter_map(|frame| Some((kind_of(&frame)?, frame))));
        begins.then_some(batch.epoch)
    }
}
