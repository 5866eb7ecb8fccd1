//! Why WebRTC sessions end.

use std::fmt;

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The viewer said goodbye.
    Left,
    /// Nothing was heard of the viewer.
    Silent,
    /// No connection came about.
    NeverConnected,
    /// By the API.
    Closed,
    /// The stream was removed, or the viewer was kicked.
    Ended,
    /// What the source sends now was not negotiated.
    CodecChanged,
    /// The source has B-frames.
    Reordered,
    /// str0m gave up.
    Failed,
    /// The program ends.
    Shutdown,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Left => "the viewer left",
            End::Silent => "the viewer is gone",
            End::NeverConnected => "no connection came about",
            End::Closed => "closed by the client",
            End::Ended => "ended by the server",
            End::CodecChanged => "the camera's codec changed to one that was not negotiated",
            End::Reordered => "the camera sends B-frames",
            End::Failed => "the connection failed",
            End::Shutdown => "shutting down",
        })
    }
}
