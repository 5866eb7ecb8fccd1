//! H.265 (ITU-T H.265): NAL units, parameter sets, keyframes.

use super::track::VideoInfo;

/// Reads a sequence parameter set. `None` if it can't be read.
pub fn parse_sps(_sps: &[u8]) -> Option<VideoInfo> {
    None
}
