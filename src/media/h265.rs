//! H.265 (ITU-T H.265): NAL units, parameter sets, keyframes.

use super::nal::{Bits, MAX_PARAMETER_SET, fmtp_value, pixels, skip_vui_start, sprop_nals};
use super::track::{Params, Reordering, VideoInfo};

/// NAL unit types (table 7-1).
pub mod nal_type {
    /// First of the random access (IRAP) types: BLA_W_LP.
    pub const IRAP_FIRST: u8 = 16;
    /// Last of the random access (IRAP) types in use: CRA.
    pub const IRAP_LAST: u8 = 21;
    /// Video parameter set.
    pub const VPS: u8 = 32;
    /// Sequence parameter set.
    pub const SPS: u8 = 33;
    /// Picture parameter set.
    pub const PPS: u8 = 34;
    /// Access unit delimiter.
    pub const AUD: u8 = 35;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 36;
    /// End of bitstream.
    pub const END_OF_BITSTREAM: u8 = 37;
    /// Filler data.
    pub const FILLER: u8 = 38;
    /// Supplemental enhancement information before the picture.
    pub const PREFIX_SEI: u8 = 39;
    /// Supplemental enhancement information after the picture's first slice.
    pub const SUFFIX_SEI: u8 = 40;
}

/// The type in a NAL unit's first byte.
pub fn nal_type(header: u8) -> u8 {
    header >> 1 & 0x3f
}

/// Whether NAL units of this type carry picture data.
pub fn is_vcl(nal_type: u8) -> bool {
    nal_type < 32
}

/// Whether NAL units of this type carry a picture that a decoder can start at.
pub fn is_irap(nal_type: u8) -> bool {
    (nal_type::IRAP_FIRST..=nal_type::IRAP_LAST).contains(&nal_type)
}

/// `first_slice_segment_in_pic_flag` (§7.3.6.1) of a slice, or of the beginning of one. `None` if it is too short.
pub fn first_slice_segment_in_pic(nal: &[u8]) -> Option<bool> {
    nal.get(2).map(|byte| byte & 0x80 != 0)
}

/// Reads a sequence parameter set (§7.3.2.2.1). `None` if it can't be read; what follows the picture's size and
/// order may be damaged and then costs only the frame rate.
pub fn parse_sps(sps: &[u8]) -> Option<VideoInfo> {
    let sps = sps.get(..sps.len().min(MAX_PARAMETER_SET))?;
    if nal_type(*sps.first()?) != nal_type::SPS {
        return None;
    }
    let mut bits = Bits::new(sps.get(2..)?);
    bits.skip(4)?; // sps_video_parameter_set_id
    let max_sub_layers_minus1 = bits.u(3).filter(|layers| *layers < 7)?;
    bits.skip(1)?; // sps_temporal_id_nesting_flag
    let (profile_idc, level) = profile_tier_level(&mut bits, max_sub_layers_minus1)?;
    bits.ue_up_to(15)?; // sps_seq_parameter_set_id
    let chroma_format = bits.ue_up_to(3)?;
    if chroma_format == 3 {
        bits.skip(1)?; // separate_colour_plane_flag
    }
    let coded_width = bits.ue_up_to(65_536)?;
    let coded_height = bits.ue_up_to(65_536)?;
    let mut window = [0; 4];
    if bits.bit()? {
        for side in &mut window {
            *side = bits.ue()?;
        }
    }
    let [left, right, top, bottom] = window;
    // Table 6-1: the units of the conformance window.
    let (sub_width, sub_height) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let width = pixels(coded_width, sub_width, (left, right))?;
    let height = pixels(coded_height, sub_height, (top, bottom))?;
    bits.ue_up_to(8)?; // bit_depth_luma_minus8
    bits.ue_up_to(8)?; // bit_depth_chroma_minus8
    let log2_max_poc_lsb = bits.ue_up_to(12)? + 4;
    let num_reorder = sub_layer_ordering(&mut bits, max_sub_layers_minus1)?;
    let reordering = if num_reorder == 0 { Reordering::No } else { Reordering::Unknown };
    let fps = fps_behind_ordering(&mut bits, log2_max_poc_lsb);
    Some(VideoInfo { width, height, fps, profile: profile_name(profile_idc), level, reordering })
}

/// Frames per second from a video parameter set's timing information (§7.3.2.1), if it has any.
pub fn vps_fps(vps: &[u8]) -> Option<f64> {
    let vps = vps.get(..vps.len().min(MAX_PARAMETER_SET))?;
    if nal_type(*vps.first()?) != nal_type::VPS {
        return None;
    }
    let mut bits = Bits::new(vps.get(2..)?);
    bits.skip(4 + 2 + 6)?; // vps id, base layer flags, vps_max_layers_minus1
    let max_sub_layers_minus1 = bits.u(3).filter(|layers| *layers < 7)?;
    bits.skip(1 + 16)?; // vps_temporal_id_nesting_flag, reserved
    profile_tier_level(&mut bits, max_sub_layers_minus1)?;
    sub_layer_ordering(&mut bits, max_sub_layers_minus1)?;
    let max_layer_id = bits.u(6)?;
    let layer_sets_minus1 = bits.ue_up_to(1023)?;
    bits.skip(layer_sets_minus1 * (max_layer_id + 1))?;
    timing_info(&mut bits)
}

