//! A track: one elementary stream of a source, as its description (SDP) and its parameter sets tell it.

use super::codec::{Codec, Kind};
use std::sync::Arc;

/// One audio or video track of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// What the bytes are.
    pub codec: Codec,
    /// RTP clock in Hz: 90 000 for video, the sampling rate for most audio, always 48 000 for Opus.
    pub clock_rate: u32,
    /// Audio channels; 0 for video.
    pub channels: u8,
    /// Parameter sets or decoder configuration, as far as known.
    pub params: Params,
}

/// Out-of-band decoder configuration. Parameter sets are NAL units without start code or length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Params {
    /// Nothing is known, or nothing is needed (G.711, Opus).
    #[default]
    None,
    /// H.264: one sequence and one picture parameter set.
    H264 {
        /// Sequence parameter set, NAL type 7.
        sps: Arc<[u8]>,
        /// Picture parameter set, NAL type 8.
        pps: Arc<[u8]>,
    },
    /// H.265: one video, sequence and picture parameter set.
    H265 {
        /// Video parameter set, NAL type 32.
        vps: Arc<[u8]>,
        /// Sequence parameter set, NAL type 33.
        sps: Arc<[u8]>,
        /// Picture parameter set, NAL type 34.
        pps: Arc<[u8]>,
    },
    /// AAC: the AudioSpecificConfig of ISO/IEC 14496-3 §1.6.2.1.
    Aac {
        /// The configuration's bytes.
        config: Arc<[u8]>,
    },
}

/// Whether pictures are sent in another order than they are shown in (B-frames). WebRTC receivers can't play those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reordering {
    /// The parameter sets allow it and no picture has shown it yet.
    #[default]
    Unknown,
    /// The parameter sets rule it out.
    No,
    /// The parameter sets announce it or pictures have shown it.
    Yes,
}

/// What a sequence parameter set says of the picture.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VideoInfo {
    /// Shown width in pixels, after cropping.
    pub width: u32,
    /// Shown height in pixels, after cropping.
    pub height: u32,
    /// Frames per second, where the parameter set has timing information.
    pub fps: Option<f64>,
    /// The profile's name, e.g. `High`, `Constrained Baseline`, `Main`.
    pub profile: &'static str,
    /// The level times ten for H.264 (`31` is 3.1), times thirty for H.265 (`93` is 3.1): `level_idc`, as coded.
    pub level: u8,
    /// What the parameter set says of B-frames: `No` where reordering is ruled out, else `Unknown`
    /// (announced reordering is only a permission; pictures decide).
    pub reordering: Reordering,
}

impl Track {
    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.codec.kind()
    }

    /// What the sequence parameter set says, if there is one and it can be read.
    pub fn video_info(&self) -> Option<VideoInfo> {
        match &self.params {
            Params::H264 { sps, .. } => super::h264::parse_sps(sps),
            Params::H265 { vps, sps, .. } => {
                let mut info = super::h265::parse_sps(sps)?;
                info.fps = info.fps.or_else(|| super::h265::vps_fps(vps));
                Some(info)
            }
            Params::None | Params::Aac { .. } => None,
        }
    }
}
