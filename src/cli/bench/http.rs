//! The HTTP that a load generator needs: one connection, kept; bounded answers; every wait with a deadline.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// Most bytes of an answer: a segment of a large stream.
const MAX_BODY: usize = 64 << 20;
/// Longer than a server may hold a blocking reload (three target durations).
const PATIENCE: Duration = Duration::from_secs(30);

/// What is loaded.
#[derive(Debug, Clone)]
pub struct Target {
    pub url: Url,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    /// The header `Location`.
    pub location: Option<String>,
    pub body: Bytes,
}

impl Target {
    /// Reads the URL.
    ///
    /// # Errors
    /// It is none, or none that can be loaded.
    pub fn parse(url: &str) -> Result<Target, String> {
        let wrong = |why: &str| format!("--url: {why}; e.g. http://127.0.0.1:1984/api/webrtc?src=front");
        let url = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        match url.scheme() {
            "http" if url.has_host() => Ok(Target { url }),
            "https" => Err(wrong("https is not supported, use the server's http address on its own machine")),
            other => Err(wrong(&format!("{other:?} is not the scheme http"))),
        }
    }

    /// Whether it is an HLS playlist.
    pub fn is_hls(&self) -> bool {
        self.url.path().ends_with(".m3u8")
    }

    /// Where the server is, once it takes connections.
    pub async fn address(&self) -> Result<SocketAddr, String> {
        let (host, port) = (self.url.host_str().unwrap_or_default(), self.url.port_or_known_default());
        let refused = |error| format!("{host}:{}: {error}", port.unwrap_or_default());
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, port.unwrap_or(80))).await.map_err(refused)?;
        tcp.peer_addr().map_err(refused)
    }
}

/// One connection.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Result<Client, String> {
        let connect = async {
            let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
            tcp.set_nodelay(true).map_err(|error| error.to_string())?;
            handshake(TokioIo::new(tcp)).await.map_err(|error| error.to_string())
        };
        let late = |_| "no connection in time".to_owned();
        let (sender, connection) = timeout(PATIENCE, connect).await.map_err(late)??;
        // It ends when the sender is dropped; what went wrong the sender says.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Client { sender })
    }

    pub async fn get(&mut self, url: &Url) -> Result<Reply, String> {
        self.send(Method::GET, url, None).await
    }

    /// Sends a request. `body`: its media type and content.
    pub async fn send(
        &mut self,
        method: Method,
        url: &Url,
        body: Option<(&str, String)>,
    ) -> Result<Reply, String> {
        let path =
            url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let authority = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| authority.to_owned(), |port| format!("{authority}:{port}"));
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        if !url.username().is_empty() {
            use base64::Engine as _;
            let pair = format!("{}:{}", url.username(), url.password().unwrap_or_default());
            let encoded = base64::prelude::BASE64_STANDARD.encode(pair);
            request = request.header("authorization", format!("Basic {encoded}"));
        }
        let content = match body {
            None => Bytes::new(),
            Some((kind, content)) => {
                request = request.header("content-type", kind);
                content.into()
            }
        };
        let request = request.body(Full::new(content)).map_err(|error| error.to_string())?;
        let exchange = async {
            self.sender.ready().await.map_err(|error| error.to_string())?;
            let reply = self.sender.send_request(request).await.map_err(|error| error.to_string())?;
            let (head, body) = reply.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| error.to_string())?;
            let location = head.headers.get("location").and_then(|value| value.to_str().ok());
            let location = location.map(str::to_owned);
            Ok(Reply { status: head.status, location, body: body.to_bytes() })
        };
        timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }
}

impl Reply {
    /// The body of a good answer, or what a bad one says.
    pub fn good(self) -> Result<Bytes, String> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let says: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        Err(format!("HTTP {}: {}", self.status, says.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_is_loaded() {
        for wrong in ["", "front", "https://h/x", "rtsp://h/x", "file:///x"] {
            let error = Target::parse(wrong).expect_err(wrong);
            assert!(error.contains("e.g. http://"), "{error}");
        }
        assert!(!Target::parse("http://h/api/webrtc?src=a.m3u8").expect("WHEP").is_hls());
        assert!(Target::parse("http://h/api/stream.m3u8?src=a").expect("HLS").is_hls());
    }
}
