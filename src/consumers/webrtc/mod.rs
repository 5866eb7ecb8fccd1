//! WebRTC viewers: offers answered, ICE-lite and DTLS over the one port, RTP from the ring to many browsers.
//! May use `graph`, `media` and `config`. Opens no socket: the server lends it the port.
//! Must never wait for a slow viewer, nor trust a byte that a viewer sent.

use crate::graph::{SourceError, Stream};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends runs of datagrams to one destination. The server's UDP port implements it.
pub trait DatagramSocket: Send + Sync + 'static {
    /// Sends `contents`, cut into datagrams of `segment_size` bytes (the last may be shorter), to `destination`,
    /// from `source_ip` where it is given. Never waits: what does not fit is `WouldBlock` and lost.
    fn try_send(
        &self,
        destination: SocketAddr,
        source_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: usize,
    ) -> std::io::Result<()>;
    /// Datagrams at most in one call of [`Self::try_send`]; at least 1.
    fn max_segments(&self) -> usize;
    /// The UDP port it is bound to.
    fn local_port(&self) -> u16;
}

/// How the WebRTC consumer runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads; 0: as many as the machine has cores.
    pub workers: usize,
    /// Candidates, filters and ICE servers.
    pub config: crate::config::Webrtc,
    /// The address that the port is bound to, where it is not bound to all: the only one offered of this machine.
    pub bound_to: Option<IpAddr>,
    /// STUN servers (`host:port`) that `stun:PORT` candidates are discovered with, tried in turn.
    pub stun_servers: Vec<String>,
    /// How long an offer waits for the source.
    pub source_deadline: Duration,
    /// Viewers at most.
    pub max_sessions: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 0,
            config: crate::config::Webrtc::default(),
            bound_to: None,
            stun_servers: vec!["stun.l.google.com:19302".into(), "stun.cloudflare.com:3478".into()],
            source_deadline: Duration::from_secs(10),
            max_sessions: 4096,
        }
    }
}

/// Who makes an offer.
#[derive(Debug, Clone)]
pub struct Client {
    /// The HTTP client's address.
    pub remote: SocketAddr,
    /// Its `User-Agent`, empty without one.
    pub user_agent: String,
}

/// An accepted offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The session's name in its URL: unguessable and URL-safe.
    pub session: String,
    /// Names the ICE session, without quotes; changes with an ICE restart.
    pub etag: String,
    /// The SDP answer.
    pub sdp: String,
    /// What the viewer does not get, in words, e.g. "audio left out: the camera's AAC can't be sent over WebRTC".
    pub notes: Vec<String>,
}

/// Why an offer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The offer can't be read or breaks the rules. Becomes a 400.
    #[error("bad offer: {0}")]
    BadOffer(String),
    /// The offer asks for neither video nor audio. Becomes a 400.
    #[error("the offer has no m-line that receives video or audio (recvonly or sendrecv)")]
    NoMedia,
    /// The stream can't be played by this viewer. Becomes a 422.
    #[error("{reason}")]
    Incompatible {
        /// B-frames, or both codec lists.
        reason: String,
    },
    /// No source could be played. Becomes a 502 or 504.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The stream was removed meanwhile. Becomes a 404.
    #[error("the stream was removed")]
    Removed,
    /// There are as many viewers as allowed. Becomes a 503.
    #[error("there are as many WebRTC viewers as allowed")]
    Busy,
}

/// What a trickle request did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trickled {
    /// Taken. Becomes a 204.
    NoContent,
    /// ICE was restarted. Becomes a 200 with the fragment (`application/trickle-ice-sdpfrag`).
    Restarted {
        /// The new ETag, without quotes.
        etag: String,
        /// Our new credentials and candidates.
        fragment: String,
    },
}

/// Why a trickle request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrickleError {
    /// There is no such session (any more). Becomes a 404.
    #[error("there is no such session")]
    NotFound,
    /// `If-Match` names another ICE session. Becomes a 412.
    #[error("If-Match does not name the current ICE session")]
    EtagMismatch,
    /// The fragment can't be read. Becomes a 400.
    #[error("bad SDP fragment: {0}")]
    Bad(String),
}

/// All WebRTC viewers of the process.
pub struct WebRtc {}

impl WebRtc {
    /// Starts the workers. Must be called within a tokio runtime. `tcp_port` is where ICE-TCP is accepted.
    pub fn start(
        _options: Options,
        _socket: Arc<dyn DatagramSocket>,
        _tcp_port: u16,
    ) -> Result<Arc<WebRtc>, String> {
        Ok(Arc::new(WebRtc {}))
    }

    /// Answers an offer: finds the tracks that the viewer can use, waiting for the source, and starts a session.
    pub async fn offer(
        &self,
        _stream: &Arc<Stream>,
        _offer_sdp: &str,
        _client: Client,
    ) -> Result<Answer, OfferError> {
        Err(OfferError::Busy)
    }

    /// Takes a trickle request (RFC 9725 §4.3): candidates, or new credentials that restart ICE.
    /// `if_match` is the header's value.
    pub fn trickle(
        &self,
        _session: &str,
        _if_match: Option<&str>,
        _fragment: &str,
    ) -> Result<Trickled, TrickleError> {
        Err(TrickleError::NotFound)
    }

    /// Ends a session at once. False if there is none of that name.
    pub fn close(&self, _session: &str) -> bool {
        false
    }

    /// Takes a datagram from the UDP port. Never blocks; what is not for a session is dropped.
    pub fn on_datagram(&self, _source: SocketAddr, _local_ip: Option<IpAddr>, _data: &[u8]) {}

    /// Runs an ICE-TCP connection (RFC 6544, framed as RFC 4571) until either side ends it.
    pub async fn serve_tcp<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: Arc<Self>,
        _stream: S,
        _peer: SocketAddr,
        _local: SocketAddr,
    ) {
    }

    /// Ends all sessions (viewers are told) and the workers, within 2 s.
    pub async fn shutdown(&self) {}
}
