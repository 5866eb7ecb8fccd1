//! H.264 (ITU-T H.264): NAL units, parameter sets, keyframes, B-frames.

use super::track::VideoInfo;

/// Reads a sequence parameter set. `None` if it can't be read.
pub fn parse_sps(_sps: &[u8]) -> Option<VideoInfo> {
    None
}
