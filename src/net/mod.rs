//! Connections to other machines, plain or over TLS.
//! May use nothing of ours; anyone may use it. Must never wait without a deadline.

mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A connection, plain or over TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    Plain,
    /// By TLS with a server whose certificate is for its host and from an authority that is trusted here.
    Tls,
    /// By TLS with whoever answers: nobody can listen, but nobody knows who is on the other side.
    TlsUnverified,
}

/// Why there is no connection. Each says with whom.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The network, the name's resolution, or the other side's refusal.
    #[error("can't connect to {peer}: {error}")]
    Tcp {
        /// `host:port`.
        peer: String,
        /// What the system said.
        error: io::Error,
    },
    /// Nothing came in time.
    #[error("{peer} doesn't answer: no {what} in {seconds} s")]
    TimedOut {
        /// `host:port`.
        peer: String,
        /// What did not come about.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The certificate doesn't prove what it must.
    #[error("the certificate of {peer} {why}")]
    Certificate {
        /// `host:port`.
        peer: String,
        /// What is wrong with it.
        why: String,
    },
    /// What it answers is no TLS.
    #[error("{peer} doesn't speak TLS")]
    NoTls {
        /// `host:port`.
        peer: String,
    },
    /// Whatever else a handshake fails of, on either side.
    #[error("no TLS with {peer}: {why}")]
    Tls {
        /// `host:port`.
        peer: String,
        /// What went wrong.
        why: String,
    },
}

/// A connection that has come about.
pub struct Connected {
    /// It.
    pub stream: Box<dyn Stream>,
    /// The other side's address.
    pub peer: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

/// Connects. `patience` is for the connection and for the TLS handshake, each. An IPv6 address comes without brackets.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    host: &str,
    port: u16,
    security: Security,
    patience: Duration,
) -> Result<Connected, ConnectError> {
    let peer = || match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let late = |what| ConnectError::TimedOut { peer: peer(), what, seconds: patience.as_secs() };
    let connected = timeout(patience, TcpStream::connect((host, port))).await;
    let (stream, addresses) = connected
        .map_err(|_| late("connection"))?
        .and_then(|stream| {
            stream.set_nodelay(true)?;
            let addresses = (stream.peer_addr()?, stream.local_addr()?);
            Ok((stream, addresses))
        })
        .map_err(|error| ConnectError::Tcp { peer: peer(), error })?;
    let done = |stream| Connected { stream, peer: addresses.0, local: addresses.1 };
    let is_verified = match security {
        Security::Plain => return Ok(done(Box::new(stream))),
        Security::Tls => true,
        Security::TlsUnverified => false,
    };
    let secured = timeout(patience, tls::handshake(stream, host, is_verified)).await;
    match secured.map_err(|_| late("TLS handshake"))? {
        Ok(stream) => Ok(done(Box::new(stream))),
        Err(tls::Failure::Certificate(why)) => Err(ConnectError::Certificate { peer: peer(), why }),
        Err(tls::Failure::NoTls) => Err(ConnectError::NoTls { peer: peer() }),
        Err(tls::Failure::Other(why)) => Err(ConnectError::Tls { peer: peer(), why }),
    }
}
