//! H.264 (ITU-T H.264): NAL units, parameter sets, keyframes, B-frames.

use super::nal::{Bits, MAX_PARAMETER_SET, fmtp_value, pixels, skip_vui_start, sprop_nals};
use super::track::{Params, Reordering, VideoInfo};

pub use super::nal::{annex_b_nals, length_prefixed_nals};

/// NAL unit types (table 7-1).
pub mod nal_type {
    /// Coded slice of a non-IDR picture.
    pub const SLICE: u8 = 1;
    /// Coded slice data partition A; B and C follow with 3 and 4.
    pub const PARTITION_A: u8 = 2;
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 10;
    /// End of stream.
    pub const END_OF_STREAM: u8 = 11;
    /// Filler data.
    pub const FILLER: u8 = 12;
}

/// The type in a NAL unit's first byte.
pub fn nal_type(header: u8) -> u8 {
    header & 0x1f
}

/// Whether NAL units of this type carry picture data.
pub fn is_vcl(nal_type: u8) -> bool {
    (1..=5).contains(&nal_type)
}

/// What kind of prediction a slice uses (table 7-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceType {
    /// Predicted from earlier pictures (P and SP).
    P,
    /// Predicted from two directions.
    B,
    /// Not predicted from other pictures (I and SI).
    I,
}

/// The start of a slice header (§7.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceHeader {
    /// `first_mb_in_slice` is 0: the picture's first slice.
    pub first_in_picture: bool,
    /// The prediction, if the bytes reach that far.
    pub slice_type: Option<SliceType>,
}

/// Reads the start of a slice: `nal` is a NAL unit of type 1, 2 or 5, or the beginning of one. `None` if it is too short.
pub fn slice_header(nal: &[u8]) -> Option<SliceHeader> {
    let mut bits = Bits::new(nal.get(1..)?);
    let first_in_picture = bits.ue()? == 0;
    let slice_type = bits.ue_up_to(9).map(|code| match code % 5 {
        0 | 3 => SliceType::P,
        1 => SliceType::B,
        _ => SliceType::I,
    });
    Some(SliceHeader { first_in_picture, slice_type })
}

/// `profile_idc`, the constraint flags and `level_idc` of a sequence parameter set: SDP's `profile-level-id`.
pub fn profile_level_id(sps: &[u8]) -> Option<[u8; 3]> {
    match sps {
        [header, profile, constraints, level, ..] if nal_type(*header) == nal_type::SPS => {
            Some([*profile, *constraints, *level])
        }
        _ => None,
    }
}

