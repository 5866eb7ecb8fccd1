//! `/api/ws?src=NAME`: go2rtc's WebSocket. Texts are JSON messages, binary frames are media.

mod message;
mod outgoing;

pub use message::Request;

use super::Api;
use super::error::{ApiError, ErrorBody, connect_error};
use super::request::{Query, text_header};
use crate::consumers::hls::HlsError;
use crate::consumers::mse::{Client, Keyframe, MseError, Way};
use crate::consumers::pictures::Size;
use crate::consumers::webrtc;
use crate::graph::{ConsumerInfo, Stream};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures_util::stream::{FuturesUnordered, SplitStream};
use futures_util::{FutureExt, StreamExt};
use outgoing::{Media, Out, Outgoing};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const EXAMPLE: &str = "GET /api/ws?src=front";
/// Bytes of a client's message at most: browsers' offers have some ten thousand.
const MAX_MESSAGE: usize = 64 * 1024;
/// Bytes read at once: clients say little.
const READ_BUFFER: usize = 8 * 1024;
/// Requests of one socket at most that are being answered.
const MAX_PENDING: usize = 8;
/// WebRTC sessions that one socket can pause and resume.
const MAX_SESSIONS: usize = 8;
/// How often a client is pinged; one that says nothing for so long is gone.
const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(50);
/// A socket that never asked for anything.
const IDLE: Duration = Duration::from_secs(60);
/// Messages that wait for a slow client.
const MAX_WAITING: usize = 32;

/// All sockets of the process.
#[derive(Debug)]
pub struct Sockets {
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Sockets {
    /// At most `limit` at the same time.
    pub fn new(limit: usize) -> Sockets {
        Sockets {
            permits: Arc::new(Semaphore::new(limit)),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        }
    }

    /// Says goodbye to all and waits for them.
    pub async fn shutdown(&self) {
        self.permits.close();
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(open))
}

/// go2rtc's WebSocket
///
/// Messages are JSON texts with `type` and `value`: `mse`, `mp4`, `mjpeg`, `hls`, `webrtc/offer`, `webrtc/candidate`, `webrtc`, `control`;
/// media is binary. See docs/api.md.
#[utoipa::path(get, path = "/api/ws", tag = "mp4",
    params(("src" = String, Query, description = "The stream's name")),
    responses(
        (status = 101, description = "The WebSocket is open. An unknown stream is an `error` there"),
        (status = 400, description = "No upgrade, or no stream named", body = ErrorBody),
        (status = 403, description = "A page of another site, and `api.origin` is not `*`", body = ErrorBody),
        (status = 426, description = "Another version of the protocol", body = ErrorBody),
        (status = 503, description = "As many WebSockets as allowed", body = ErrorBody)))]
async fn open(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    query: Query,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let name = query.require("src", EXAMPLE)?.to_owned();
    let upgrade = upgrade.map_err(|rejection| {
        let status = rejection.status();
        let error = ApiError::new(status, "this is a WebSocket").detail(rejection.body_text());
        match status {
            StatusCode::UPGRADE_REQUIRED => {
                error.header(header::UPGRADE, HeaderValue::from_static("websocket"))
            }
            _ => error,
        }
        .hint("open ws://SERVER/api/ws?src=NAME with a WebSocket client")
    })?;
    let permit = api.sockets.permits.clone().try_acquire_owned().map_err(|_| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many viewers")
            .detail("there are as many WebSockets as allowed")
            .header(header::RETRY_AFTER, HeaderValue::from_static("10"))
    })?;
    let user_agent: String = text_header(&headers, &header::USER_AGENT).chars().take(200).collect();
    let tracked = api.sockets.tasks.token();
    let socket = Socket { api, name, remote, user_agent };
    Ok(upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .on_upgrade(move |stream| async move {
            socket.serve(stream).await;
            drop((permit, tracked));
        }))
}

/// One client.
struct Socket {
    api: Arc<Api>,
    name: String,
    remote: SocketAddr,
    user_agent: String,
}

/// What a request came to.
enum Answer {
    Out(Vec<Out>),
    /// A WebRTC session began.
    Session(String, Vec<Out>),
}

