//! HLS and LL-HLS (draft-pantos-hls-rfc8216bis): one segmenter for each stream, shared by all viewers, fMP4.
//! May use `graph`, `media` and `config`. Knows nothing of HTTP: it gives texts and bytes.
//! Must never keep a source running that nobody asks for, nor let one viewer's pace change what others get.

mod cutter;
pub mod playlist;
pub mod query;
pub mod segmenter;
mod session;
mod version;
mod waiters;
mod window;

pub use version::Text;
pub use window::{Bounds as WindowBounds, Window};

use crate::graph::{ConnectError, Stream, Wants};
use crate::media::Codec;
use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::{Mutex, RwLock};
use query::{File, Reload};
use session::{Phase, Session};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How the HLS consumer runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Lengths and linger.
    pub config: crate::config::Hls,
    /// How long a first request waits for the source.
    pub source_deadline: Duration,
    /// Bytes of media kept for each stream; the three newest segments stay in any case.
    pub max_bytes: usize,
    /// Requests at most that wait for something to come.
    pub max_waiters: usize,
    /// Segmenters at most.
    pub max_sessions: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config: crate::config::Hls::default(),
            source_deadline: Duration::from_secs(10),
            max_bytes: 64 << 20,
            max_waiters: 16_384,
            max_sessions: 1024,
        }
    }
}

/// Why a request is not answered with media.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HlsError {
    /// The stream can't be played. Becomes a 404, 422, 502 or 504.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The source plays, but no segment came about in time. Becomes a 504.
    #[error("the source is connected, but no keyframe has come from it in time")]
    NoMedia,
    /// No such session (any more). Becomes a 404.
    #[error("there is no such playlist any more")]
    Gone,
    /// No such file, or no longer. Becomes a 404.
    #[error("there is no such file, or no longer")]
    NoFile,
    /// A segment is asked for that is far in the future. Becomes a 400.
    #[error("_HLS_msn is more than two segments ahead: the last one is {last}")]
    TooFarAhead {
        /// The last complete segment.
        last: u64,
    },
    /// The part that was hinted did not come in time. Becomes a 503.
    #[error("the source has sent nothing for a while")]
    Stalled,
    /// As many requests wait, or as many streams are segmented, as allowed. Becomes a 503.
    #[error("there are as many HLS requests waiting, or streams segmented, as allowed")]
    Busy,
}

/// What a file is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A media playlist.
    Playlist(Arc<Text>),
    /// An init segment, a segment or a part: never changes.
    Media(Bytes),
}

