//! What media goes to: one file or folder for each protocol.
//! May use `media`, `rtsp` and `graph`. Must never name a source.

pub mod hls;
pub mod mse;
pub mod pictures;
pub mod rtsp;
pub mod webrtc;
