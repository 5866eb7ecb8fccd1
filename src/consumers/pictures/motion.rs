//! MJPEG: a row of pictures for as long as somebody takes them.

use super::decode::Size;
use super::shot::{Shot, Shots};
use super::{PictureError, Pictures, Request, Source};
use crate::graph::{ConsumerGuard, ConsumerInfo, Stream};
use crate::media::Codec;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Pictures that wait for a slow client. What it does not take in time is passed over at the ring.
const QUEUE: usize = 2;
/// A client that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(20);
/// Decoded pictures come no faster: a camera may send nothing but keyframes.
const PAUSE: Duration = Duration::from_millis(200);

/// A row of pictures.
pub struct Motion {
    pictures: mpsc::Receiver<Bytes>,
}

impl Motion {
    /// Waits for the next JPEG file. `None` when there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pictures.recv().await
    }
}

impl Pictures {
    /// Pictures as they come: every one of an MJPEG source, the keyframes of others. The first is made before this
    /// returns, so that whatever is in its way is said.
    ///
    /// # Errors
    /// See [`PictureError`].
    pub async fn motion(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        size: Size,
        info: ConsumerInfo,
    ) -> Result<Motion, PictureError> {
        if self.tasks.len() >= self.options.max_requests {
            return Err(PictureError::Busy(self.options.max_requests));
        }
        let ended = self.cancel.child_token();
        let end = ended.clone();
        let info = ConsumerInfo { format_name: "mjpeg", ..info };
        let consumer = stream.add_consumer(info.clone(), Box::new(move |_| end.cancel()))?;
        let source = self.source(stream, false).await?;
        // Looked at before anything else, so that a failure is an answer and not an empty row.
        let first = self.snapshot(stream, &Request { size, ..Request::default() }, info).await?;
        let (sender, pictures) = mpsc::channel(QUEUE);
        let row = Row { all: self.clone(), stream: stream.clone(), size, source, consumer, sender };
        self.tasks.spawn(row.run(first, ended));
        Ok(Motion { pictures })
    }
}

/// One client's row of pictures.
struct Row {
    all: Arc<Pictures>,
    stream: Arc<Stream>,
    size: Size,
    source: Source,
    consumer: ConsumerGuard,
    sender: mpsc::Sender<Bytes>,
}

impl Row {
    async fn run(self, first: Bytes, ended: CancellationToken) {
        let sender = self.sender.clone();
        tokio::select! {
            () = ended.cancelled() => {}
            () = sender.closed() => {}
            why = self.pass(first) => {
                if let Some(error) = why {
                    tracing::warn!(stream = self.stream.name(), "MJPEG ended: {error}");
                }
            }
        }
    }

    /// Ends when the client takes nothing any more, or with what is in the way.
    async fn pass(&self, first: Bytes) -> Option<PictureError> {
        let mut shots = Shots::new(self.source.producer());
        let slot = self.all.cache.slot(&self.stream, self.size);
        if !self.send(first).await {
            return None;
        }
        let mut is_first = true;
        loop {
            let shot = shots.next().await;
            let is_decoded = shot.codec() != Codec::Jpeg || self.size != Size::default();
            // The newest keyframe is the one that was sent already.
            if std::mem::take(&mut is_first) && slot.of(&shot).is_some() {
                continue;
            }
            let next = Instant::now() + PAUSE;
            let jpeg = match self.all.render(&slot, &shot, self.size).await {
                Ok(jpeg) => jpeg,
                Err(error) => return Some(error),
            };
            self.note(&shot, shots.skipped());
            if !self.send(jpeg).await {
                return None;
            }
            if is_decoded {
                sleep_until(next).await;
            }
        }
    }

    fn note(&self, shot: &Shot, skipped: u64) {
        self.consumer.drops.store(skipped, Relaxed);
        let codec = shot.codec();
        let mut info = self.consumer.info.lock();
        if info.codecs != [codec] {
            info.codecs = vec![codec];
        }
    }

    async fn send(&self, jpeg: Bytes) -> bool {
        let bytes = jpeg.len() as u64;
        let taken = matches!(timeout(STALLED, self.sender.send(jpeg)).await, Ok(Ok(())));
        if taken {
            self.consumer.bytes.fetch_add(bytes, Relaxed);
            self.consumer.packets.fetch_add(1, Relaxed);
        }
        taken
    }
}
