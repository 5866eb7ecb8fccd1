//! Pictures of streams: single JPEGs of the newest keyframe, and MJPEG. Pictures that are JPEG already pass untouched.
//! May use `graph` and `media`. Knows nothing of HTTP: it gives JPEG files.
//! Must never wait for a keyframe while the ring has one, nor decode the same keyframe twice at the same size.

mod cache;
mod decode;
mod motion;
mod shot;

pub use decode::{DecodeError, Size};
pub use motion::Motion;

use crate::graph::{ConnectError, ConsumerInfo, End, EndReason, Producer, Stream, Wants};
use crate::media::Codec;
use bytes::Bytes;
use cache::{Cache, Slot};
use shot::{Shot, Shots};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How pictures are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a request waits for a source and its first keyframe.
    pub source_deadline: Duration,
    /// How long a decoder may take, and how long a request waits for its turn.
    pub decode_deadline: Duration,
    /// Decoders that run at the same time.
    pub decoders: usize,
    /// Requests that are served or wait at the same time.
    pub max_requests: usize,
    /// The program that decodes.
    pub ffmpeg: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            source_deadline: Duration::from_secs(10),
            decode_deadline: Duration::from_secs(8),
            decoders: 2,
            max_requests: 256,
            ffmpeg: PathBuf::from("ffmpeg"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// How large it is to be.
    pub size: Size,
    /// A picture that is no older will do.
    pub max_age: Option<Duration>,
    /// Only if the stream is live anyway: no source is dialled or kept running for it.
    pub only_live: bool,
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// The stream gives nothing that can be a picture.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is not live, and only then a picture was wanted.
    #[error("the stream is not live, and this request does not start it")]
    NotLive,
    /// No keyframe came in time.
    #[error("no keyframe came within {0:?}")]
    NoKeyframe(Duration),
    /// There are as many requests as there may be.
    #[error("{0} pictures are being made, that is the limit")]
    Busy(usize),
    /// The keyframe could not be made a picture.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Ended from outside.
    #[error("{}", EndReason::words(*.0))]
    Ended(Option<EndReason>),
}

/// All pictures of the process.
pub struct Pictures {
    options: Options,
    cache: Cache,
    requests: Semaphore,
    decoders: Semaphore,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Pictures {
    /// None yet.
    pub fn new(options: Options) -> Arc<Pictures> {
        Arc::new(Pictures {
            cache: Cache::default(),
            requests: Semaphore::new(options.max_requests),
            decoders: Semaphore::new(options.decoders),
            options,
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        })
    }

    /// What can be made a picture. An MJPEG source is taken before one that has to be decoded only where it comes first.
    pub fn wants() -> Wants {
        Wants { video: vec![Codec::Jpeg, Codec::H264, Codec::H265], audio: Vec::new() }
    }

    /// One picture: a JPEG file. Nothing goes on when the future is dropped.
    ///
    /// # Errors
    /// See [`PictureError`].
    pub async fn snapshot(
        &self,
        stream: &Arc<Stream>,
        request: &Request,
        info: ConsumerInfo,
    ) -> Result<Bytes, PictureError> {
        let busy = PictureError::Busy(self.options.max_requests);
        let _request = self.requests.try_acquire().map_err(|_| busy)?;
        let slot = self.cache.slot(stream, request.size);
        if let Some(jpeg) = request.max_age.and_then(|age| slot.younger_than(age)) {
            return Ok(jpeg);
        }
        let end = Arc::new(End::new(self.cancel.child_token()));
        let ended = end.clone();
        let info = ConsumerInfo { format_name: "jpeg", ..info };
        // Who only looks at what is there anyway is no viewer: a page of thumbnails would make the numbers flicker.
        let consumer = match request.only_live {
            false => Some(stream.add_consumer(info, Box::new(move |reason| ended.set(reason)))?),
            true => None,
        };
        let making = async {
            let (_source, shot) = self.newest(stream, request.only_live).await?;
            if let Some(consumer) = &consumer {
                consumer.info.lock().codecs = vec![shot.codec()];
            }
            self.render(&slot, &shot, request.size).await
        };
        tokio::select! {
            () = end.cancelled() => Err(PictureError::Ended(end.reason())),
            made = making => made,
        }
    }

    /// A source and its newest keyframe.
    async fn newest(&self, stream: &Stream, only_live: bool) -> Result<(Source, Shot), PictureError> {
        let patience = self.options.source_deadline;
        let deadline = Instant::now() + patience;
        let source = self.source(stream, only_live).await?;
        let shot = timeout_at(deadline, Shots::new(source.producer()).next()).await;
        Ok((source, shot.map_err(|_| PictureError::NoKeyframe(patience))?))
    }

    async fn source(&self, stream: &Stream, only_live: bool) -> Result<Source, PictureError> {
        if only_live {
            return shot::live(stream).map(Source::Watched).ok_or(PictureError::NotLive);
        }
        let selection = stream.connect(&Self::wants(), self.options.source_deadline).await?;
        let feed = selection.video.ok_or(PictureError::NotLive)?;
        Ok(Source::Leased(feed.lease))
    }

    /// The picture of a keyframe: as it came, as it was made before, or decoded now.
    async fn render(&self, slot: &Slot, shot: &Shot, size: Size) -> Result<Bytes, PictureError> {
        if let (Codec::Jpeg, true) = (shot.codec(), size == Size::default()) {
            slot.keep(shot, shot.frame.data.clone());
            return Ok(shot.frame.data.clone());
        }
        let patience = self.options.decode_deadline;
        let late = |_| PictureError::Decode(DecodeError::TimedOut(patience));
        // Who asks for the same picture waits here for the one that makes it.
        let _making = timeout(patience, slot.making.lock()).await.map_err(late)?;
        if let Some(jpeg) = slot.of(shot) {
            return Ok(jpeg);
        }
        let permit = timeout(patience, self.decoders.acquire()).await.map_err(late)?;
        let _permit = permit.map_err(|_| PictureError::Ended(None))?;
        let jpeg =
            timeout(patience, decode::jpeg(&self.options.ffmpeg, shot, size)).await.map_err(late)??;
        slot.keep(shot, jpeg.clone());
        self.cache.trim();
        Ok(jpeg)
    }

    /// Ends what runs and waits for it.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.decoders.close();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What a picture is taken from.
enum Source {
    /// Kept running for it.
    Leased(crate::graph::Lease),
    /// Running for others.
    Watched(Arc<Producer>),
}

impl Source {
    fn producer(&self) -> &Arc<Producer> {
        match self {
            Source::Leased(lease) => lease.producer(),
            Source::Watched(producer) => producer,
        }
    }
}
