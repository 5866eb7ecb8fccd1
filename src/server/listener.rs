//! Accepts TCP connections on the one port, finds out what each speaks, and hands it over.

use super::http::{Connection, Http};
use super::rate::Rate;
use super::sniff::{ENOUGH, Verdict, sniff};
use super::stream::Replayed;
use super::tls;
use super::udp::canonical;
pub use crate::net::Stream;
use futures_util::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

/// Takes over a TCP connection that starts with an RFC 4571-framed STUN request: the stream, the peer, and the bytes
/// that were already read. The future must end soon after the server's shutdown; it is dropped if it does not.
pub type IceTcp = Arc<dyn Fn(TcpStream, SocketAddr, Vec<u8>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Takes over a connection that speaks RTSP; nothing of it was read as far as the callee sees. The same is true for its
/// end as for [`IceTcp`].
pub type Rtsp = Arc<dyn Fn(Box<dyn Stream>, Connection) -> BoxFuture<'static, ()> + Send + Sync>;

/// How much and how long strangers may keep the server busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections at the same time. More are closed at once.
    pub connections: usize,
    /// TCP connections at the same time whose protocol is not known yet (TLS handshakes included).
    pub unidentified: usize,
    /// From accepting until the protocol is known, and as long again for a TLS handshake.
    pub first_bytes: Duration,
    /// For a request's header, and between two requests of a connection.
    pub request_header: Duration,
    /// For a whole request body.
    pub request_body: Duration,
    /// For a write without any progress.
    pub write: Duration,
    /// From shutdown until connections that still work on something are cut.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 8192,
            unidentified: 2048,
            first_bytes: Duration::from_secs(5),
            request_header: Duration::from_secs(15),
            request_body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            drain: Duration::from_secs(2),
        }
    }
}

/// After an error that accepting again at once would only repeat (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// At most one line about each kind of stranger in this time.
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// A peer that vanished without a word is noticed by TCP keep-alive probes.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// All that the connections of one server share.
pub(super) struct Listener {
    http: Http,
    tls: Arc<tls::Current>,
    ice_tcp: IceTcp,
    rtsp: Rtsp,
    connections: Arc<Semaphore>,
    unidentified: Semaphore,
    full: Rate,
    no_tls: Rate,
    other_protocol: Rate,
}

impl Listener {
    pub(super) fn new(http: Http, tls: Arc<tls::Current>, ice_tcp: IceTcp, rtsp: Rtsp) -> Listener {
        Listener {
            connections: Arc::new(Semaphore::new(http.limits.connections)),
            unidentified: Semaphore::new(http.limits.unidentified),
            http,
            tls,
            ice_tcp,
            rtsp,
            full: Rate::every(LOG_PERIOD),
            no_tls: Rate::every(LOG_PERIOD),
            other_protocol: Rate::every(LOG_PERIOD),
        }
    }

