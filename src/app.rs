//! The one struct that ties registry, configuration, consumers and server together.

mod settings;
mod watch;

pub use settings::log_format;

use crate::api::live::Live;
use crate::api::{self, Api, Info};
use crate::config::{self, Config, Overrides, Store};
use crate::consumers::hls::{self, Hls};
use crate::consumers::mse::{self, Mse};
use crate::consumers::pictures::{self, Pictures};
use crate::consumers::rtsp::{self, Publishing, RtspServer};
use crate::consumers::webrtc::{self, DatagramSocket, WebRtc};
use crate::graph::{OpenSource, Registry};
use crate::server::tls::TlsError;
use crate::server::{BindError, Datagram, IceTcp, OnDatagrams, Replayed, Rtsp, Server, UdpPort, auth};
use crate::sources;
use crate::telemetry::log;
use settings::{Certificate, Running};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The version of the crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The git revision this was built from; empty if it was built without git.
pub const REVISION: &str = env!("STREAMGATE_REVISION");

/// WebSockets at the same time.
const MAX_SOCKETS: usize = 4096;
/// How long a request waits for a camera.
const PATIENCE: Duration = Duration::from_secs(10);
/// From the signal to the end, whatever still hangs.
const SHUTDOWN: Duration = Duration::from_millis(2800);

/// Why the program does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port can't be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate or its key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A source of that stream can't be a source.
    #[error("stream {name:?}: {why}")]
    Stream {
        /// The stream.
        name: String,
        /// What is wrong with it, without credentials.
        why: String,
    },
    /// WebRTC can't start.
    #[error("WebRTC: {0}")]
    WebRtc(String),
}

impl StartError {
    /// Whether the configuration is to blame, and not the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, StartError::Tls(_) | StartError::Stream { .. })
    }
}

/// What the program is started with.
pub struct Setup {
    /// What is in effect: the file with the overrides applied.
    pub config: Config,
    /// The file, there or not.
    pub store: Store,
    /// The text that `config` was read from.
    pub text: String,
    /// What beats the file.
    pub overrides: Overrides,
    /// Logging, as `config` says.
    pub log: log::Control,
}

/// Everything, bound and ready to run.
pub struct App {
    server: Server,
    registry: Arc<Registry>,
    webrtc: Arc<WebRtc>,
    hls: Arc<Hls>,
    pictures: Arc<Pictures>,
    rtsp: Arc<RtspServer>,
    publishing: Arc<Publishing>,
    mse: Arc<Mse>,
    sockets: Arc<api::ws::Sockets>,
    api: Arc<Api>,
    any_origin: Arc<AtomicBool>,
}

impl App {
    /// Binds the port and makes everything that runs on it. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// The port is taken, or the configuration names something that can't be used. One bad source is enough: a typo is
    /// found at once by whoever starts the program, not by who misses a camera later.
    pub async fn start(setup: Setup) -> Result<App, StartError> {
        let Setup { config, store, text, overrides, log } = setup;
        let config_path = if store.exists() { store.named().display().to_string() } else { String::new() };
        let tls = config.api.tls.as_ref().map(settings::read).transpose()?;
        let mut server = Server::bind(&config.api.listen).await?;
        if let Some(listen) = config.rtsp.listen.as_ref().filter(|listen| **listen != config.api.listen) {
            server = server.with_rtsp_at(listen).await?;
        }
        let certificate = Certificate::new(server.tls(), tls);
        let local = server.local_addr();

        let open: OpenSource = Arc::new(sources::open);
        let registry = Registry::new(open.clone());
        let options = webrtc::Options {
            bound_to: Some(local.ip()).filter(|ip| !ip.is_unspecified()),
            config: config.webrtc.clone(),
            source_deadline: PATIENCE,
            ..webrtc::Options::default()
        };
        let webrtc = WebRtc::start(options, server.udp(), local.port()).map_err(StartError::WebRtc)?;
        let pictures =
            Pictures::new(pictures::Options { source_deadline: PATIENCE, ..pictures::Options::default() });
        let hls = Hls::new(hls::Options {
            config: config.hls.clone(),
            source_deadline: PATIENCE,
            ..hls::Options::default()
        });
        let mse = Mse::new(mse::Options { source_deadline: PATIENCE, ..mse::Options::default() });
        let sockets = Arc::new(api::ws::Sockets::new(MAX_SOCKETS));
        let rtsp = RtspServer::new(
            registry.clone(),
            rtsp::Options {
                config: config.rtsp.clone(),
                source_deadline: PATIENCE,
                ..rtsp::Options::default()
            },
        );
        let publishing = Publishing::new(registry.clone(), PATIENCE);
        let publish = config.publish.clone();
        let any_origin = Arc::new(AtomicBool::new(config.api.any_origin));
        let running = Running {
            log,
            webrtc: webrtc.clone(),
            hls: hls.clone(),
            rtsp: rtsp.clone(),
            publishing: publishing.clone(),
            any_origin: any_origin.clone(),
            certificate,
        };
        let live = Live::start(registry.clone(), open, Box::new(running), store, text, config, overrides)
            .map_err(|(name, why)| StartError::Stream { name, why })?;
        publishing.configure(&publish);
        let api = Arc::new(Api {
            registry: registry.clone(),
            webrtc: webrtc.clone(),
            hls: hls.clone(),
            publishing: publishing.clone(),
            pictures: pictures.clone(),
            mse: mse.clone(),
            sockets: sockets.clone(),
            info: Info {
                version: VERSION,
                revision: REVISION,
                config_path,
                listen: local.to_string(),
                rtsp_listen: server.rtsp_addr().unwrap_or(local).to_string(),
                started: Instant::now(),
            },
            schemes: sources::SCHEMES,
            patience: PATIENCE,
            live: Arc::new(live),
            bodies: api::request::Bodies::new(api::MAX_BODY, api::MAX_BODIES),
            configurations: api::request::Bodies::new(config::MAX_FILE_BYTES, api::MAX_CONFIGURATIONS),
        });
        Ok(App { server, registry, webrtc, hls, pictures, rtsp, publishing, mse, sockets, api, any_origin })
    }

