//! The packet dialect: RTP payloads, ready to be sent to any number of viewers.

use super::clock::StreamTime;
use std::sync::Arc;

/// One RTP payload of a track, small enough for WebRTC and never part of a damaged access unit's tail.
///
/// Sequence numbers are not kept: a ring holds no gaps (whatever was lost is cut out up to the next keyframe),
/// so each consumer numbers what it sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Index of the track in its source's track list.
    pub track: u8,
    /// Presentation time in the track's RTP clock, 64 bits wide, on the stream's timeline: it continues over
    /// wrap-arounds and reconnects. The low 32 bits are what RTP carries.
    pub rtp_time: u64,
    /// The same instant on the timeline that all tracks of the source share.
    pub time: StreamTime,
    /// First packet of an access unit (always set for audio).
    pub starts_unit: bool,
    /// Last packet of an access unit: RTP's marker bit for video.
    pub ends_unit: bool,
    /// First packet of a keyframe's access unit (parameter sets included): a decoder can start here. Audio: never.
    pub keyframe: bool,
    /// The RTP payload, without the RTP header.
    pub payload: Arc<[u8]>,
}
