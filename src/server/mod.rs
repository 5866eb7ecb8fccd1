//! The one port: TCP sniffing, TLS, UDP, and who may do what.
//! May use everything below it; is handed the router and the callbacks as values.
//! Must never know what an API call means beyond who may make it.

pub mod auth;
mod bind;
pub mod files;
mod http;
mod listener;
mod rate;
pub mod sniff;
mod stream;
pub mod tls;
pub mod udp;

pub use bind::BindError;
pub use http::Connection;
pub use listener::{IceTcp, Limits, Rtsp, Stream};
pub use stream::Replayed;
pub use udp::{Datagram, OnDatagrams, UdpPort};

use crate::config::ListenAddress;
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The one port, bound and not yet served.
#[derive(Debug)]
pub struct Server {
    tcp: TcpListener,
    udp: Arc<UdpPort>,
    local: SocketAddr,
    tls: Arc<tls::Current>,
    rtsp: Option<TcpListener>,
    limits: Limits,
}

/// The UDP thread, which ends with this.
struct Receiving(Arc<UdpPort>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// After connections were cut, their tasks have this long to notice.
const CUT: Duration = Duration::from_millis(500);

impl Server {
    /// Binds TCP and UDP on the same port number, and raises the process's limit of open files as far as it may be.
    /// To be called inside a tokio runtime.
    ///
    /// # Errors
    /// In words for the person who started the program.
    pub async fn bind(listen: &ListenAddress) -> Result<Server, BindError> {
        let other = |error| BindError::Other { listen: listen.clone(), error };
        let (tcp, udp) = bind::bind(listen).await?;
        let local = tcp.local_addr().map_err(other)?;
        let tcp = TcpListener::from_std(tcp).map_err(other)?;
        let udp = Arc::new(UdpPort::new(udp).map_err(other)?);
        let mut limits = Limits::default();
        let open_files = files::raise_limit();
        let connections = files::share(limits.connections, open_files);
        if connections < limits.connections {
            tracing::warn!(
                connections,
                ?open_files,
                "fewer TCP connections than usual are taken: raise the limit of open files (ulimit -n, LimitNOFILE=)"
            );
            limits.connections = connections;
            limits.unidentified = limits.unidentified.min(connections / 4).max(1);
        }
        Ok(Server { tcp, udp, local, tls: Arc::default(), rtsp: None, limits })
    }

    /// Offers TLS as well, on the same port. See [`tls::server_config`].
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<ServerConfig>>) -> Server {
        self.tls.set(tls);
        self
    }

    /// What it speaks TLS with, to be changed while it runs.
    pub fn tls(&self) -> Arc<tls::Current> {
        self.tls.clone()
    }

    /// Serves RTSP, and nothing else, at one more address.
    ///
    /// # Errors
    /// As for the one port.
    pub async fn with_rtsp_at(mut self, listen: &ListenAddress) -> Result<Server, BindError> {
        let tcp = bind::bind_tcp_at(listen).await?;
        let other = |error| BindError::Other { listen: listen.clone(), error };
        self.rtsp = Some(TcpListener::from_std(tcp).map_err(other)?);
        Ok(self)
    }

    /// Where RTSP is served besides the one port.
    pub fn rtsp_addr(&self) -> Option<SocketAddr> {
        self.rtsp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Other limits than the default ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Server {
        self.limits = limits;
        self
    }

    /// Where it is bound; the port is known even if the system chose it.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The UDP socket on the same port.
    pub fn udp(&self) -> Arc<UdpPort> {
        self.udp.clone()
    }

    /// Serves until `shutdown`, then finishes what was begun, cuts what is left after [`Limits::drain`], and returns
    /// when every task has ended.
    pub async fn run(
        self,
        router: auth::Protected,
        ice_tcp: IceTcp,
        rtsp: Rtsp,
        on_datagrams: OnDatagrams,
        shutdown: CancellationToken,
    ) {
        let tasks = TaskTracker::new();
        let kill = CancellationToken::new();
        let http =
            http::Http { router, limits: self.limits, tasks: tasks.clone(), shutdown, kill: kill.clone() };
        let receiving = Receiving(self.udp.clone());
        tasks.spawn_blocking(move || self.udp.receive(on_datagrams));
        let listener = Arc::new(listener::Listener::new(http, self.tls, ice_tcp, rtsp));
        let besides = async {
            if let Some(socket) = self.rtsp {
                listener.clone().accept(socket, true).await;
            }
        };
        tokio::join!(listener.clone().accept(self.tcp, false), besides);

        tasks.close();
        listener.drain().await;
        kill.cancel();
        drop(receiving);
        if tokio::time::timeout(CUT, tasks.wait()).await.is_err() {
            tracing::warn!(left = tasks.len(), "some connections did not end in time");
        }
    }
}