    /// Serves until `shutdown`, then ends everything within three seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let watch = watch::watch(self.api.live.clone(), shutdown.clone());
        let router = auth::protect(api::router(self.api), self.any_origin);
        announce(self.server.local_addr());
        if let Some(rtsp) = self.server.rtsp_addr() {
            tracing::info!("RTSP at {rtsp} as well");
        }
        let server = self.server.run(
            router,
            ice_tcp(self.webrtc.clone()),
            rtsp_connection(self.rtsp.clone()),
            on_datagrams(self.webrtc.clone()),
            shutdown.clone(),
        );
        let end = async {
            shutdown.cancelled().await;
            tracing::info!("shutting down");
            self.mse.shutdown();
            tokio::join!(
                self.webrtc.shutdown(),
                self.hls.shutdown(),
                self.pictures.shutdown(),
                self.rtsp.shutdown(),
                self.publishing.shutdown(),
                self.sockets.shutdown(),
                self.registry.shutdown()
            );
        };
        let deadline = async {
            shutdown.cancelled().await;
            tokio::time::sleep(SHUTDOWN).await;
        };
        tokio::select! {
            _ = async { tokio::join!(server, end, watch) } => tracing::info!("stopped"),
            () = deadline => tracing::warn!("stopped before everything had ended"),
        }
    }
}

/// Says where to look. Scripts and tests wait for the first line.
fn announce(local: SocketAddr) {
    let here = if local.ip().is_unspecified() {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local.port())
    } else {
        local
    };
    tracing::info!("listening on http://{here}/");
    if local.ip().is_unspecified() {
        let others: Vec<String> = other_addresses()
            .map(|ip| format!("http://{}/", SocketAddr::new(ip, local.port())))
            .take(3)
            .collect();
        if !others.is_empty() {
            tracing::info!("from other devices: {}", others.join(" or "));
        }
    }
}

/// This machine's IPv4 addresses in its networks.
fn other_addresses() -> impl Iterator<Item = IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().map(|interface| interface.ip()).filter(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(_) => false,
    })
}

fn ice_tcp(webrtc: Arc<WebRtc>) -> IceTcp {
    Arc::new(move |stream, peer, read| {
        let webrtc = webrtc.clone();
        Box::pin(async move {
            // A connection that is gone already has no address.
            if let Ok(local) = stream.local_addr() {
                webrtc.serve_tcp(Replayed::new(read, stream), peer, local).await;
            }
        })
    })
}

fn rtsp_connection(server: Arc<RtspServer>) -> Rtsp {
    Arc::new(move |stream, connection| {
        let server = server.clone();
        Box::pin(async move {
            let peer =
                rtsp::Peer { remote: connection.peer, local: connection.local, is_tls: connection.tls };
            server.serve(stream, peer).await;
        })
    })
}

fn on_datagrams(webrtc: Arc<WebRtc>) -> OnDatagrams {
    let mut receiver = webrtc.receiver();
    Box::new(move |datagrams: &mut dyn Iterator<Item = Datagram<'_>>| {
        let urgent = datagrams.fold(false, |urgent, datagram| {
            let Datagram { source, local_ip, at, contents } = datagram;
            urgent | receiver.take(source, local_ip, at, contents)
        });
        receiver.deliver();
        urgent
    })
}

/// WebRTC sends through the one port without knowing whose it is.
impl DatagramSocket for UdpPort {
    fn try_send(
        &self,
        destination: SocketAddr,
        source_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: usize,
    ) -> std::io::Result<()> {
        UdpPort::try_send(self, destination, source_ip, contents, segment_size)
    }

    fn max_segments(&self) -> usize {
        UdpPort::max_segments(self)
    }

    fn local_port(&self) -> u16 {
        UdpPort::local_port(self)
    }
}
