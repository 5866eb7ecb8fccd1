//! What a track is in MP4 and in playlists: its sample entry and its `CODECS` string (RFC 6381).

use super::flac;
use crate::media::aac::AudioSpecificConfig;
use crate::media::nal::Bits;
use crate::media::{Codec, Kind, Params, Track, h264, h265};
use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, SLConfig};
use mp4_atom::{Audio, Avc1, Avcc, AvccExt, Dops, Esds, Hvc1, HvcCArray, Hvcc, Mp4a, Opus, Visual};

/// A track as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// What the source sends.
    pub codec: Codec,
    /// Ticks a second.
    pub timescale: u32,
    /// Audio channels; 0 for video.
    pub channels: u8,
    /// Samples of an AAC access unit; 0 for the rest.
    pub frame_length: u32,
    /// Width and height in pixels; 0 for audio.
    pub size: (u16, u16),
    /// For `CODECS`: `avc1.64001f`, `hvc1.1.6.L93.B0`, `mp4a.40.2`, `opus`, `fLaC`.
    pub codecs: String,
    /// The sample entry.
    pub entry: mp4_atom::Codec,
}

impl Media {
    /// `None` where the parameter sets that the init segment needs are unknown yet or can't be read.
    pub fn of(track: &Track) -> Option<Media> {
        match track.codec {
            Codec::H264 | Codec::H265 => video(track),
            // There is none that browsers take.
            Codec::Jpeg => None,
            Codec::Aac => aac(track),
            Codec::Opus => Some(opus(track)),
            Codec::Pcma | Codec::Pcmu => Some(pcm(track)),
        }
    }

    /// Whether it is video.
    pub fn is_video(&self) -> bool {
        self.codec.kind() == Kind::Video
    }
}

fn video(track: &Track) -> Option<Media> {
    let info = track.video_info()?;
    let size = (u16::try_from(info.width).ok()?, u16::try_from(info.height).ok()?);
    let visual = Visual { data_reference_index: 1, width: size.0, height: size.1, ..Visual::default() };
    let (codecs, entry) = match &track.params {
        Params::H264 { sps, pps } => {
            let [profile, constraints, level] = h264::profile_level_id(sps)?;
            let codecs = format!("avc1.{profile:02x}{constraints:02x}{level:02x}");
            let avcc = Avcc {
                configuration_version: 1,
                avc_profile_indication: profile,
                profile_compatibility: constraints,
                avc_level_indication: level,
                length_size: 4,
                sequence_parameter_sets: vec![sps.to_vec()],
                picture_parameter_sets: vec![pps.to_vec()],
                ext: matches!(profile, 100 | 110 | 122 | 144).then(|| avc_formats(sps)).flatten(),
            };
            (codecs, Avc1 { visual, avcc, ..Avc1::default() }.into())
        }
        Params::H265 { vps, sps, pps } => {
            let hvcc = hevc_configuration(vps, sps, pps)?;
            (hevc_codecs(&hvcc), Hvc1 { visual, hvcc, ..Hvc1::default() }.into())
        }
        _ => return None,
    };
    Some(Media { codec: track.codec, timescale: 90_000, channels: 0, frame_length: 0, size, codecs, entry })
}

/// Chroma format and bit depths (ITU-T H.264 §7.3.2.1.1), which `avcC` repeats for the High profiles.
fn avc_formats(sps: &[u8]) -> Option<AvccExt> {
    let mut bits = Bits::new(sps.get(4..)?);
    bits.ue_up_to(31)?; // seq_parameter_set_id
    let chroma_format = bits.ue_up_to(3)?;
    if chroma_format == 3 {
        bits.skip(1)?;
    }
    let mut depth = || Some(8 + u8::try_from(bits.ue_up_to(6)?).ok()?);
    Some(AvccExt {
        chroma_format: u8::try_from(chroma_format).ok()?,
        bit_depth_luma: depth()?,
        bit_depth_chroma: depth()?,
        sequence_parameter_sets_ext: Vec::new(),
    })
}

