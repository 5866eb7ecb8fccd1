//! Tests of [`super`].

use super::*;
use crate::media::mp4::init_segment;
use mp4_atom::{Decode, Encode, Ftyp, Moov};
use std::sync::Arc;

fn track(codec: Codec, clock_rate: u32, channels: u8, params: Params) -> Track {
    Track { codec, clock_rate, channels, params }
}

fn hex(text: &str) -> Arc<[u8]> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// High, level 3.1, 1280x720.
fn h264() -> Track {
    let sps = hex("6764001facd9405005bb011000000300100000030320f1831960");
    track(Codec::H264, 90_000, 0, Params::H264 { sps, pps: hex("68ebe3cb22c0") })
}

/// Main, level 4, 1920x1080.
fn h265() -> Track {
    let vps = hex("40010c01ffff01600000030090000003000003005d959809");
    let sps = hex("420101016000000300900000030000030078a003c08010e596566924caf0168080000003008000000c84");
    track(Codec::H265, 90_000, 0, Params::H265 { vps, sps, pps: hex("4401c172b46240") })
}

#[test]
fn video_codecs_are_told_from_the_parameter_sets() {
    assert_eq!(Media::of(&h264()).unwrap().codecs, "avc1.64001f");
    assert_eq!(Media::of(&h265()).unwrap().codecs, "hvc1.1.6.L120.90");
    assert_eq!(Media::of(&track(Codec::H264, 90_000, 0, Params::None)), None);
}

#[test]
fn hevc_strings_drop_only_trailing_zero_constraints() {
    let mut hvcc = Hvcc::new();
    hvcc.general_profile_idc = 2;
    hvcc.general_tier_flag = true;
    hvcc.general_profile_compatibility_flags = [0x20, 0, 0, 0];
    hvcc.general_level_idc = 153;
    assert_eq!(hevc_codecs(&hvcc), "hvc1.2.4.H153");
    hvcc.general_constraint_indicator_flags = [0xb0, 0, 0x23, 0, 0, 0];
    assert_eq!(hevc_codecs(&hvcc), "hvc1.2.4.H153.B0.0.23");
}

#[test]
fn init_segments_are_read_back_by_another_reader() {
    let aac_config = Params::Aac { config: hex("1190") };
    let audio = [
        track(Codec::Aac, 48_000, 2, aac_config),
        track(Codec::Aac, 16_000, 1, Params::None),
        track(Codec::Opus, 48_000, 2, Params::None),
        track(Codec::Pcma, 8_000, 1, Params::None),
        track(Codec::Pcmu, 16_000, 1, Params::None),
    ];
    for video in [h264(), h265()] {
        for audio in &audio {
            let (video, audio) = (Media::of(&video).unwrap(), Media::of(audio).unwrap());
            let init = init_segment(&[&video, &audio]).unwrap();
            let mut bytes = &init[..];
            Ftyp::decode(&mut bytes).unwrap();
            let moov = Moov::decode(&mut bytes).unwrap();
            assert!(bytes.is_empty());
            for (trak, media) in moov.trak.iter().zip([&video, &audio]) {
                assert_eq!(trak.mdia.mdhd.timescale, media.timescale);
            }
            let mut again = Vec::new();
            moov.encode(&mut again).unwrap();
            assert!(init.ends_with(&again));
            assert_eq!(moov.mvex.unwrap().trex.len(), 2);
        }
    }
}

#[test]
fn audio_without_a_configuration_is_taken_for_aac_lc() {
    let media = Media::of(&track(Codec::Aac, 16_000, 1, Params::None)).unwrap();
    assert_eq!((media.codecs.as_str(), media.timescale, media.frame_length), ("mp4a.40.2", 16_000, 1024));
}
