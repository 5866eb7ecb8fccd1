//! The frame dialect: access units, for fragments, snapshots and files.

use super::clock::StreamTime;
use bytes::Bytes;

/// One access unit of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Index of the track in its source's track list.
    pub track: u8,
    /// Presentation time in the track's RTP clock; see [`super::Packet::rtp_time`].
    pub rtp_time: u64,
    /// The same instant on the timeline that all tracks of the source share.
    pub time: StreamTime,
    /// Video: a decoder can start here. Audio: never set.
    pub keyframe: bool,
    /// Video: NAL units, each behind its length in four bytes, big endian (ISO/IEC 14496-15).
    /// JPEG: the whole file.
    /// Audio: one codec frame (AAC without ADTS, an Opus packet) or a run of G.711 samples.
    pub data: Bytes,
}
