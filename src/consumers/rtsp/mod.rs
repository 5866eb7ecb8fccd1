//! The RTSP server: players, recorders and other programs pull a stream by its name, over TCP or UDP. And the way to
//! other servers: a stream is published to them.
//!
//! A connection is one task, and one session lives on it; it ends with it. Payloads go from the ring to the socket
//! without being copied.
//! Must never name a source.

mod connection;
mod dialog;
mod feeds;
mod outgoing;
mod playback;
mod publish;
mod record;
mod target;
mod udp;

pub use publish::Publishing;
pub use target::Target;

use self::udp::Udp;
use crate::config;
use crate::graph::Registry;
use crate::net::Stream;
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Login and UDP ports.
    pub config: config::Rtsp,
    /// How long DESCRIBE waits for the source.
    pub source_deadline: Duration,
    /// Sessions at the same time.
    pub max_sessions: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config: config::Rtsp::default(),
            source_deadline: Duration::from_secs(10),
            max_sessions: 4096,
        }
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The player's address.
    pub remote: SocketAddr,
    /// Ours, as the player used it.
    pub local: SocketAddr,
    /// It is encrypted.
    pub is_tls: bool,
}

/// All sessions of the process.
pub struct RtspServer {
    registry: Arc<Registry>,
    options: Options,
    login: RwLock<Option<config::Login>>,
    sessions: Arc<Semaphore>,
    udp: Udp,
    cancel: CancellationToken,
}

impl RtspServer {
    /// A server for all streams of the registry. UDP ports are opened when the first player wants them.
    pub fn new(registry: Arc<Registry>, options: Options) -> Arc<RtspServer> {
        let cancel = CancellationToken::new();
        Arc::new(RtspServer {
            registry,
            sessions: Arc::new(Semaphore::new(options.max_sessions)),
            login: RwLock::new(options.config.login.clone()),
            udp: Udp::new(options.config.udp_ports, cancel.child_token()),
            options,
            cancel,
        })
    }

    /// Serves one connection until it ends or the server does.
    pub async fn serve(self: &Arc<Self>, stream: Box<dyn Stream>, peer: Peer) {
        tracing::debug!(peer = %peer.remote, tls = peer.is_tls, "RTSP connection");
        let why = connection::converse(self.clone(), stream, peer).await;
        tracing::debug!(peer = %peer.remote, "RTSP connection ended: {why}");
    }

    /// Has players log in like this from now on; who plays already goes on.
    pub fn set_login(&self, login: Option<config::Login>) {
        *self.login.write() = login;
    }

    /// A place for one more session.
    fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        self.sessions.clone().try_acquire_owned().ok()
    }

    /// Ends all connections. Their tasks are the server's that accepted them.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.udp.shutdown().await;
    }
}
