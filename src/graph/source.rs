//! What a source is to the graph: something that dials, describes its tracks and writes RTP or frames until it fails.

use super::writer::SourceWriter;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// A future that a trait object returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A place media comes from, e.g. one RTSP URL. It keeps no connection between runs.
pub trait Source: Send + Sync + 'static {
    /// Dials, plays and writes into `out` until the source ends, fails, or the future is dropped.
    ///
    /// Dropping the future must end the connection promptly (a farewell such as TEARDOWN may be sent in the
    /// background, bounded in time). Dial deadlines and stall detection are the source's own; retrying is the graph's.
    fn run<'a>(&'a self, out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>>;

    /// The URL as it may be shown: without credentials.
    fn url(&self) -> &str;

    /// The scheme's name as in go2rtc's `format_name`, e.g. `rtsp`.
    fn format_name(&self) -> &'static str;

    /// Why nothing will ever come from it, where that is known beforehand: such a source is never run.
    fn unsupported(&self) -> Option<&str> {
        None
    }
}

/// Makes a [`Source`] from the URL in the configuration. The one table of schemes is in `sources`; the graph is handed it.
pub type OpenSource = Arc<dyn Fn(&str) -> Result<Arc<dyn Source>, String> + Send + Sync>;

/// What a source says of its connection, for the API.
#[derive(Debug, Clone, Default)]
pub struct SourceDetails {
    /// The transport, e.g. `rtsp+tcp`, `rtsp+udp`.
    pub protocol: &'static str,
    /// Peer address.
    pub remote_addr: String,
    /// The session description as received, without credentials.
    pub sdp: String,
    /// The server's name, e.g. of the `Server` header.
    pub server: String,
}

/// Why a source's run ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing was answered in time: unreachable host, dial deadline. Becomes a 504.
    #[error("{0}")]
    TimedOut(String),
    /// No connection came about: port closed, no route, name unknown. Becomes a 502; a camera that reboots looks like this.
    #[error("{0}")]
    Unreachable(String),
    /// The source answered and refused, e.g. `401 Unauthorized`, or spoke nonsense. Becomes a 502.
    #[error("{0}")]
    Refused(String),
    /// It played and then ended or stopped sending.
    #[error("{0}")]
    Ended(String),
}

/// One RTP packet as a source received it.
#[derive(Debug, Clone, Copy)]
pub struct RtpIn<'a> {
    /// Index into the tracks given to [`SourceWriter::set_tracks`].
    pub track: usize,
    /// RTP payload without header, extension or padding.
    pub payload: &'a [u8],
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// At least one packet of this track was lost right before this one.
    pub loss: bool,
    /// When it was received.
    pub arrival: Instant,
}

/// A source that is connected for ever and sends nothing: for tests.
#[cfg(test)]
pub(crate) struct Silent;

#[cfg(test)]
impl Source for Silent {
    fn run<'a>(&'a self, _: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(std::future::pending())
    }

    fn url(&self) -> &str {
        "test:"
    }

    fn format_name(&self) -> &'static str {
        "test"
    }
}