/// All segmenters of the process.
pub struct Hls {
    options: Options,
    /// By which new segmenters run.
    config: RwLock<crate::config::Hls>,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    waiters: Semaphore,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Hls {
    /// No segmenter yet: the first request for a stream starts one.
    pub fn new(options: Options) -> Arc<Hls> {
        Arc::new(Hls {
            waiters: Semaphore::new(options.max_waiters),
            config: RwLock::new(options.config.clone()),
            options,
            sessions: Mutex::default(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        })
    }

    /// How segmenters run that are started from now on. Those that run go on as they are: a playlist never changes its
    /// target durations.
    pub fn configure(&self, config: crate::config::Hls) {
        *self.config.write() = config;
    }

    /// The codecs that can be written.
    pub fn wants() -> Wants {
        Wants {
            video: vec![Codec::H264, Codec::H265],
            audio: vec![Codec::Aac, Codec::Opus, Codec::Pcma, Codec::Pcmu],
        }
    }

    /// How long a file may be kept by caches: as long as anybody can ask for it.
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.read().target()) * 6).max(Duration::from_secs(60))
    }

    /// The multivariant playlist of a stream, starting its segmenter if there is none.
    /// `base` is what the media playlist's URI begins with, e.g. empty or `../hls/front/`.
    ///
    /// # Errors
    /// The stream can't be played with these codecs, or nothing came in time.
    pub async fn multivariant(
        self: &Arc<Self>,
        stream: &Arc<Stream>,
        wants: &Wants,
        base: &str,
    ) -> Result<Arc<Text>, HlsError> {
        let session = self.session(stream, wants)?;
        session.touch();
        let _waiting = self.waiters.try_acquire().map_err(|_| HlsError::Busy)?;
        let deadline = Instant::now() + self.options.source_deadline + session.patience();
        session.started(deadline).await?;
        Ok(session.multivariant(base))
    }

    /// A file of a session. Waits for what is about to come, as the request says.
    ///
    /// # Errors
    /// No such file or session, a request for the far future, or too many requests.
    pub async fn file(
        &self,
        stream: &str,
        prefix: &str,
        file: &str,
        reload: Reload,
    ) -> Result<Content, HlsError> {
        let session = self.sessions.lock().get(prefix).cloned().ok_or(HlsError::Gone)?;
        if session.stream.name() != stream {
            return Err(HlsError::Gone);
        }
        session.touch();
        let content = match File::parse(file).ok_or(HlsError::NoFile)? {
            File::Playlist => self.playlist(&session, reload).await?,
            File::Init(id) => Content::Media(session.window.lock().init(id).ok_or(HlsError::NoFile)?),
            File::Segment(number) => {
                let window = session.window.lock();
                Content::Media(window.segment(number).ok_or(HlsError::NoFile)?.data.clone())
            }
            File::Part(number, index) => self.part(&session, number, index).await?,
        };
        session.touch();
        session.served(match &content {
            Content::Playlist(text) => text.plain.len(),
            Content::Media(bytes) => bytes.len(),
        });
        Ok(content)
    }

    async fn playlist(&self, session: &Session, reload: Reload) -> Result<Content, HlsError> {
        let deadline = Instant::now() + session.patience();
        session.started(deadline + self.options.source_deadline).await?;
        let answer = |phase: &Phase| match phase {
            Phase::Playing(version) if version.is_too_far_ahead(&reload) => {
                Err(HlsError::TooFarAhead { last: version.edge().0 })
            }
            Phase::Playing(version) => Ok(Content::Playlist(version.text(&reload))),
            Phase::Starting | Phase::Ended(_) => Err(HlsError::Gone),
        };
        let ready = |phase: &Phase| match phase {
            Phase::Playing(version) => version.satisfies(&reload) || version.is_too_far_ahead(&reload),
            Phase::Starting => false,
            Phase::Ended(_) => true,
        };
        let is_ready = ready(&session.phase.borrow());
        if let Some(place) = reload.place().filter(|_| !is_ready) {
            let _waiting = self.waiters.try_acquire().map_err(|_| HlsError::Busy)?;
            // A source that is silent has no newer playlist: what there is keeps the player going.
            session.reach(place, deadline, ready).await;
        }
        answer(&session.phase.borrow())
    }

    async fn part(&self, session: &Session, number: u64, index: usize) -> Result<Content, HlsError> {
        let held = || session.window.lock().part(number, index);
        if let Some(part) = held() {
            return Ok(Content::Media(part));
        }
        let is_next = match &*session.phase.borrow() {
            Phase::Playing(version) => version.is_next(number, index as u64),
            _ => false,
        };
        // It may have come between the two looks.
        if !is_next {
            return held().map(Content::Media).ok_or(HlsError::NoFile);
        }
        let _waiting = self.waiters.try_acquire().map_err(|_| HlsError::Busy)?;
        let deadline = Instant::now() + session.patience();
        let is_past = |phase: &Phase| match phase {
            Phase::Playing(version) => !version.is_next(number, index as u64),
            _ => true,
        };
        if !session.reach((number, Some(index as u64)), deadline, is_past).await {
            return Err(HlsError::Stalled);
        }
        held().map(Content::Media).ok_or(HlsError::NoFile)
    }

    fn session(self: &Arc<Self>, stream: &Arc<Stream>, wants: &Wants) -> Result<Arc<Session>, HlsError> {
        let mut sessions = self.sessions.lock();
        let fits = |session: &&Arc<Session>| {
            Arc::ptr_eq(&session.stream, stream) && session.wants == *wants && !session.is_over()
        };
        if let Some(session) = sessions.values().find(fits) {
            return Ok(session.clone());
        }
        if sessions.len() >= self.options.max_sessions || self.cancel.is_cancelled() {
            return Err(HlsError::Busy);
        }
        let prefix = format!("{:016x}", rand::random::<u64>());
        let cancel = self.cancel.child_token();
        let options = Options { config: self.config.read().clone(), ..self.options.clone() };
        let session = Session::new(prefix.clone(), stream.clone(), wants.clone(), options, cancel);
        let session = Arc::new(session);
        sessions.insert(prefix.clone(), session.clone());
        let (hls, running) = (self.clone(), session.clone());
        self.tasks.spawn(async move {
            let run = AssertUnwindSafe(running.clone().run());
            if run.catch_unwind().await.is_err() {
                tracing::error!(stream = running.stream.name(), "the HLS segmenter failed, see above");
                running.abandon();
            }
            hls.sessions.lock().remove(&prefix);
        });
        Ok(session)
    }

    /// Ends all segmenters and waits for them.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
