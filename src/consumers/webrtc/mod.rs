//! WebRTC viewers: offers answered, ICE-lite and DTLS over the one port, RTP from the ring to many browsers.
//! May use `graph`, `media` and `config`. Opens no socket: the server lends it the port.
//! Must never wait for a slow viewer, nor trust a byte that a viewer sent.

mod answer;
mod candidates;
mod demux;
mod dtls;
mod end;
mod lane;
mod letters;
pub mod offer;
mod pacing;
mod paths;
mod peer;
pub mod rtcp;
mod section;
mod send;
mod sender;
mod session;
mod srtp;
pub mod stun;
mod tcp;
pub mod trickle;
mod worker;

use crate::graph::{SourceError, Stream};
pub use candidates::Candidates;
pub use demux::Counters;
use demux::{Demux, Route, Session};
use end::End;
use letters::{Inbound, Letters};
use pacing::Pacing;
use parking_lot::RwLock;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::IceCreds;
use str0m::config::DtlsCert;
use str0m::crypto::CryptoProvider;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use worker::{Command, Workers};

/// Longest datagram that is looked at; paths that viewers use carry less.
const MAX_DATAGRAM: usize = 2048;
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

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

/// What the API, the port and the workers share.
struct Shared {
    workers: Arc<Workers>,
    offered: RwLock<Offered>,
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
    source_deadline: Duration,
    /// Of new viewers.
    pacing: RwLock<Pacing>,
}

impl Shared {
    fn candidates(&self) -> Arc<Candidates> {
        self.offered.read().candidates.clone()
    }
}

/// The candidates of new viewers, and what keeps them fresh.
struct Offered {
    candidates: Arc<Candidates>,
    background: Option<AbortHandle>,
}

impl Offered {
    fn start(candidates: Candidates, socket: &Arc<dyn DatagramSocket>) -> Offered {
        let candidates = Arc::new(candidates);
        let background = candidates
            .need_refresh()
            .then(|| tokio::spawn(candidates.clone().keep_fresh(socket.clone())).abort_handle());
        Offered { candidates, background }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some(background) = &self.background {
            background.abort();
        }
    }
}

/// All WebRTC viewers of the process.
pub struct WebRtc {
    shared: Shared,
    sessions: Arc<Semaphore>,
    options: Options,
    socket: Arc<dyn DatagramSocket>,
    tcp_port: u16,
}

impl WebRtc {
    /// Starts the workers. Must be called within a tokio runtime. `tcp_port` is where ICE-TCP is accepted.
    /// The error names what can't be used.
    pub fn start(
        options: Options,
        socket: Arc<dyn DatagramSocket>,
        tcp_port: u16,
    ) -> Result<Arc<WebRtc>, String> {
        let candidates = Candidates::new(&options, socket.local_port(), tcp_port)?;
        let crypto = Arc::new(dtls::crypto_provider());
        let certificate =
            crypto.dtls_provider.generate_certificate().ok_or("the DTLS certificate can't be generated")?;
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = if options.workers == 0 { cores() } else { options.workers };
        let workers = Arc::new(Workers::start(count, &socket)?);
        let offered = RwLock::new(Offered::start(candidates, &socket));
        let source_deadline = options.source_deadline;
        let pacing = RwLock::new(options.config.pacing.into());
        let shared = Shared { workers, offered, crypto, certificate, source_deadline, pacing };
        let sessions = Arc::new(Semaphore::new(options.max_sessions));
        Ok(Arc::new(WebRtc { shared, sessions, options, socket, tcp_port }))
    }

    /// Candidates by another configuration, for [`WebRtc::set_candidates`]. The error names what can't be used.
    pub fn candidates(&self, config: &crate::config::Webrtc) -> Result<Candidates, String> {
        let options = Options { config: config.clone(), ..self.options.clone() };
        Candidates::new(&options, self.socket.local_port(), self.tcp_port)
    }

    /// What is offered to viewers from now on; those who watch are not touched. To be called within a tokio runtime.
    pub fn set_candidates(&self, candidates: Candidates) {
        *self.shared.offered.write() = Offered::start(candidates, &self.socket);
    }

    /// How fast viewers are sent to from now on; those who watch are not touched.
    pub fn set_pacing(&self, pacing: crate::config::Pacing) {
        *self.shared.pacing.write() = pacing.into();
    }

