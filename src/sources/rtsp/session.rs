//! The dialogue with a camera (RFC 2326): OPTIONS, DESCRIBE, SETUP, PLAY, keepalives, TEARDOWN.

use super::answer::{base_uri, join_control, parse_session, status_in_words};
use super::sdp::Sdp;
use super::udp::UdpPair;
use super::wire::{Wire, WireError};
use crate::graph::SourceError;
use crate::media::{Kind, Track};
use crate::net::{self, ConnectError};
use crate::rtsp::auth::{Auth, Challenged};
use crate::rtsp::message::Draft;
use crate::rtsp::url::{self, RtspUrl, not_connected};
use crate::rtsp::{Incoming, Request, Response, Transport};
use std::io::ErrorKind;
use std::time::Duration;

/// Most bytes of media that are kept when they come before the answer to PLAY.
const MAX_EARLY_BYTES: usize = 1024 * 1024;
/// Most packets of that kind.
const MAX_EARLY_PACKETS: usize = 1024;
const USER_AGENT: &str = concat!("Streamgate/", env!("CARGO_PKG_VERSION"));

/// Why a session didn't come about.
#[derive(Debug)]
pub enum Fail {
    /// For good.
    Source(SourceError),
    /// The camera answered with a status that is no success; the connection goes on.
    Status(String),
    /// Ask there instead.
    Redirect(String),
    /// The camera doesn't want to send this way.
    Transport(String),
}

impl From<SourceError> for Fail {
    fn from(error: SourceError) -> Fail {
        Fail::Source(error)
    }
}

/// What DESCRIBE answered.
#[derive(Debug)]
pub struct Description {
    /// The session description, read.
    pub sdp: Sdp,
    /// As it may be shown.
    pub shown: String,
    /// Where relative control URLs start from.
    base: String,
    /// The control URL of the whole.
    aggregate: String,
}

/// A track that is set up.
#[derive(Debug)]
pub struct Setup {
    /// For the graph.
    pub track: Track,
    /// Its RTP payload type.
    pub payload_type: u8,
    /// Interleaved channels for RTP and RTCP; `None` for UDP.
    pub channels: Option<(u8, u8)>,
    /// The sockets, for UDP.
    pub udp: Option<UdpPair>,
}

/// One RTSP connection and the session on it. Dropping it ends both, with a TEARDOWN if there is something to tear down.
pub struct Session {
    /// The connection.
    pub wire: Wire,
    /// The URL that is played.
    pub url: RtspUrl,
    /// Signs the requests.
    pub auth: Auth,
    /// The server's name.
    pub server: String,
    /// How long the session lives without a keepalive.
    pub timeout: Duration,
    /// The request that is open or was the last, for messages.
    pub asking: &'static str,
    /// Interleaved packets that came before PLAY was answered.
    pub early: Vec<(u8, Box<[u8]>)>,
    early_bytes: usize,
    cseq: u32,
    id: Option<String>,
    aggregate: Option<String>,
    has_get_parameter: bool,
}

/// An answer, whatever its status.
struct Answer {
    head: Response,
    body: Vec<u8>,
}

