//! What goes to a WebSocket client: messages first, then media as fast as it takes them.

use crate::consumers::mse::{Chunk, Init, Keyframe, MseError, Viewer};
use crate::consumers::pictures::{Motion, PictureError};
use crate::graph::{End, EndReason};
use crate::media::Codec;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Saying goodbye may take so long.
const GOODBYE: Duration = Duration::from_millis(500);

/// Something for the client.
pub enum Out {
    /// A JSON message.
    Text(String),
    /// Media from now on, instead of what was sent before.
    Media(Media),
    /// Stop the media, or go on.
    Pause(bool),
    /// A ping.
    Ping,
}

/// A source of binary frames.
pub enum Media {
    /// Fragmented MP4.
    Live(Box<Viewer>),
    /// A keyframe now and then.
    Keyframes(Box<Keyframe>),
    /// JPEG files.
    Pictures(Motion),
}

impl Media {
    fn end(&self) -> Arc<End> {
        match self {
            Media::Live(viewer) => viewer.end(),
            Media::Keyframes(keyframes) => keyframes.end(),
            Media::Pictures(motion) => motion.end(),
        }
    }

    /// The message that asks for it.
    fn kind(&self) -> &'static str {
        match self {
            Media::Live(_) => "mse",
            Media::Keyframes(_) => "mp4",
            Media::Pictures(_) => "mjpeg",
        }
    }
}

/// Why there is no more media.
enum Stop {
    /// The viewer was ended from outside.
    Ended(Option<EndReason>),
    /// It can't go on.
    Failed(String),
}

impl From<MseError> for Stop {
    fn from(error: MseError) -> Stop {
        match error {
            MseError::Ended(reason) => Stop::Ended(reason),
            error => Stop::Failed(error.to_string()),
        }
    }
}

impl From<PictureError> for Stop {
    fn from(error: PictureError) -> Stop {
        match error {
            PictureError::Ended(reason) => Stop::Ended(reason),
            error => Stop::Failed(error.to_string()),
        }
    }
}

/// Why a socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client left, or its connection broke.
    Gone,
    /// Nothing was heard of the client, or it never asked for anything.
    Silent,
    /// The client sent a binary frame.
    Binary,
    /// The viewer was ended by the API.
    Viewer(Option<EndReason>),
    /// The program ends.
    Shutdown,
}

/// The sending half.
pub struct Outgoing {
    sink: SplitSink<WebSocket, Message>,
    inbox: mpsc::Receiver<Out>,
    media: Option<Media>,
    paused: bool,
    /// The codecs that the client was told of.
    told: Vec<Codec>,
}

/// What is to be sent next.
enum Next {
    Out(Option<Out>),
    Chunk(Result<Chunk, MseError>),
    File(Result<(Arc<Init>, Bytes), MseError>),
    Picture(Result<Bytes, PictureError>),
}

impl Outgoing {
    pub fn new(sink: SplitSink<WebSocket, Message>, inbox: mpsc::Receiver<Out>) -> Outgoing {
        Outgoing { sink, inbox, media: None, paused: false, told: Vec::new() }
    }

    /// Sends until the client can't be reached, or its viewer has ended.
    pub async fn run(&mut self) -> Ended {
        loop {
            let next = tokio::select! {
                biased;
                out = self.inbox.recv() => Next::Out(out),
                next = media_next(&mut self.media, self.paused) => next,
            };
            let sent = match next {
                Next::Out(None) => return Ended::Gone,
                Next::Out(Some(out)) => self.take(out).await,
                Next::Chunk(Ok(Chunk::Init(init))) => self.send_init(&init).await,
                Next::Chunk(Ok(Chunk::Media(bytes))) => self.send_media(bytes).await,
                Next::File(Ok((init, bytes))) => {
                    // Before the first file, as before the first fragment.
                    let first = self.told.is_empty();
                    self.told.clone_from(&init.codecs);
                    if first && let Err(ended) = self.send(text("mp4", &init.mime)).await {
                        return ended;
                    }
                    self.send_media(bytes).await
                }
                Next::Picture(Ok(jpeg)) => self.send_media(jpeg).await,
                Next::Chunk(Err(error)) | Next::File(Err(error)) => self.end_media(error.into()).await,
                Next::Picture(Err(error)) => self.end_media(error.into()).await,
            };
            if let Err(ended) = sent {
                return ended;
            }
        }
    }

