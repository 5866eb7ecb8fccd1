//! RTSP 1.0 (RFC 2326) as it is on the wire: URLs, messages, framing, logging in on both sides, transports,
//! session descriptions.
//! May use `media`, and of `net` what names things. No I/O: clients, servers and the demo camera bring their own sockets.
//! Must never trust what it reads: everything here is total, and bounded in bytes and items.

pub mod auth;
pub mod framing;
pub mod guard;
pub mod message;
pub mod sdp;
pub mod transport;
pub mod url;

pub use framing::{Framer, Incoming, Limits};
pub use message::{Headers, Request, Response};
pub use transport::Transport;