/// §7.3.3: `general_profile_idc` and `general_level_idc`.
fn profile_tier_level(bits: &mut Bits<'_>, max_sub_layers_minus1: u32) -> Option<(u32, u8)> {
    bits.skip(3)?; // general_profile_space, general_tier_flag
    let profile_idc = bits.u(5)?;
    bits.skip(32 + 48)?; // compatibility and constraint flags
    let level = u8::try_from(bits.u(8)?).ok()?;
    let mut sub_layers = [(false, false); 8];
    for present in sub_layers.iter_mut().take(max_sub_layers_minus1 as usize) {
        *present = (bits.bit()?, bits.bit()?);
    }
    if max_sub_layers_minus1 > 0 {
        bits.skip((8 - max_sub_layers_minus1) * 2)?;
    }
    for (profile, level) in sub_layers {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    Some((profile_idc, level))
}

fn profile_name(profile_idc: u32) -> &'static str {
    match profile_idc {
        1 => "Main",
        2 => "Main 10",
        3 => "Main Still Picture",
        4 => "Range Extensions",
        5 => "High Throughput",
        6 => "Multiview Main",
        7 => "Scalable Main",
        9 => "Screen Content",
        _ => "Unknown",
    }
}

/// The number of pictures that may be sent before an earlier shown one, for the highest sub-layer.
fn sub_layer_ordering(bits: &mut Bits<'_>, max_sub_layers_minus1: u32) -> Option<u32> {
    let layers = if bits.bit()? { max_sub_layers_minus1 + 1 } else { 1 };
    let mut num_reorder = 0;
    for _ in 0..layers {
        bits.ue()?; // max_dec_pic_buffering_minus1
        num_reorder = bits.ue()?;
        bits.ue()?; // max_latency_increase_plus1
    }
    Some(num_reorder)
}