/// Reads a sequence parameter set (§7.3.2.1.1). `None` if it can't be read.
///
/// Cameras that state too low a level or end the set untidily are common: neither is checked, and an unreadable VUI
/// only costs what it would have told.
pub fn parse_sps(sps: &[u8]) -> Option<VideoInfo> {
    let [profile_idc, constraints, level] = profile_level_id(sps.get(..sps.len().min(MAX_PARAMETER_SET))?)?;
    let mut bits = Bits::new(sps.get(4..)?);
    bits.ue_up_to(31)?; // seq_parameter_set_id
    let mut chroma_format = 1;
    if matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        chroma_format = bits.ue_up_to(3)?;
        if chroma_format == 3 {
            bits.skip(1)?; // separate_colour_plane_flag
        }
        bits.ue_up_to(6)?; // bit_depth_luma_minus8
        bits.ue_up_to(6)?; // bit_depth_chroma_minus8
        bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if bits.bit()? {
            let lists = if chroma_format == 3 { 12 } else { 8 };
            for list in 0..lists {
                if bits.bit()? {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue_up_to(12)?; // log2_max_frame_num_minus4
    let pic_order_cnt_type = bits.ue_up_to(2)?;
    match pic_order_cnt_type {
        0 => {
            bits.ue_up_to(12)?;
        }
        1 => {
            bits.skip(1)?;
            bits.se()?;
            bits.se()?;
            for _ in 0..bits.ue_up_to(255)? {
                bits.se()?;
            }
        }
        _ => {}
    }
    bits.ue()?; // max_num_ref_frames
    bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
    let width_in_mbs = bits.ue_up_to(4095)? + 1;
    let height_in_map_units = bits.ue_up_to(4095)? + 1;
    let frame_mbs_only = bits.bit()?;
    if !frame_mbs_only {
        bits.skip(1)?; // mb_adaptive_frame_field_flag
    }
    bits.skip(1)?; // direct_8x8_inference_flag
    let mut crop = [0; 4];
    if bits.bit()? {
        for side in &mut crop {
            *side = bits.ue()?;
        }
    }
    let [left, right, top, bottom] = crop;
    // Table 6-1: the units of cropping.
    let (sub_width, sub_height) = match chroma_format {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let fields = if frame_mbs_only { 1 } else { 2 };
    let width = pixels(width_in_mbs * 16, sub_width, (left, right))?;
    let height = pixels(height_in_map_units * 16 * fields, sub_height * fields, (top, bottom))?;
    let vui = if bits.bit() == Some(true) { parse_vui(&mut bits) } else { Vui::default() };

    let profile = profile_name(profile_idc, constraints);
    let no_b_slices = matches!(profile, "Baseline" | "Constrained Baseline" | "Constrained High");
    let reordering = if no_b_slices || pic_order_cnt_type == 2 || vui.max_num_reorder_frames == Some(0) {
        Reordering::No
    } else {
        Reordering::Unknown
    };
    Some(VideoInfo { width, height, fps: vui.fps, profile, level, reordering })
}

fn profile_name(profile_idc: u8, constraints: u8) -> &'static str {
    let set = |flag: u8| constraints & (0x80 >> flag) != 0;
    match profile_idc {
        66 if set(1) => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 if set(4) && set(5) => "Constrained High",
        100 => "High",
        110 if set(3) => "High 10 Intra",
        110 => "High 10",
        122 if set(3) => "High 4:2:2 Intra",
        122 => "High 4:2:2",
        244 if set(3) => "High 4:4:4 Intra",
        244 => "High 4:4:4 Predictive",
        44 => "CAVLC 4:4:4 Intra",
        83 | 86 => "Scalable",
        118 | 128 | 134 | 135 | 138 | 139 => "Multiview",
        _ => "Unknown",
    }
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: usize) -> Option<()> {
    let mut last = 8i64;
    let mut next = 8i64;
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

#[derive(Debug, Default)]
struct Vui {
    fps: Option<f64>,
    max_num_reorder_frames: Option<u32>,
}

/// What can be read of the VUI (§E.1.1), up to where it breaks off.
fn parse_vui(bits: &mut Bits<'_>) -> Vui {
    let mut vui = Vui::default();
    let _ = read_vui(bits, &mut vui);
    vui
}

fn read_vui(bits: &mut Bits<'_>, vui: &mut Vui) -> Option<()> {
    skip_vui_start(bits)?;
    if bits.bit()? {
        let units_in_tick = bits.u(32)?;
        let time_scale = bits.u(32)?;
        bits.skip(1)?; // fixed_frame_rate_flag
        if units_in_tick > 0 && time_scale > 0 {
            // A tick is a field.
            vui.fps = Some(f64::from(time_scale) / (2.0 * f64::from(units_in_tick)));
        }
    }
    let nal_hrd = bits.bit()?;
    if nal_hrd {
        skip_hrd(bits)?;
    }
    let vcl_hrd = bits.bit()?;
    if vcl_hrd {
        skip_hrd(bits)?;
    }
    if nal_hrd || vcl_hrd {
        bits.skip(1)?; // low_delay_hrd_flag
    }
    bits.skip(1)?; // pic_struct_present_flag
    if bits.bit()? {
        bits.skip(1)?; // motion_vectors_over_pic_boundaries_flag
        for _ in 0..4 {
            bits.ue()?;
        }
        vui.max_num_reorder_frames = Some(bits.ue()?);
    }
    Some(())
}

fn skip_hrd(bits: &mut Bits<'_>) -> Option<()> {
    let count = bits.ue_up_to(31)? + 1;
    bits.skip(8)?;
    for _ in 0..count {
        bits.ue()?;
        bits.ue()?;
        bits.skip(1)?;
    }
    bits.skip(20)
}

/// The parameter sets in an SDP `a=fmtp` value (RFC 6184 §8.1, `sprop-parameter-sets`). With several of one kind, the
/// first that can be read counts. `None` without both kinds.
pub fn params_from_fmtp(fmtp: &str) -> Option<Params> {
    let nals = sprop_nals(fmtp_value(fmtp, "sprop-parameter-sets")?);
    let of_type = |wanted| nals.iter().filter(move |nal| nal.first().map(|h| nal_type(*h)) == Some(wanted));
    let sps = of_type(nal_type::SPS).find(|sps| parse_sps(sps).is_some()).or(of_type(nal_type::SPS).next())?;
    let pps = of_type(nal_type::PPS).next()?;
    Some(Params::H264 { sps: sps.as_slice().into(), pps: pps.as_slice().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nal(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    // Made by x264.
    const HIGH_720P: &str = "6764001facd9405005bb011000000300100000030320f1831960";
    const MAIN_NO_B: &str = "674d401fd900b0126c04400000fa40003a9803c60c92";
    const BASELINE: &str = "6742c016d900a02ff970110000030001000003001e0f162e48";
    const INTERLACED_HRD: &str = "67640028acd94078044fde022000000300200000064c90001e848003d09498601f162d96";
    const HIGH_444_MATRIX: &str = "67f4000c919b28283f6022000003000200000300281e28532c";

    #[test]
    fn real_parameter_sets() {
        use Reordering::{No, Unknown};
        let expected = [
            (HIGH_720P, 1280, 720, 25.0, "High", 31, Unknown),
            (MAIN_NO_B, 704, 576, 30000.0 / 1001.0, "Main", 31, No),
            (BASELINE, 640, 360, 15.0, "Constrained Baseline", 22, No),
            (INTERLACED_HRD, 1920, 1080, 25.0, "High", 40, Unknown),
            (HIGH_444_MATRIX, 320, 240, 10.0, "High 4:4:4 Predictive", 12, Unknown),
        ];
        for (sps, width, height, fps, profile, level, reordering) in expected {
            let info = VideoInfo { width, height, fps: Some(fps), profile, level, reordering };
            assert_eq!(parse_sps(&nal(sps)), Some(info), "{sps}");
        }
    }

    #[test]
    fn damaged_vui_costs_only_what_it_tells() {
        let whole = nal(HIGH_720P);
        let info = parse_sps(&whole[..11]).expect("still readable");
        assert_eq!((info.width, info.height, info.fps), (1280, 720, None));
        assert_eq!(parse_sps(&whole[..7]), None);
    }

    #[test]
    fn understated_level_is_no_reason_to_refuse() {
        let mut sps = nal(INTERLACED_HRD);
        sps[3] = 10;
        assert_eq!(parse_sps(&sps).map(|info| (info.width, info.level)), Some((1920, 10)));
    }

    #[test]
    fn profile_level_id_is_as_in_sdp() {
        assert_eq!(profile_level_id(&nal(BASELINE)), Some([0x42, 0xc0, 0x16]));
        assert_eq!(profile_level_id(&nal("68cb83cb20")), None);
        assert_eq!(profile_level_id(&[0x67, 0x42]), None);
    }

    #[test]
    fn slice_headers() {
        let header = |first_in_picture, slice_type| Some(SliceHeader { first_in_picture, slice_type });
        assert_eq!(slice_header(&[0x65, 0x88, 0x84]), header(true, Some(SliceType::I)));
        assert_eq!(slice_header(&[0x41, 0x9a, 0x02]), header(true, Some(SliceType::P)));
        assert_eq!(slice_header(&[0x01, 0x9e, 0x02]), header(true, Some(SliceType::B)));
        assert_eq!(slice_header(&[0x41, 0x46]), header(false, Some(SliceType::P)));
        assert_eq!(slice_header(&[0x41, 0x80]), header(true, None));
        assert_eq!(slice_header(&[0x41]), None);
    }

    #[test]
    fn fmtp_with_the_quirks_of_cameras() {
        let params = Params::H264 { sps: nal(BASELINE).into(), pps: nal("68cb83cb20").into() };
        let sps = "Z0LAFtkAoC/5cBEAAAMAAQAAAwAeDxYuSA==";
        for fmtp in [
            format!("packetization-mode=1;profile-level-id=42c016;sprop-parameter-sets={sps},aMuDyyA="),
            format!("96 packetization-mode=1; sprop-parameter-sets = {sps} , aMuDyyA ,"),
            format!("SPROP-Parameter-Sets=\"{sps},{sps},aMuDyyA=\"; profile-level-id=42c016"),
            format!("sprop-parameter-sets=!!!,AAAAAWjLg8sg,AAAA,{sps}"),
            "sprop-parameter-sets=AAAAAWdCwBbZAKAv+XARAAADAAEAAAMAHg8WLkgAAAABaMuDyyA=".to_owned(),
        ] {
            assert_eq!(params_from_fmtp(&fmtp), Some(params.clone()), "{fmtp}");
        }
        for fmtp in ["", "packetization-mode=1", "sprop-parameter-sets=", "sprop-parameter-sets=aMuDyyA="] {
            assert_eq!(params_from_fmtp(fmtp), None, "{fmtp}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut sps = vec![0x67, 100, 0, 31];
            sps.extend_from_slice(&bytes);
            let _ = (parse_sps(&bytes), parse_sps(&sps), slice_header(&bytes), profile_level_id(&bytes));
        }

        #[test]
        fn damaged_sets_are_survived(which in 0usize..5, at in 1usize..20, value: u8) {
            let mut sps = nal([HIGH_720P, MAIN_NO_B, BASELINE, INTERLACED_HRD, HIGH_444_MATRIX][which]);
            sps[at] = value;
            if let Some(info) = parse_sps(&sps) {
                prop_assert!(info.width <= 65_536 && info.height <= 131_072);
            }
        }
    }
}
