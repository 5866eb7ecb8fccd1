//! One keyframe as an MP4 file of its own.

use super::fragment::Init;
use super::viewer::Listed;
use super::{Client, Mse, MseError, Way};
use crate::graph::{End, FrameReader, Stream, Wants};
use crate::media::mp4::{Media, Run, Sample, fragment};
use crate::media::{Frame, Kind};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Frames taken from the ring at once.
const BATCH: usize = 16;
/// How long the picture is shown, in ticks of 90 kHz: a second.
const SHOWN: u32 = 90_000;

/// The keyframes of a stream, one after another, beginning with the newest that is cached. Dropping it ends it and takes
/// it off the list of consumers.
pub struct Keyframe {
    listed: Listed,
    reader: FrameReader,
    init: Option<Arc<Init>>,
    frames: Vec<(Kind, Frame)>,
}

impl Keyframe {
    /// Waits for the source. Only video codecs of `wants` are looked at.
    ///
    /// # Errors
    /// The stream can't be played with these codecs, or there are too many viewers.
    pub async fn of(
        mse: &Arc<Mse>,
        stream: &Arc<Stream>,
        wants: Wants,
        way: Way,
        client: Client,
    ) -> Result<Keyframe, MseError> {
        let wants = Wants { audio: Vec::new(), ..wants };
        let (listed, selection) = mse.list(stream, &wants, way, client).await?;
        Ok(Keyframe { listed, reader: FrameReader::new(selection, wants), init: None, frames: Vec::new() })
    }

    /// When it is ended from outside.
    pub fn end(&self) -> Arc<End> {
        self.listed.end.clone()
    }

    /// The next keyframe, with the MIME type: a whole file. Cancel-safe.
    ///
    /// # Errors
    /// It was ended.
    pub async fn next(&mut self) -> Result<(Arc<Init>, Bytes), MseError> {
        let end = self.listed.end.clone();
        let (init, bytes) = tokio::select! {
            biased;
            () = end.cancelled() => return Err(MseError::Ended(end.reason())),
            file = self.file() => file,
        };
        self.listed.sent(bytes.len(), 1);
        Ok((init, bytes))
    }

    async fn file(&mut self) -> (Arc<Init>, Bytes) {
        loop {
            // Of several that are there only the newest is of use.
            let newest = self.frames.iter().rposition(|(_, frame)| frame.keyframe);
            if let (Some(at), Some(init)) = (newest, self.init.clone())
                && let Some((_, frame)) = self.frames.drain(..).nth(at)
            {
                let bytes = file(&init, frame.data);
                return (init, bytes);
            }
            self.frames.clear();
            if self.reader.read(BATCH, &mut self.frames).await.is_some() {
                let media = self.reader.tracks().0.and_then(Media::of);
                self.init = media.and_then(|media| Init::of(&[&media]).ok()).map(Arc::new);
            }
        }
    }

    /// The same with a deadline.
    ///
    /// # Errors
    /// No keyframe came in time, or it was ended.
    pub async fn first(&mut self, deadline: Duration) -> Result<(Arc<Init>, Bytes), MseError> {
        timeout(deadline, self.next()).await.unwrap_or(Err(MseError::NoMedia))
    }
}

fn file(init: &Init, data: Bytes) -> Bytes {
    let sample = [Sample { duration: SHOWN, composition_offset: 0, keyframe: true, data }];
    let run = Run { track_id: 1, video: true, decode_time: 0, samples: &sample };
    [&init.bytes[..], &fragment(1, &[run])].concat().into()
}