impl Session {
    /// Connects, within the URL's `timeout`, and as long again for TLS.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`], [`SourceError::TimedOut`], or [`SourceError::Refused`] where the certificate or TLS is missing.
    pub async fn connect(url: RtspUrl) -> Result<Session, SourceError> {
        let connected = net::connect(&url.host, url.port, url.security, url.timeout).await;
        let wire = connected.map(Wire::new).map_err(|e| match &e {
            ConnectError::Tcp { peer, error } => match error.kind() {
                ErrorKind::ConnectionRefused => SourceError::Unreachable(format!(
                    "{peer} refuses connections: is this the camera's RTSP port?"
                )),
                ErrorKind::TimedOut => SourceError::TimedOut(format!("no answer from {peer}")),
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    SourceError::Unreachable(format!("there is no route to {peer}"))
                }
                _ => SourceError::Unreachable(e.to_string()),
            },
            ConnectError::TimedOut { .. } => SourceError::TimedOut(e.to_string()),
            ConnectError::Tls { .. } => SourceError::Unreachable(e.to_string()),
            ConnectError::Certificate { .. } | ConnectError::NoTls { .. } => {
                SourceError::Refused(not_connected(&e))
            }
        })?;
        Ok(Session {
            wire,
            auth: Auth::new(url.credentials.clone()),
            url,
            server: String::new(),
            timeout: Duration::from_secs(60),
            asking: "nothing yet",
            early: Vec::new(),
            early_bytes: 0,
            cseq: 0,
            id: None,
            aggregate: None,
            has_get_parameter: false,
        })
    }

    /// OPTIONS and DESCRIBE.
    ///
    /// # Errors
    /// [`Fail::Redirect`] or [`Fail::Source`].
    pub async fn describe(&mut self) -> Result<Description, Fail> {
        let uri = self.url.request_uri.clone();
        // Some cameras don't know OPTIONS; its only use is to learn how to keep the session alive.
        let options = self.request("OPTIONS", &uri, &[]).await?;
        self.note_methods(&options.head);
        self.note_server(&options.head);

        let answer = self.request("DESCRIBE", &uri, &[("Accept", "application/sdp")]).await?;
        self.note_server(&answer.head);
        if matches!(answer.head.status, 301 | 302 | 303 | 305)
            && let Some(location) = answer.head.headers.get("Location")
        {
            return Err(Fail::Redirect(location.to_string()));
        }
        self.succeeded(&answer.head)?;
        let sdp = Sdp::parse(&answer.body);
        let header = |name| answer.head.headers.get(name);
        if sdp.medias.is_empty() {
            let what = header("Content-Type").unwrap_or("no content type");
            let length = answer.body.len();
            return Err(self.refused(&format!(
                "the camera described no media: its answer to DESCRIBE has {length} bytes of {what}"
            )));
        }
        if self.server.is_empty() {
            self.server = sdp.tool.clone().unwrap_or_default();
        }
        let base = base_uri(header("Content-Base"), header("Content-Location"), &uri);
        let aggregate = sdp.control.as_deref().map_or(uri, |control| join_control(&base, control));
        let shown = self.url.hide(&String::from_utf8_lossy(&answer.body));
        Ok(Description { sdp, shown, base, aggregate })
    }

    /// SETUP of the first usable video and the first usable audio.
    ///
    /// # Errors
    /// [`Fail::Transport`] when UDP is refused for a later track, else [`Fail::Source`] or [`Fail::Status`].
    pub async fn setup(&mut self, description: &Description) -> Result<Vec<Setup>, Fail> {
        let mut setups: Vec<Setup> = Vec::new();
        let mut refusal = None;
        for media in &description.sdp.medias {
            let Some((payload_type, track)) = media.track() else { continue };
            let is_wanted = self.url.media.is_empty() || self.url.media.contains(&track.kind());
            if !is_wanted || setups.iter().any(|s| s.track.kind() == track.kind()) {
                continue;
            }
            let uri = match &media.control {
                Some(control) => join_control(&description.base, control),
                None => description.aggregate.clone(),
            };
            let mut udp = None;
            if self.url.transport == url::Transport::Udp {
                match self.setup_udp(&uri).await {
                    Ok(pair) => udp = Some(pair),
                    Err(Fail::Transport(why)) if self.id.is_none() => {
                        tracing::info!(url = %self.url.shown, "no UDP, TCP instead: {why}");
                        self.url.transport = url::Transport::Tcp;
                    }
                    Err(e) => return Err(e),
                }
            }
            let done = match udp {
                Some(pair) => Ok((None, Some(pair))),
                None => self.setup_tcp(&uri, &setups).await.map(|channels| (Some(channels), None)),
            };
            match done {
                Ok((channels, udp)) => setups.push(Setup { track, payload_type, channels, udp }),
                // A camera may refuse its sound and show its picture.
                Err(Fail::Status(why)) => refusal = Some(why),
                Err(e) => return Err(e),
            }
        }
        self.aggregate = Some(description.aggregate.clone());
        match refusal {
            Some(refusal) if setups.is_empty() => Err(Fail::Status(refusal)),
            Some(refusal) => {
                tracing::warn!(url = %self.url.shown, "a track is left out: {refusal}");
                Ok(setups)
            }
            None if setups.is_empty() => {
                let wanted = match self.url.media.as_slice() {
                    [] => String::new(),
                    kinds => format!(
                        " (with #media={})",
                        kinds.iter().map(Kind::to_string).collect::<Vec<_>>().join(",")
                    ),
                };
                Err(self.refused(&format!(
                    "the camera offers nothing that can be played{wanted}: it has {}; \
                     H264, H265, AAC, Opus, PCMA and PCMU are understood",
                    description.sdp.offer()
                )))
            }
            None => Ok(setups),
        }
    }

    async fn setup_tcp(&mut self, uri: &str, before: &[Setup]) -> Result<(u8, u8), Fail> {
        let next = before
            .iter()
            .filter_map(|s| s.channels)
            .map(|(a, b)| a.max(b))
            .max()
            .map_or(0, |c| c.saturating_add(1));
        let proposed = (next & !1, next | 1);
        let transport = format!("RTP/AVP/TCP;unicast;interleaved={}-{}", proposed.0, proposed.1);
        let answer = self.setup_request(uri, &transport).await?;
        if answer.server_port.is_some() && answer.interleaved.is_none() && !answer.is_tcp {
            return Err(
                self.refused("the camera was asked for TCP and answered with UDP; try #transport=udp")
            );
        }
        Ok(answer.interleaved.unwrap_or(proposed))
    }

    async fn setup_udp(&mut self, uri: &str) -> Result<UdpPair, Fail> {
        let mut pair = UdpPair::bind(self.wire.local, self.wire.peer)
            .map_err(|e| Fail::Transport(format!("no pair of UDP ports to be had: {e}")))?;
        let (rtp, rtcp) = pair.ports;
        let transport = format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}");
        let answer = self.setup_request(uri, &transport).await.map_err(|e| match e {
            Fail::Status(why) => Fail::Transport(why),
            e => e,
        })?;
        if answer.is_tcp {
            return Err(Fail::Transport("the camera was asked for UDP and answered with TCP".to_owned()));
        }
        pair.open_firewall(answer.server_port);
        Ok(pair)
    }

    async fn setup_request(&mut self, uri: &str, transport: &str) -> Result<Transport, Fail> {
        let answer = self.request("SETUP", uri, &[("Transport", transport)]).await?;
        self.succeeded(&answer.head)?;
        // The first session id is kept: some cameras change it with each SETUP and mean the first.
        if let Some(session) = answer.head.headers.get("Session") {
            let (id, timeout) = parse_session(session);
            if self.id.is_none() && !id.is_empty() {
                (self.id, self.timeout) = (Some(id), timeout);
            }
        }
        Ok(answer.head.headers.get("Transport").map(Transport::parse).unwrap_or_default())
    }

    /// PLAY. Media that comes before the answer is in [`Session::early`].
    ///
    /// # Errors
    /// What the camera answered.
    pub async fn play(&mut self) -> Result<(), Fail> {
        let uri = self.aggregate_uri();
        let answer = self.request("PLAY", &uri, &[("Range", "npt=0.000-")]).await?;
        self.succeeded(&answer.head)
    }

    /// Sends a keepalive: GET_PARAMETER if the camera knows it, else OPTIONS. The answer comes with the media.
    ///
    /// # Errors
    /// [`WireError::Closed`].
    pub fn send_keepalive(&mut self) -> Result<(), WireError> {
        let method = if self.has_get_parameter { "GET_PARAMETER" } else { "OPTIONS" };
        let uri = self.aggregate_uri();
        let message = self.signed(method, &uri, &[]);
        self.wire.send(&message)
    }

    /// Takes an answer that comes while media flows, to the keepalive. True if it must be sent again, newly signed.
    pub fn take_keepalive_answer(&mut self, answer: &Response, attempts: usize) -> bool {
        match answer.status {
            401 => {
                let challenge = answer.headers.get("WWW-Authenticate");
                self.auth.challenged(challenge, attempts) == Challenged::Retry
            }
            404 | 405 | 501 | 551 if self.has_get_parameter => {
                self.has_get_parameter = false;
                false
            }
            status => {
                tracing::debug!(url = %self.url.shown, status, "keepalive answered");
                self.note_methods(answer);
                false
            }
        }
    }

    /// Answers a request of the camera's.
    ///
    /// # Errors
    /// [`WireError::Closed`].
    pub fn answer(&mut self, request: &Request) -> Result<(), WireError> {
        let message = answer_to(request);
        self.wire.send(&message)
    }

    /// Sends a request and waits for its answer, through authentication.
    async fn request(
        &mut self,
        method: &'static str,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer, SourceError> {
        self.asking = method;
        for attempts in 0.. {
            let message = self.signed(method, uri, headers);
            self.wire.send(&message).map_err(|e| self.broken(e))?;
            let answer = self.await_answer().await.map_err(|e| self.broken(e))?;
            if answer.head.status != 401 {
                if answer.head.is_success() {
                    self.auth.accepted();
                }
                return Ok(answer);
            }
            let challenge = answer.head.headers.get("WWW-Authenticate");
            if let Challenged::GiveUp(reason) = self.auth.challenged(challenge, attempts) {
                return Err(SourceError::Refused(format!("401 Unauthorized: {reason}")));
            }
        }
        Err(SourceError::Refused("401 Unauthorized".to_owned()))
    }

    /// The next answer. Only one request is ever open here, so it is the answer to that one, whatever `CSeq` says:
    /// some cameras leave it out or count on their own.
    async fn await_answer(&mut self) -> Result<Answer, WireError> {
        loop {
            match self.wire.next_message()? {
                Some(Incoming::Response(head, _)) if head.status < 200 => {}
                Some(Incoming::Response(head, body)) => return Ok(Answer { head, body: body.to_vec() }),
                Some(Incoming::Request(request, _)) => self.answer(&request)?,
                Some(Incoming::Data { channel, payload }) => {
                    if self.asking == "PLAY"
                        && self.early.len() < MAX_EARLY_PACKETS
                        && self.early_bytes + payload.len() <= MAX_EARLY_BYTES
                    {
                        self.early_bytes += payload.len();
                        self.early.push((channel, payload.into()));
                    }
                }
                None => self.wire.pump().await?,
            }
        }
    }

    /// A request as it goes over the wire, numbered and signed.
    fn signed(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> String {
        self.cseq = self.cseq.wrapping_add(1);
        let authorization = self.auth.authorization(method, uri);
        Draft::request(method, uri, self.cseq)
            .with("User-Agent", USER_AGENT)
            .with_some("Session", self.id.as_deref())
            .with_some("Authorization", authorization.as_deref())
            .with_all(headers)
            .finish()
    }

    fn aggregate_uri(&self) -> String {
        self.aggregate.clone().unwrap_or_else(|| self.url.request_uri.clone())
    }

    fn note_methods(&mut self, answer: &Response) {
        if let Some(methods) = answer.headers.get("Public") {
            self.has_get_parameter =
                methods.split(',').any(|m| m.trim().eq_ignore_ascii_case("GET_PARAMETER"));
        }
    }

    fn note_server(&mut self, answer: &Response) {
        if let Some(server) = answer.headers.get("Server") {
            self.server = self.url.hide(&server.chars().take(200).collect::<String>());
        }
    }

    fn succeeded(&self, head: &Response) -> Result<(), Fail> {
        if head.is_success() {
            return Ok(());
        }
        let why = status_in_words(self.asking, head.status, &head.reason);
        Err(Fail::Status(self.url.hide(&why)))
    }

    fn refused(&self, why: &str) -> Fail {
        Fail::Source(SourceError::Refused(self.url.hide(why)))
    }

    fn broken(&self, error: WireError) -> SourceError {
        let asking = self.asking;
        SourceError::Refused(match error {
            WireError::Closed(why) => format!("{why} when it was asked for {asking}"),
            WireError::Nonsense(why) => self.url.hide(&format!("{why} (asked for {asking})")),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.id.is_some() {
            let uri = self.aggregate_uri();
            let message = self.signed("TEARDOWN", &uri, &[]);
            self.wire.say_farewell(&message);
        }
    }
}

/// What a client says to a server's request (RFC 2326 §10): it knows OPTIONS only.
fn answer_to(request: &Request) -> String {
    let status = match request.method.as_str() {
        "OPTIONS" => 200,
        "DESCRIBE" | "SETUP" | "PLAY" | "PAUSE" | "RECORD" | "TEARDOWN" => 405,
        _ => 501,
    };
    let cseq = request.headers.get("CSeq").unwrap_or("0");
    Draft::response(status, cseq).with("Public", "OPTIONS").with("User-Agent", USER_AGENT).finish()
}
