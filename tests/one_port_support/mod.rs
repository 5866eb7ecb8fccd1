//! A running server for the tests of the one port, and clients for it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::{Request, Version};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use streamgate::server::{Connection, IceTcp, Limits, OnDatagrams, Rtsp, Server, UdpPort, auth, tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(10);

pub struct Running {
    pub address: SocketAddr,
    pub udp: Arc<UdpPort>,
    pub shutdown: CancellationToken,
    pub done: JoinHandle<()>,
    pub cert: String,
}

pub struct Options {
    pub listen: &'static str,
    pub limits: Limits,
    pub tls: bool,
    pub any_origin: bool,
    pub on_datagrams: OnDatagrams,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            listen: "127.0.0.1:0",
            limits: Limits::default(),
            tls: false,
            any_origin: false,
            on_datagrams: Box::new(|_| false),
        }
    }
}

/// `/who` says what the handler knows of the connection, `/slow` takes 300 ms, `/never` never answers, `/big` answers
/// 64 MiB, `/echo` gives the body back; the ICE-TCP handler gives back what it was handed and what follows.
fn router() -> Router {
    let who = |Extension(connection): Extension<Connection>, request: Request<Body>| async move {
        format!("{} {} {} {:?}", connection.peer, connection.local, connection.tls, request.version())
    };
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "done"
    };
    let echo = |body: Result<Bytes, axum::extract::rejection::BytesRejection>| async {
        body.map_or_else(|error| error.into_response(), |bytes| bytes.into_response())
    };
    Router::new()
        .route("/who", get(who))
        .route("/slow", get(slow))
        .route("/never", get(std::future::pending::<String>))
        .route("/big", get(|| async { Bytes::from(vec![0; 64 << 20]) }))
        .route("/whep/echo", post(echo))
        .route("/api/streams", any(|| async { "handler" }))
        .route("/api/config", any(|| async { "handler" }))
}

fn ice_tcp() -> IceTcp {
    Arc::new(|mut stream, peer, first_bytes| {
        Box::pin(async move {
            let _ = stream.write_all(format!("ice {peer} ").as_bytes()).await;
            let _ = stream.write_all(&first_bytes).await;
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
    })
}

fn rtsp() -> Rtsp {
    Arc::new(|mut stream, connection| {
        Box::pin(async move {
            let how = if connection.tls { "rtsps" } else { "rtsp" };
            let _ = stream.write_all(format!("{how} {} ", connection.peer).as_bytes()).await;
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        })
    })
}

pub async fn start(options: Options) -> Running {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let cert = made.cert.pem();
    let config = options.tls.then(|| tls::server_config(&cert, &made.signing_key.serialize_pem()).unwrap());
    let server = Server::bind(&options.listen.parse().unwrap()).await.unwrap();
    let server = server.with_tls(config).with_limits(options.limits);
    let (address, udp, shutdown) = (server.local_addr(), server.udp(), CancellationToken::new());
    let router = auth::protect(router(), Arc::new(options.any_origin.into()));
    let done = tokio::spawn(server.run(router, ice_tcp(), rtsp(), options.on_datagrams, shutdown.clone()));
    Running { address, udp, shutdown, done, cert }
}

impl Running {
    /// The address to connect to: loopback also where the server listens everywhere.
    pub fn loopback(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.address.port()))
    }

    pub async fn connect(&self) -> TcpStream {
        timeout(DEADLINE, TcpStream::connect(self.loopback())).await.unwrap().unwrap()
    }

    /// Sends bytes and gives back all that comes until the server closes.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        // A server that closes at once may do so before everything is written.
        let _ = stream.write_all(bytes).await;
        until_closed(&mut stream).await
    }

    pub async fn connect_tls(&self, alpn: &[&[u8]]) -> tokio_rustls::client::TlsStream<TcpStream> {
        use rustls_pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls_pki_types::CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = "localhost".try_into().unwrap();
        timeout(DEADLINE, connector.connect(name, self.connect().await)).await.unwrap().unwrap()
    }

    /// Tells the server to stop and waits until it has.
    pub async fn stop(self) -> Duration {
        let started = std::time::Instant::now();
        self.shutdown.cancel();
        timeout(DEADLINE, self.done).await.unwrap().unwrap();
        started.elapsed()
    }
}

/// Everything until the other end closes; a reset is an end too.
pub async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match timeout(DEADLINE, stream.read(&mut chunk)).await.expect("the server keeps the connection open")
        {
            Ok(0) | Err(_) => return received,
            Ok(count) => received.extend_from_slice(&chunk[..count]),
        }
    }
}

/// One request over HTTP/2, without asking for it first, or HTTP/1.1.
pub async fn request<S>(stream: S, h2: bool, request: Request<Body>) -> (u16, Version, String)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let exchange = async {
        let response = if h2 {
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        } else {
            let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        };
        let (status, version) = (response.status().as_u16(), response.version());
        let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await.unwrap();
        (status, version, String::from_utf8(body.to_vec()).unwrap())
    };
    timeout(DEADLINE, exchange).await.unwrap()
}

pub fn get_request(uri: &str) -> Request<Body> {
    Request::get(uri).header("host", "localhost").body(Body::empty()).unwrap()
}