/// `hvcC` (ISO/IEC 14496-15 §8.3.2) from the sequence parameter set (ITU-T H.265 §7.3.2.2.1, §7.3.3).
fn hevc_configuration(vps: &[u8], sps: &[u8], pps: &[u8]) -> Option<Hvcc> {
    let mut bits = Bits::new(sps.get(2..)?);
    bits.skip(4)?; // sps_video_parameter_set_id
    let sub_layers = bits.u(3).filter(|layers| *layers < 7)?;
    let nested = bits.bit()?;
    let byte = |bits: &mut Bits<'_>, count| Some(u8::try_from(bits.u(count)?).unwrap_or(0));
    let mut hvcc = Hvcc::new();
    hvcc.general_profile_space = byte(&mut bits, 2)?;
    hvcc.general_tier_flag = bits.bit()?;
    hvcc.general_profile_idc = byte(&mut bits, 5)?;
    hvcc.general_profile_compatibility_flags = bits.u(32)?.to_be_bytes();
    for flags in &mut hvcc.general_constraint_indicator_flags {
        *flags = byte(&mut bits, 8)?;
    }
    hvcc.general_level_idc = byte(&mut bits, 8)?;
    let mut present = Vec::new();
    for _ in 0..sub_layers {
        present.push((bits.bit()?, bits.bit()?));
    }
    if sub_layers > 0 {
        bits.skip((8 - sub_layers) * 2)?;
    }
    for (profile, level) in present {
        bits.skip(if profile { 88 } else { 0 } + if level { 8 } else { 0 })?;
    }
    bits.ue_up_to(15)?; // sps_seq_parameter_set_id
    let chroma_format = bits.ue_up_to(3)?;
    if chroma_format == 3 {
        bits.skip(1)?;
    }
    bits.ue()?; // width
    bits.ue()?; // height
    if bits.bit()? {
        for _ in 0..4 {
            bits.ue()?; // conformance window
        }
    }
    hvcc.chroma_format_idc = u8::try_from(chroma_format).ok()?;
    hvcc.bit_depth_luma_minus8 = u8::try_from(bits.ue_up_to(7)?).ok()?;
    hvcc.bit_depth_chroma_minus8 = u8::try_from(bits.ue_up_to(7)?).ok()?;
    hvcc.num_temporal_layers = u8::try_from(sub_layers + 1).ok()?;
    hvcc.temporal_id_nested = nested;
    hvcc.length_size_minus_one = 3;
    let array = |nal_unit_type, nal: &[u8]| HvcCArray {
        // Not complete: cameras repeat their sets within the stream, and those are passed on as they are.
        completeness: false,
        nal_unit_type,
        nalus: vec![nal.to_vec()],
    };
    hvcc.arrays = vec![
        array(h265::nal_type::VPS, vps),
        array(h265::nal_type::SPS, sps),
        array(h265::nal_type::PPS, pps),
    ];
    Some(hvcc)
}

/// ISO/IEC 14496-15 annex E.3: profile, compatibility flags in reverse bit order, tier and level, constraint bytes
/// without trailing zeros.
fn hevc_codecs(hvcc: &Hvcc) -> String {
    let space = ["", "A", "B", "C"].get(usize::from(hvcc.general_profile_space)).unwrap_or(&"");
    let compatible = u32::from_be_bytes(hvcc.general_profile_compatibility_flags).reverse_bits();
    let tier = if hvcc.general_tier_flag { 'H' } else { 'L' };
    let mut text =
        format!("hvc1.{space}{}.{compatible:X}.{tier}{}", hvcc.general_profile_idc, hvcc.general_level_idc);
    let flags = &hvcc.general_constraint_indicator_flags;
    let used = flags.iter().rposition(|flags| *flags != 0).map_or(0, |last| last + 1);
    for flags in flags.iter().take(used) {
        text.push_str(&format!(".{flags:X}"));
    }
    text
}

fn audio(channels: u8, rate: u32) -> Audio {
    Audio {
        data_reference_index: 1,
        channel_count: u16::from(channels.max(1)),
        sample_size: 16,
        sample_rate: u16::try_from(rate).unwrap_or(0).into(),
    }
}

fn aac(track: &Track) -> Option<Media> {
    let known = match &track.params {
        Params::Aac { config } => AudioSpecificConfig::parse(config).map(|parsed| (parsed, config.to_vec())),
        _ => None,
    };
    let (config, raw) = match known {
        Some(known) => known,
        None => {
            let config = AudioSpecificConfig::lc(track.clock_rate, track.channels.max(1));
            (config, config.to_bytes()?)
        }
    };
    let channels = if config.channels == 0 { track.channels.max(1) } else { config.channels };
    let entry = Mp4a {
        audio: audio(channels, config.sample_rate),
        esds: Esds {
            es_desc: EsDescriptor {
                es_id: 1,
                dec_config: DecoderConfig {
                    object_type_indication: 0x40,
                    stream_type: 5,
                    dec_specific: Some(DecoderSpecific { raw, ..DecoderSpecific::default() }),
                    ..DecoderConfig::default()
                },
                sl_config: SLConfig::default(),
                ..EsDescriptor::default()
            },
        },
        btrt: None,
        taic: None,
    };
    Some(Media {
        codec: Codec::Aac,
        timescale: config.sample_rate.max(1),
        channels,
        frame_length: u32::from(config.frame_length),
        size: (0, 0),
        codecs: format!("mp4a.40.{}", config.object_type),
        entry: entry.into(),
    })
}

fn opus(track: &Track) -> Media {
    let channels = track.channels.clamp(1, 2);
    let dops = Dops {
        output_channel_count: channels,
        pre_skip: 0,
        input_sample_rate: 48_000,
        output_gain: 0,
        channel_mapping: None,
    };
    let entry = Opus { audio: audio(channels, 48_000), dops, btrt: None };
    Media {
        codec: Codec::Opus,
        timescale: 48_000,
        channels,
        frame_length: 0,
        size: (0, 0),
        codecs: "opus".into(),
        entry: entry.into(),
    }
}

fn pcm(track: &Track) -> Media {
    let (rate, channels) = (track.clock_rate.clamp(1, 655_350), track.channels.clamp(1, 8));
    let entry = mp4_atom::Flac { audio: audio(channels, rate), dfla: flac::configuration(rate, channels) };
    Media {
        codec: track.codec,
        timescale: rate,
        channels,
        frame_length: 0,
        size: (0, 0),
        codecs: "fLaC".into(),
        entry: entry.into(),
    }
}

#[cfg(test)]
#[path = "codecs_tests.rs"]
mod tests;
