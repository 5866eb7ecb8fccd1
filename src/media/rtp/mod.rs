//! RTP payload formats: from the wire to packets and frames, and back.
//!
//! [`header`] reads and writes RTP headers; [`sequence`] puts received packets in order and tells loss;
//! [`normalize`] turns received payloads into [`super::Packet`]s fit for every consumer (the cut-through path);
//! [`depacketize`] turns packets into [`super::Frame`]s; [`packetize`] turns frames into packets.

pub mod depacketize;
pub mod header;
pub mod normalize;
pub mod packetize;
pub mod sequence;

mod payload;
mod sets;
#[cfg(test)]
mod tests;
mod video;
mod video_state;