/// The rest of the SPS down to the VUI's timing information.
fn fps_behind_ordering(bits: &mut Bits<'_>, log2_max_poc_lsb: u32) -> Option<f64> {
    for _ in 0..6 {
        bits.ue()?; // sizes of coding and transform blocks
    }
    if bits.bit()? && bits.bit()? {
        skip_scaling_lists(bits)?;
    }
    bits.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if bits.bit()? {
        bits.skip(8)?; // PCM bit depths
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    skip_short_term_ref_pic_sets(bits)?;
    if bits.bit()? {
        for _ in 0..bits.ue_up_to(32)? {
            bits.skip(log2_max_poc_lsb + 1)?;
        }
    }
    bits.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    if !bits.bit()? {
        return None;
    }
    skip_vui_start(bits)?;
    bits.skip(3)?; // neutral chroma, field sequence, frame field info
    if bits.bit()? {
        for _ in 0..4 {
            bits.ue()?; // default display window
        }
    }
    timing_info(bits)
}

fn timing_info(bits: &mut Bits<'_>) -> Option<f64> {
    if !bits.bit()? {
        return None;
    }
    let units_in_tick = bits.u(32)?;
    let time_scale = bits.u(32)?;
    (units_in_tick > 0 && time_scale > 0).then(|| f64::from(time_scale) / f64::from(units_in_tick))
}

/// §7.3.4.
fn skip_scaling_lists(bits: &mut Bits<'_>) -> Option<()> {
    for size in 0..4u32 {
        for _ in 0..if size == 3 { 2 } else { 6 } {
            if !bits.bit()? {
                bits.ue()?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            if size > 1 {
                bits.se()?;
            }
            for _ in 0..64.min(1 << (4 + (size << 1))) {
                bits.se()?;
            }
        }
    }
    Some(())
}

/// §7.3.7, with the derivation of a predicted set's size (7-61, 7-62).
fn skip_short_term_ref_pic_sets(bits: &mut Bits<'_>) -> Option<()> {
    let mut pictures = 0;
    for index in 0..bits.ue_up_to(64)? {
        if index > 0 && bits.bit()? {
            bits.skip(1)?; // delta_rps_sign
            bits.ue()?;
            let mut used = 0;
            for _ in 0..=pictures {
                // used_by_curr_pic_flag, else use_delta_flag
                if bits.bit()? || bits.bit()? {
                    used += 1;
                }
            }
            pictures = used;
        } else {
            let negative = bits.ue_up_to(16)?;
            let positive = bits.ue_up_to(16)?;
            for _ in 0..negative + positive {
                bits.ue()?;
                bits.skip(1)?;
            }
            pictures = negative + positive;
        }
    }
    Some(())
}

/// The parameter sets in an SDP `a=fmtp` value (RFC 7798 §7.1: `sprop-vps`, `sprop-sps`, `sprop-pps`). With several of
/// one kind, the first counts. `None` without all three.
pub fn params_from_fmtp(fmtp: &str) -> Option<Params> {
    let first = |key, wanted| {
        let nals = sprop_nals(fmtp_value(fmtp, key)?);
        nals.into_iter().find(|nal| nal.first().map(|header| nal_type(*header)) == Some(wanted))
    };
    Some(Params::H265 {
        vps: first("sprop-vps", nal_type::VPS)?.into(),
        sps: first("sprop-sps", nal_type::SPS)?.into(),
        pps: first("sprop-pps", nal_type::PPS)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nal(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    // Made by x265.
    const MAIN_1080P: &str =
        "420101016000000300900000030000030078a003c08010e596566924caf0168080000003008000000c84";
    const NO_B: &str = "42010101600000030090000003000003003fa0050201696592a4932bc05a020000030002000003001e10";
    const MAIN10_LISTS_HRD: &str =
        "42010102200000030090000003000003003fa00d080f1365959a49395e02d00c02930dc001e848003d0910";
    const VPS: &str = "40010c01ffff016000000300900000030000030078959809";
    const PPS: &str = "4401c172b46240";

    #[test]
    fn real_parameter_sets() {
        use Reordering::{No, Unknown};
        let expected = [
            (MAIN_1080P, 1920, 1080, Some(25.0), "Main", 120, Unknown),
            (NO_B, 640, 360, Some(15.0), "Main", 63, No),
            (MAIN10_LISTS_HRD, 416, 240, None, "Main 10", 63, Unknown),
        ];
        for (sps, width, height, fps, profile, level, reordering) in expected {
            let info = VideoInfo { width, height, fps, profile, level, reordering };
            assert_eq!(parse_sps(&nal(sps)), Some(info), "{sps}");
        }
    }

    #[test]
    fn video_parameter_set_gives_the_frame_rate() {
        assert_eq!(vps_fps(&nal(VPS)), None);
        // The same one, cut behind vps_sub_layer_ordering_info and ended with: layer id 0, one layer set, timing info
        // present.
        let mut bits: Vec<bool> = nal("40010c01ffff0160000003009000000300000300789598")
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
            .collect();
        bits.extend([false, false, false, false, true, true]);
        for value in [1001u32, 60_000] {
            bits.extend((0..32).rev().map(|bit| value >> bit & 1 == 1));
        }
        bits.push(true);
        let bytes: Vec<u8> = bits
            .chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | u8::from(*bit) << (7 - at)))
            .collect();
        let mut escaped = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            if at > 22 && *byte <= 3 && escaped.ends_with(&[0, 0]) {
                escaped.push(3);
            }
            escaped.push(*byte);
        }
        assert_eq!(vps_fps(&escaped), Some(60_000.0 / 1001.0));
    }

    #[test]
    fn damage_behind_the_size_costs_only_the_frame_rate() {
        let info = parse_sps(&nal(MAIN_1080P)[..32]).expect("still readable");
        assert_eq!((info.width, info.height, info.fps), (1920, 1080, None));
        assert_eq!(parse_sps(&nal(MAIN_1080P)[..20]), None);
    }

    #[test]
    fn slices_and_random_access_types() {
        assert_eq!(first_slice_segment_in_pic(&[0x26, 1, 0xaf]), Some(true));
        assert_eq!(first_slice_segment_in_pic(&[0x26, 1, 0x2f]), Some(false));
        assert_eq!(first_slice_segment_in_pic(&[0x26, 1]), None);
        assert!(is_irap(nal_type(0x26)) && is_irap(21) && !is_irap(22) && !is_irap(1));
    }

    #[test]
    fn fmtp_of_a_camera() {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let encode = |hex| BASE64_STANDARD.encode(nal(hex));
        let (vps, sps, pps) = (encode(VPS), encode(NO_B), encode(PPS));
        let params = Params::H265 { vps: nal(VPS).into(), sps: nal(NO_B).into(), pps: nal(PPS).into() };
        let fmtp = format!("profile-id=1; sprop-vps={vps}; sprop-sps={sps}; sprop-pps={pps},");
        assert_eq!(params_from_fmtp(&fmtp), Some(params));
        assert_eq!(params_from_fmtp(&format!("sprop-sps={sps};sprop-pps={pps}")), None);
        assert_eq!(params_from_fmtp(&format!("sprop-vps={pps};sprop-sps={sps};sprop-pps={pps}")), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for header in [0x42u8, 0x40] {
                let mut set = vec![header, 1];
                set.extend_from_slice(&bytes);
                let _ = (parse_sps(&set), vps_fps(&set));
            }
            let _ = (parse_sps(&bytes), vps_fps(&bytes), first_slice_segment_in_pic(&bytes));
        }

        #[test]
        fn damaged_sets_are_survived(which in 0usize..3, at in 2usize..40, value: u8) {
            let mut sps = nal([MAIN_1080P, NO_B, MAIN10_LISTS_HRD][which]);
            sps[at] = value;
            if let Some(info) = parse_sps(&sps) {
                prop_assert!(info.width <= 65_536 && info.height <= 65_536);
            }
        }
    }
}
