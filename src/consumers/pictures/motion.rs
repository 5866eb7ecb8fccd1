//! MJPEG: a row of pictures for as long as somebody takes them.

use super::decode::Size;
use super::shot::{Shot, Shots};
use super::{PictureError, Pictures, Source};
use crate::graph::{ConsumerGuard, ConsumerInfo, End, Stream};
use crate::media::Codec;
use bytes::Bytes;
use futures_util::FutureExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// Pictures that wait for a slow client. It gets the newest when it has taken one; those between are dropped.
const QUEUE: usize = 2;
/// A client that takes nothing for so long is gone.
const STALLED: Duration = Duration::from_secs(20);
/// Decoded pictures come no faster: a camera may send nothing but keyframes.
const PAUSE: Duration = Duration::from_millis(200);

/// A row of pictures. Dropping it ends it and takes it off the list of consumers.
pub struct Motion {
    pictures: mpsc::Receiver<Result<Bytes, PictureError>>,
    paused: watch::Sender<bool>,
    end: Arc<End>,
}

impl Motion {
    /// When it is ended from outside: for whoever waits for the client meanwhile.
    pub fn end(&self) -> Arc<End> {
        self.end.clone()
    }

    /// Waits for the next JPEG file. Cancel-safe.
    ///
    /// # Errors
    /// There will be no more.
    pub async fn next(&mut self) -> Result<Bytes, PictureError> {
        let ended = || Err(PictureError::Ended(self.end.reason()));
        tokio::select! {
            biased;
            () = self.end.cancelled() => ended(),
            picture = self.pictures.recv() => picture.unwrap_or_else(ended),
        }
    }

    /// Stops the pictures, or goes on with the newest one. The place in the list and the source stay.
    pub fn pause(&mut self, paused: bool) {
        if self.paused.send_replace(paused) {
            // What was on its way when it stopped is old by now.
            while self.pictures.try_recv().is_ok() {}
        }
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
        let busy = || PictureError::Busy(self.options.max_requests);
        let _request = self.requests.try_acquire().map_err(|_| busy())?;
        if self.tasks.len() >= self.options.max_requests {
            return Err(busy());
        }
        let end = Arc::new(End::new(self.cancel.child_token()));
        let ended = end.clone();
        let info = ConsumerInfo { format_name: "mjpeg", ..info };
        let consumer = stream.add_consumer(info, Box::new(move |reason| ended.set(reason)))?;
        let beginning = async {
            let (source, shot) = self.newest(stream, false).await?;
            consumer.info.lock().codecs = vec![shot.codec()];
            // Made before anything else, so that a failure is an answer and not an empty row. It is kept: the row begins with it.
            self.render(&self.cache.slot(stream, size), &shot, size).await?;
            Ok(source)
        };
        let source = tokio::select! {
            () = end.cancelled() => Err(PictureError::Ended(end.reason())),
            source = beginning => source,
        }?;
        let (sender, pictures) = mpsc::channel(QUEUE);
        let (paused, pausing) = watch::channel(false);
        let row = Row { all: self.clone(), stream: stream.clone(), size, source, consumer, sender };
        self.tasks.spawn(row.run(end.clone(), pausing));
        Ok(Motion { pictures, paused, end })
    }
}

/// One client's row of pictures.
struct Row {
    all: Arc<Pictures>,
    stream: Arc<Stream>,
    size: Size,
    source: Source,
    consumer: ConsumerGuard,
    sender: mpsc::Sender<Result<Bytes, PictureError>>,
}

impl Row {
    async fn run(self, end: Arc<End>, pausing: watch::Receiver<bool>) {
        let played = tokio::select! {
            () = end.cancelled() => Ok(()),
            () = self.sender.closed() => Ok(()),
            played = self.play(pausing) => played,
        };
        if let Err(error) = played {
            tracing::warn!(stream = self.stream.name(), "MJPEG ended: {error}");
            let _ = self.sender.try_send(Err(error));
        }
    }

    /// Ends when the client takes nothing any more.
    async fn play(&self, mut pausing: watch::Receiver<bool>) -> Result<(), PictureError> {
        // Without its other end the client has gone.
        while pausing.wait_for(|paused| !paused).await.is_ok() {
            tokio::select! {
                biased;
                _ = pausing.wait_for(|paused| *paused) => {}
                passed = self.pass() => return passed,
            }
        }
        Ok(())
    }

    /// From the newest keyframe on.
    async fn pass(&self) -> Result<(), PictureError> {
        let mut shots = Shots::new(self.source.producer());
        let slot = self.all.cache.slot(&self.stream, self.size);
        let mut dropped = 0;
        loop {
            let is_behind = self.sender.capacity() == 0;
            let Ok(Ok(place)) = timeout(STALLED, self.sender.reserve()).await else { return Ok(()) };
            let mut shot = shots.next().await;
            let is_decoded = shot.codec() != Codec::Jpeg || self.size != Size::default();
            // Of several that are there only the newest is of use, but for who takes all that an MJPEG camera sends.
            if is_behind || is_decoded {
                while let Some(newer) = shots.next().now_or_never() {
                    dropped += u64::from(is_behind);
                    shot = newer;
                }
            }
            let next = Instant::now() + PAUSE;
            let jpeg = self.all.render(&slot, &shot, self.size).await?;
            self.note(&shot, &jpeg, dropped + shots.skipped());
            place.send(Ok(jpeg));
            if is_decoded {
                sleep_until(next).await;
            }
        }
    }

    fn note(&self, shot: &Shot, jpeg: &Bytes, dropped: u64) {
        self.consumer.bytes.fetch_add(jpeg.len() as u64, Relaxed);
        self.consumer.packets.fetch_add(1, Relaxed);
        self.consumer.drops.store(dropped, Relaxed);
        let codec = shot.codec();
        let mut info = self.consumer.info.lock();
        if info.codecs != [codec] {
            info.codecs = vec![codec];
        }
    }
}