    async fn take(&mut self, out: Out) -> Result<(), Ended> {
        match out {
            Out::Text(text) => self.send(Message::Text(text.into())).await,
            Out::Ping => self.send(Message::Ping(Bytes::new())).await,
            Out::Media(media) => {
                if let Media::Pictures(_) = &media {
                    self.send(Message::Text(r#"{"type":"mjpeg"}"#.into())).await?;
                }
                self.media = Some(media);
                self.told.clear();
                self.pause(self.paused).await
            }
            Out::Pause(paused) => self.pause(paused).await,
        }
    }

    async fn pause(&mut self, paused: bool) -> Result<(), Ended> {
        self.paused = paused;
        match &mut self.media {
            Some(Media::Live(viewer)) if paused => viewer.pause(),
            Some(Media::Live(viewer)) => {
                if let Err(error) = viewer.resume().await {
                    return self.end_media(error.into()).await;
                }
            }
            Some(Media::Pictures(motion)) => motion.pause(paused),
            Some(Media::Keyframes(_)) | None => {}
        }
        Ok(())
    }

    /// The MIME type first, where a player has to know of it: another profile of the same codecs is in the init segment.
    async fn send_init(&mut self, init: &Init) -> Result<(), Ended> {
        if self.told != init.codecs {
            self.told.clone_from(&init.codecs);
            self.send(text("mse", &init.mime)).await?;
        }
        self.send(Message::Binary(init.bytes.clone())).await
    }

    /// Tells why there is no more media. A viewer that was ended from outside has no use for its socket.
    async fn end_media(&mut self, stop: Stop) -> Result<(), Ended> {
        let Some(media) = self.media.take() else { return Ok(()) };
        let why = match &stop {
            Stop::Ended(reason) => EndReason::words(*reason),
            Stop::Failed(why) => why,
        };
        let why = format!("{}: {}", media.kind(), crate::telemetry::mask(why));
        drop(media);
        self.send(text("error", &why)).await?;
        match stop {
            Stop::Ended(reason) => Err(Ended::Viewer(reason)),
            Stop::Failed(_) => Ok(()),
        }
    }

    /// A viewer that is ended while its client takes nothing is not waited for.
    async fn send_media(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let Some(end) = self.media.as_ref().map(Media::end) else { return Ok(()) };
        let ended = tokio::select! {
            sent = self.sink.send(Message::Binary(bytes)) => return sent.map_err(|_| Ended::Gone),
            () = end.cancelled() => Stop::Ended(end.reason()),
        };
        timeout(GOODBYE, self.end_media(ended)).await.unwrap_or(Err(Ended::Gone))
    }

    /// The connection itself has the deadline for a client that stops reading.
    async fn send(&mut self, message: Message) -> Result<(), Ended> {
        self.sink.send(message).await.map_err(|_| Ended::Gone)
    }

    /// Says goodbye, with the reason where there is one to tell.
    pub async fn close(mut self, ended: Ended) {
        let (code, reason) = match ended {
            Ended::Gone => (close_code::NORMAL, ""),
            Ended::Silent => (close_code::NORMAL, "nothing was asked for, or heard, for a while"),
            Ended::Binary => (close_code::UNSUPPORTED, "messages are JSON texts"),
            Ended::Viewer(Some(EndReason::Kicked)) => (close_code::POLICY, "ended by the server's operator"),
            Ended::Viewer(Some(EndReason::StreamRemoved)) => (close_code::AWAY, "the stream was removed"),
            Ended::Viewer(None) | Ended::Shutdown => (close_code::AWAY, "the server is shutting down"),
        };
        // Nothing is left in the list while the client takes its time.
        self.media = None;
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = timeout(GOODBYE, self.sink.send(Message::Close(Some(frame)))).await;
    }
}

/// What the media has next. For ever without media.
async fn media_next(media: &mut Option<Media>, paused: bool) -> Next {
    match media {
        Some(Media::Live(viewer)) => Next::Chunk(viewer.next().await),
        Some(Media::Keyframes(keyframes)) if !paused => Next::File(keyframes.next().await),
        Some(Media::Pictures(motion)) if !paused => Next::Picture(motion.next().await),
        _ => std::future::pending().await,
    }
}

fn text(kind: &str, value: &str) -> Message {
    Message::Text(serde_json::json!({"type": kind, "value": value}).to_string().into())
}