    /// Accepts until shutdown. With `only_rtsp` whatever else is spoken is refused.
    pub(super) async fn accept(self: Arc<Self>, socket: TcpListener, only_rtsp: bool) {
        let accept_errors = Rate::every(LOG_PERIOD);
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = self.http.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.clone().start(stream, canonical(peer), only_rtsp),
                // This one client gave up while it waited.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if accept_errors.allow() {
                        tracing::warn!(%error, "cannot accept connections right now (too many open files?), retrying");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn start(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, only_rtsp: bool) {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            if self.full.allow() {
                tracing::warn!(%peer, limit = self.http.limits.connections, "too many connections, closing new ones");
            }
            return;
        };
        let tasks = self.http.tasks.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = self.serve(stream, peer, only_rtsp) => {}
                () = self.http.kill.cancelled() => {}
            }
            drop(permit);
        });
    }

    /// Waits until all connections ended by themselves, for at most [`Limits::drain`].
    pub(super) async fn drain(&self) {
        let all = u32::try_from(self.http.limits.connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(self.http.limits.drain, self.connections.acquire_many(all)).await.is_err() {
            tracing::debug!("cutting connections that did not end by themselves");
        }
    }

    async fn serve(&self, mut stream: TcpStream, peer: SocketAddr, only_rtsp: bool) {
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
        let options = stream.set_nodelay(true);
        let options = options.and_then(|()| socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive));
        // Fails when the peer is gone already.
        let (Ok(()), Ok(local)) = (options, stream.local_addr()) else { return };
        let connection = Connection { peer, local: canonical(local), tls: false };
        let Some((verdict, first_bytes)) = self.identify(&mut stream, peer).await else { return };
        let allowed = |verdict| match verdict {
            Verdict::Tls | Verdict::Rtsp => verdict,
            _ if only_rtsp => Verdict::Unknown,
            _ => verdict,
        };
        match (allowed(verdict), self.tls.acceptor()) {
            (Verdict::IceTcp, _) => (self.ice_tcp)(stream, peer, first_bytes).await,
            (Verdict::Tls, Some(acceptor)) => {
                let Some(mut stream) =
                    self.handshake(&acceptor, Replayed::new(first_bytes, stream), peer).await
                else {
                    return;
                };
                let Some((verdict, first_bytes)) = self.identify(&mut stream, peer).await else { return };
                let connection = Connection { tls: true, ..connection };
                self.serve_known(allowed(verdict), Replayed::new(first_bytes, stream), connection).await;
            }
            (verdict, _) => self.serve_known(verdict, Replayed::new(first_bytes, stream), connection).await,
        }
    }

    async fn serve_known<S>(&self, verdict: Verdict, stream: S, connection: Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = connection.peer;
        match verdict {
            Verdict::Http => self.http.serve(stream, connection, false).await,
            Verdict::H2Preface => self.http.serve(stream, connection, true).await,
            Verdict::Rtsp => (self.rtsp)(Box::new(stream), connection).await,
            Verdict::Rtmp => self.refuse(peer, "RTMP"),
            Verdict::Tls if self.no_tls.allow() => {
                tracing::warn!(%peer, "a client wants TLS, but there is no certificate: use http://, or set api.tls_cert and api.tls_key");
            }
            Verdict::Tls | Verdict::IceTcp | Verdict::Unknown | Verdict::NeedMore => {
                tracing::debug!(%peer, ?verdict, "closed a connection that speaks nothing known");
            }
        }
    }

    fn refuse(&self, peer: SocketAddr, protocol: &str) {
        if self.other_protocol.allow() {
            tracing::info!(%peer, "closed a connection: {protocol} clients are not served yet");
        } else {
            tracing::debug!(%peer, "closed a connection: {protocol} clients are not served yet");
        }
    }

    /// Reads until the protocol is known. `None`: it ended, stayed silent, or too many others are silent.
    async fn identify<S>(&self, stream: &mut S, peer: SocketAddr) -> Option<(Verdict, Vec<u8>)>
    where
        S: AsyncRead + Unpin,
    {
        let Ok(_permit) = self.unidentified.try_acquire() else {
            if self.full.allow() {
                tracing::warn!(%peer, limit = self.http.limits.unidentified, "too many silent connections, closing new ones");
            }
            return None;
        };
        let deadline = Instant::now() + self.http.limits.first_bytes;
        let mut bytes = Vec::with_capacity(ENOUGH);
        loop {
            let mut chunk = [0; ENOUGH];
            let read = tokio::select! {
                read = timeout_at(deadline, stream.read(&mut chunk)) => read,
                () = self.http.shutdown.cancelled() => return None,
            };
            match read {
                Ok(Ok(count @ 1..)) => bytes.extend_from_slice(chunk.get(..count)?),
                Ok(_) => return None,
                Err(_) => {
                    tracing::debug!(%peer, received = bytes.len(), "closed a silent connection");
                    return None;
                }
            }
            match sniff(&bytes) {
                Verdict::NeedMore => {}
                verdict => return Some((verdict, bytes)),
            }
        }
    }

    async fn handshake<S>(
        &self,
        acceptor: &TlsAcceptor,
        stream: S,
        peer: SocketAddr,
    ) -> Option<tokio_rustls::server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _permit = self.unidentified.try_acquire().ok()?;
        let deadline = Instant::now() + self.http.limits.first_bytes;
        let accepted = tokio::select! {
            accepted = timeout_at(deadline, acceptor.accept(stream)) => accepted,
            () = self.http.shutdown.cancelled() => return None,
        };
        match accepted {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "TLS handshake took too long");
                None
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
