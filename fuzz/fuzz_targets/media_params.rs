//! Parameter sets, SDP format parameters and NAL unit boundaries of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::media::{aac, h264, h265};

fuzz_target!(|data: &[u8]| {
    let _ = h264::parse_sps(data);
    let _ = h264::profile_level_id(data);
    let _ = h264::slice_header(data);
    let _ = h265::parse_sps(data);
    let _ = h265::vps_fps(data);
    let _ = h265::first_slice_segment_in_pic(data);
    let _ = h264::annex_b_nals(data).count();
    let _ = h264::length_prefixed_nals(data).count();
    if let Some(config) = aac::AudioSpecificConfig::parse(data) {
        let _ = config.to_bytes();
    }
    if let Ok(fmtp) = std::str::from_utf8(data) {
        let _ = h264::params_from_fmtp(fmtp);
        let _ = h265::params_from_fmtp(fmtp);
        let _ = aac::params_from_fmtp(fmtp);
    }
});
