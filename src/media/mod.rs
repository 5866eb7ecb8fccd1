//! Codecs, tracks, RTP and time. Pure code: no I/O, no tokio, no clock but the one it is given.
//! May use nothing of Streamgate's other folders.

pub mod aac;
pub mod clock;
pub mod codec;
pub mod frame;
pub mod h264;
pub mod h265;
pub mod jpeg;
pub mod mp4;
pub mod nal;
pub mod packet;
pub mod rtp;
pub mod stamp;
pub mod track;

pub use clock::StreamTime;
pub use codec::{Codec, Kind};
pub use frame::Frame;
pub use packet::Packet;
pub use track::{Params, Reordering, Track, VideoInfo};