    /// Answers an offer: finds the tracks that the viewer can use, waiting for the source, and starts a session.
    pub async fn offer(
        &self,
        stream: &Arc<Stream>,
        offer_sdp: &str,
        client: Client,
    ) -> Result<Answer, OfferError> {
        let permit = self.sessions.clone().try_acquire_owned().map_err(|_| OfferError::Busy)?;
        session::answer(&self.shared, stream, offer_sdp, client, permit).await
    }

    /// Takes a trickle request (RFC 9725 §4.3): candidates, or new credentials that restart ICE.
    /// `if_match` is the header's value.
    pub fn trickle(
        &self,
        session: &str,
        if_match: Option<&str>,
        fragment: &str,
    ) -> Result<Trickled, TrickleError> {
        let demux = self.shared.workers.demux();
        let known = demux.session(session).ok_or(TrickleError::NotFound)?;
        if if_match.is_some_and(|value| !trickle::matches_etag(value, &known.etag)) {
            return Err(TrickleError::EtagMismatch);
        }
        let parsed = trickle::parse(fragment).map_err(TrickleError::Bad)?;
        let Some(remote) = parsed.credentials.filter(|credentials| *credentials != known.remote) else {
            return Ok(Trickled::NoContent);
        };
        if if_match.is_none() {
            let hint = "new ICE credentials restart ICE, which needs If-Match with the session's ETag or *";
            return Err(TrickleError::Bad(hint.into()));
        }
        let local = session::new_credentials();
        let (ufrag, pass) = remote.clone();
        let old_etag = known.etag.clone();
        let new =
            Session { etag: session::random_text(16), local_ufrag: local.ufrag.clone(), remote, ..known };
        let answer =
            Trickled::Restarted { etag: new.etag.clone(), fragment: trickle::restarted(&new, &local.pass) };
        let command = Command::Restart(new.route.peer, local, IceCreds { ufrag, pass });
        let route = new.route;
        if !demux.restart(session, &old_etag, new) {
            return Err(TrickleError::EtagMismatch);
        }
        if !self.shared.workers.command(route, command) {
            return Err(TrickleError::NotFound);
        }
        Ok(answer)
    }

    /// Ends a session at once. False if there is none of that name.
    pub fn close(&self, session: &str) -> bool {
        let Some(known) = self.shared.workers.demux().take(session) else { return false };
        self.shared.workers.command(known.route, Command::End(known.route.peer, End::Closed))
    }

    /// Stops a session's media, or goes on with it. False if there is none of that name.
    pub fn pause(&self, session: &str, paused: bool) -> bool {
        let Some(known) = self.shared.workers.demux().session(session) else { return false };
        self.shared.workers.command(known.route, Command::Pause(known.route.peer, paused))
    }

    /// What takes the UDP port's datagrams.
    pub fn receiver(self: &Arc<Self>) -> Receiver {
        let letters = (0..self.shared.workers.count()).map(|_| Letters::default()).collect();
        Receiver { webrtc: self.clone(), letters }
    }

    /// The session that a datagram is for.
    fn route(&self, source: SocketAddr, data: &[u8]) -> Option<Route> {
        let demux = self.shared.workers.demux();
        let route = match data.first() {
            // RFC 7983: STUN is 0 to 3, DTLS 20 to 63, RTP and RTCP 128 to 191.
            Some(0..=3) => match stun::parse(data) {
                Some(stun::Message::Check { local_ufrag }) => demux.by_ufrag(local_ufrag),
                Some(stun::Message::Mapped { transaction, address }) => {
                    self.shared.candidates().on_stun_answer(transaction, address);
                    return None;
                }
                None => None,
            },
            Some(20..=63 | 128..=191) => demux.by_address(source),
            _ => None,
        };
        let route = route.filter(|_| data.len() <= MAX_DATAGRAM);
        if route.is_none() {
            Demux::count(&demux.counters.unknown);
        }
        route
    }