impl Socket {
    async fn serve(&self, stream: WebSocket) {
        let (sink, stream) = stream.split();
        let (out, inbox) = mpsc::channel(MAX_WAITING);
        let mut outgoing = Outgoing::new(sink, inbox);
        let ended = tokio::select! {
            ended = outgoing.run() => ended,
            ended = self.listen(stream, out) => ended,
            () = self.api.sockets.cancel.cancelled() => outgoing::Ended::Shutdown,
        };
        tracing::debug!(stream = self.name, remote = %self.remote, ?ended, "WebSocket closed");
        outgoing.close(ended).await;
    }

    /// Reads messages and answers them, several at the same time, until the client has gone.
    async fn listen(&self, mut stream: SplitStream<WebSocket>, out: mpsc::Sender<Out>) -> outgoing::Ended {
        use outgoing::Ended;
        let mut pending = FuturesUnordered::new();
        let mut sessions: Vec<String> = Vec::new();
        let mut ping = interval(PING);
        let opened = Instant::now();
        let (mut heard, mut asked) = (opened, false);
        loop {
            let deadline = deadline(opened, heard, asked);
            let message = tokio::select! {
                message = stream.next() => message,
                Some(answer) = pending.next(), if !pending.is_empty() => {
                    let outs = match answer {
                        Answer::Out(outs) => outs,
                        Answer::Session(session, outs) => {
                            sessions.push(session);
                            if sessions.len() > MAX_SESSIONS {
                                sessions.remove(0);
                            }
                            outs
                        }
                    };
                    for one in outs {
                        if out.send(one).await.is_err() {
                            return Ended::Gone;
                        }
                    }
                    continue;
                }
                _ = ping.tick() => {
                    // A client that is behind has something to answer already.
                    let _ = out.try_send(Out::Ping);
                    continue;
                }
                () = sleep_until(deadline) => return Ended::Silent,
            };
            heard = Instant::now();
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Binary(_))) => return Ended::Binary,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_))) | None => return Ended::Gone,
                Some(Err(error)) => {
                    tracing::debug!(remote = %self.remote, %error, "WebSocket failed");
                    return Ended::Gone;
                }
            };
            asked = true;
            let answer = match Request::parse(&text) {
                Ok(Request::Candidate) => continue,
                Ok(Request::Pause(pause)) => {
                    sessions.retain(|session| self.api.webrtc.pause(session, pause));
                    vec![Out::Pause(pause)]
                }
                Ok(request) if pending.len() < MAX_PENDING => {
                    pending.push(self.answer(request).boxed());
                    continue;
                }
                Ok(_) => vec![error("error", "too many requests at once")],
                Err(why) => vec![Out::Text(json!({"type": "error", "value": why}).to_string())],
            };
            for one in answer {
                if out.send(one).await.is_err() {
                    return Ended::Gone;
                }
            }
        }
    }

    async fn answer(&self, request: Request) -> Answer {
        let kind = match &request {
            Request::Offer { object: true, .. } => "webrtc",
            Request::Offer { .. } => "webrtc/offer",
            Request::Mse(_) => "mse",
            Request::Mp4(_) => "mp4",
            Request::Hls(_) => "hls",
            Request::Mjpeg => "mjpeg",
            Request::Candidate => "webrtc/candidate",
            Request::Pause(_) => "control",
        };
        let Some(stream) = self.api.registry.get(&self.name) else {
            return Answer::Out(vec![error(kind, format!("stream not found: there is no {:?}", self.name))]);
        };
        let client = || Client { remote_addr: self.remote.to_string(), user_agent: self.user_agent.clone() };
        match request {
            Request::Offer { sdp, object } => self.offer(&stream, kind, &sdp, object).await,
            Request::Mse(wants) => match self.api.mse.view(&stream, wants, Way::MSE, client()).await {
                Ok(viewer) => Answer::Out(vec![Out::Media(Media::Live(Box::new(viewer)))]),
                Err(why) => self.refuse(kind, &why),
            },
            Request::Mp4(wants) => {
                match Keyframe::of(&self.api.mse, &stream, wants, Way::KEYFRAMES, client()).await {
                    Ok(keyframes) => Answer::Out(vec![Out::Media(Media::Keyframes(Box::new(keyframes)))]),
                    Err(why) => self.refuse(kind, &why),
                }
            }
            Request::Hls(wants) => {
                // Relative to /api/ws, like go2rtc's `hls/playlist.m3u8`: players put the server's address before it.
                let base = format!("hls/{}/", super::hls::encoded(&self.name));
                match self.api.hls.multivariant(&stream, &wants, &base).await {
                    Ok(text) => {
                        let text = String::from_utf8_lossy(&text.plain).into_owned();
                        Answer::Out(vec![message("hls", text.into())])
                    }
                    Err(HlsError::Connect(why)) => self.refuse(kind, &why),
                    Err(why) => Answer::Out(vec![error(kind, why)]),
                }
            }
            Request::Mjpeg => {
                let info = ConsumerInfo {
                    protocol: "ws",
                    remote_addr: self.remote.to_string(),
                    user_agent: self.user_agent.clone(),
                    ..ConsumerInfo::default()
                };
                match self.api.pictures.motion(&stream, Size::default(), info).await {
                    Ok(motion) => Answer::Out(vec![Out::Media(Media::Pictures(motion))]),
                    Err(why) => self.refuse(kind, &why),
                }
            }
            // They need no stream and have been dealt with.
            Request::Candidate | Request::Pause(_) => Answer::Out(Vec::new()),
        }
    }

    async fn offer(&self, stream: &Arc<Stream>, kind: &str, sdp: &str, object: bool) -> Answer {
        let client = webrtc::Client { remote: self.remote, user_agent: self.user_agent.clone() };
        match self.api.webrtc.offer(stream, sdp, client).await {
            Ok(answer) => {
                let mut outs = vec![if object {
                    message("webrtc", json!({"type": "answer", "sdp": answer.sdp}))
                } else {
                    message("webrtc/answer", answer.sdp.clone().into())
                }];
                // They are in the answer as well; go2rtc's clients expect them one by one.
                let candidates = answer
                    .sdp
                    .lines()
                    .filter_map(|line| line.strip_prefix("a="))
                    .filter(|line| line.starts_with("candidate:"));
                let mut seen: Vec<&str> = Vec::new();
                for candidate in candidates {
                    if !seen.contains(&candidate) {
                        seen.push(candidate);
                        outs.push(message("webrtc/candidate", candidate.into()));
                    }
                }
                Answer::Session(answer.session, outs)
            }
            Err(why) => {
                tracing::info!(stream = self.name, remote = %self.remote, "WebRTC viewer refused: {why}");
                Answer::Out(vec![error(kind, why)])
            }
        }
    }

    fn refuse(&self, kind: &str, why: &impl std::fmt::Display) -> Answer {
        tracing::info!(stream = self.name, remote = %self.remote, "{kind} viewer refused: {why}");
        Answer::Out(vec![error(kind, why)])
    }
}