    /// Runs an ICE-TCP connection (RFC 6544, framed as RFC 4571) until either side ends it.
    pub async fn serve_tcp<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: Arc<Self>,
        stream: S,
        peer: SocketAddr,
        _local: SocketAddr,
    ) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        tcp::serve(stream, peer, &self.shared.workers).await;
    }

    /// What came from the network and was not for anybody.
    pub fn counters(&self) -> &Counters {
        &self.shared.workers.demux().counters
    }

    /// Sessions, and username fragments and addresses that they are known by.
    pub fn sizes(&self) -> (usize, usize, usize) {
        self.shared.workers.demux().sizes()
    }

    /// Ends all sessions (viewers are told) and the workers, within 2 s.
    pub async fn shutdown(&self) {
        self.sessions.close();
        if let Some(background) = self.shared.offered.write().background.take() {
            background.abort();
        }
        self.shared.workers.stop();
        let workers = self.shared.workers.clone();
        let joined = tokio::task::spawn_blocking(move || workers.join());
        if timeout(SHUTDOWN_DEADLINE, joined).await.is_err() {
            tracing::error!("a WebRTC worker did not end in {SHUTDOWN_DEADLINE:?}");
        }
    }
}

/// Who waits until a datagram is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nobody: a report.
    Nobody,
    /// A viewer who wants to know whether we are there, or who may have something behind a report: not for long.
    Patient,
    /// A viewer who connects, or has lost something.
    Viewer,
}

impl Waiting {
    /// For a datagram of a session. `is_known`: it came from where the session's viewer is known to be.
    fn of(data: &[u8], reduced_size: bool, is_known: impl FnOnce() -> bool) -> Waiting {
        match data.first() {
            Some(0..=3) if is_known() => Waiting::Patient,
            Some(128..=191) if rtcp::is_regular(data, reduced_size) => Waiting::Nobody,
            Some(128..=191) if rtcp::is_report(data) => Waiting::Patient,
            _ => Waiting::Viewer,
        }
    }
}

/// Takes the UDP port's datagrams and hands them to their workers, those of one system call together.
pub struct Receiver {
    webrtc: Arc<WebRtc>,
    /// For each worker.
    letters: Vec<Letters>,
}

impl Receiver {
    /// Takes a datagram: who sent it, the address of ours that it was sent to, when it came, its contents. Never blocks;
    /// what is not for a session is dropped. Says whether the viewer waits for an answer.
    pub fn take(&mut self, source: SocketAddr, local_ip: Option<IpAddr>, at: Instant, data: &[u8]) -> bool {
        let source = SocketAddr::new(source.ip().to_canonical(), source.port());
        let Some(route) = self.webrtc.route(source, data) else { return false };
        let demux = self.webrtc.shared.workers.demux();
        let waiting = Waiting::of(data, route.reduced_size, || demux.by_address(source) == Some(route));
        let local_ip = local_ip.map(|ip| ip.to_canonical());
        let inbound = Inbound { source, local_ip, tcp: None, at, data };
        let urgent = waiting != Waiting::Nobody;
        let letters = self.letters.get_mut(route.worker);
        if !letters.is_some_and(|letters| letters.add(route.peer, &inbound, urgent)) {
            Demux::count(&self.webrtc.counters().overflow);
        }
        waiting == Waiting::Viewer
    }

    /// Hands on what was taken.
    pub fn deliver(&mut self) {
        for (worker, letters) in self.letters.iter_mut().enumerate() {
            self.webrtc.shared.workers.deliver(worker, letters);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_or_has_lost_something_is_not_kept_waiting() {
        let check = [0, 1, 0, 0];
        let handshake = [22, 254, 253, 0];
        let report = |more: usize| [vec![0x81, 201, 0, 7], vec![0; 28 + more]].concat();
        let nack = [vec![0x81, 205, 0, 3], vec![0; 32]].concat();
        for reduced_size in [false, true] {
            let waiting = |data: &[u8], is_known| Waiting::of(data, reduced_size, || is_known);
            assert_eq!(waiting(&check, false), Waiting::Viewer);
            assert_eq!(waiting(&check, true), Waiting::Patient);
            assert_eq!(waiting(&handshake, true), Waiting::Viewer);
            assert_eq!(waiting(&nack, true), Waiting::Viewer);
            assert_eq!(waiting(&report(20), true), Waiting::Nobody);
            let behind_a_report = if reduced_size { Waiting::Nobody } else { Waiting::Patient };
            assert_eq!(waiting(&report(36), true), behind_a_report);
        }
    }
}