/// When a client counts as gone. Browsers answer pings for pages that have forgotten their socket.
fn deadline(opened: Instant, heard: Instant, asked: bool) -> Instant {
    let silent = heard + SILENCE;
    if asked { silent } else { silent.min(opened + IDLE) }
}

fn message(kind: &str, value: Value) -> Out {
    Out::Text(json!({"type": kind, "value": value}).to_string())
}

/// go2rtc's form: what was asked for, then what was wrong. Credentials are hidden.
fn error(kind: &str, why: impl std::fmt::Display) -> Out {
    let why = crate::telemetry::mask(&why.to_string()).into_owned();
    message("error", format!("{kind}: {why}").into())
}

/// The answer over HTTP to what can't be viewed.
pub(super) fn mse_error(name: &str, error: &MseError) -> ApiError {
    match error {
        MseError::Connect(error) => connect_error(name, error),
        MseError::NoMedia => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "source timed out").detail(error.to_string())
        }
        MseError::Ended(_) => ApiError::unknown_stream(name),
        MseError::Busy => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many viewers")
            .detail(error.to_string())
            .header(header::RETRY_AFTER, HeaderValue::from_static("10")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_asks_for_nothing_is_closed_whatever_pings_it_answers() {
        let opened = Instant::now();
        let heard = opened + Duration::from_secs(55);
        assert_eq!(deadline(opened, heard, false), opened + IDLE);
        assert_eq!(deadline(opened, heard, true), heard + SILENCE);
        assert_eq!(deadline(opened, opened, false), opened + SILENCE);
    }
}
