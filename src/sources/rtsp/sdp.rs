//! Session descriptions (RFC 8866) as cameras write them. Total and lenient: what can't be read is left out.

use crate::media::{Codec, Kind, Params, Track, aac, h264, h265};
use std::sync::Arc;

/// Most media sections that are read.
const MAX_MEDIAS: usize = 64;
/// Most payload formats that are read of one section.
const MAX_FORMATS: usize = 32;

/// A session description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sdp {
    /// `a=control` of the session.
    pub control: Option<String>,
    /// `a=tool` of the session: the server's software.
    pub tool: Option<String>,
    /// The media sections.
    pub medias: Vec<Media>,
}

/// A media section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// `video`, `audio`, `application` …
    pub kind: String,
    /// `a=control` of the section.
    pub control: Option<String>,
    /// The camera listens there instead of speaking: the ONVIF back channel has `a=sendonly`, from the client's side.
    pub is_backchannel: bool,
    /// The payload formats, preferred first.
    pub formats: Vec<Format>,
}

/// A payload format of a section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Format {
    /// RTP payload type.
    pub payload_type: u8,
    /// `a=rtpmap`'s encoding name, or that of the static payload type; empty if neither is known.
    pub encoding: String,
    /// RTP clock in Hz; 0 if not given.
    pub clock_rate: u32,
    /// Audio channels; 0 if not given.
    pub channels: u8,
    /// `a=fmtp`'s parameters.
    pub fmtp: String,
}

impl Sdp {
    /// Reads a description.
    pub fn parse(bytes: &[u8]) -> Sdp {
        let text = String::from_utf8_lossy(bytes);
        let mut sdp = Sdp::default();
        for line in text.split(['\n', '\r']) {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            match key {
                "m" if sdp.medias.len() == MAX_MEDIAS => break,
                "m" => sdp.medias.push(Media::from_line(value)),
                "a" => match sdp.medias.last_mut() {
                    Some(media) => media.attribute(value),
                    None => match value.split_once(':') {
                        Some(("control", v)) => sdp.control = Some(v.trim().to_owned()),
                        Some(("tool", v)) => sdp.tool = Some(v.trim().to_owned()),
                        _ => {}
                    },
                },
                _ => {}
            }
        }
        // Some servers mean themselves by `sendonly`, as in an offer (RFC 3264): then they say it everywhere.
        if sdp.medias.iter().all(|m| m.is_backchannel) {
            sdp.medias.iter_mut().for_each(|m| m.is_backchannel = false);
        }
        sdp
    }

    /// What is offered, in words: `video H264, audio PCMA`.
    pub fn offer(&self) -> String {
        let medias: Vec<String> = self.medias.iter().take(8).map(Media::describe).collect();
        if medias.is_empty() { "nothing".to_owned() } else { medias.join(", ") }
    }
}

impl Media {
    /// Reads `video 0 RTP/AVP 96 97`.
    fn from_line(line: &str) -> Media {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next().unwrap_or_default().to_ascii_lowercase();
        let is_rtp = words.nth(1).is_some_and(|proto| proto.to_ascii_uppercase().contains("RTP"));
        // A format that is no number (TP-LINK has `smart/1/90000`) is left out.
        let formats = words
            .take(MAX_FORMATS)
            .filter_map(|w| w.parse().ok())
            .filter(|pt| is_rtp && *pt < 128)
            .map(Format::of_static_type)
            .collect();
        Media { kind, formats, ..Media::default() }
    }

    fn attribute(&mut self, attribute: &str) {
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        let value = value.trim();
        match name {
            "control" if !value.is_empty() => self.control = Some(value.to_owned()),
            "sendonly" => self.is_backchannel = true,
            "rtpmap" => {
                if let Some((format, map)) = self.format_and_rest(value) {
                    let mut parts = map.split('/');
                    format.encoding = parts.next().unwrap_or_default().trim().to_owned();
                    format.clock_rate = parts.next().and_then(|r| r.trim().parse().ok()).unwrap_or(0);
                    format.channels = parts.next().and_then(|c| c.trim().parse().ok()).unwrap_or(0);
                }
            }
            "fmtp" => {
                if let Some((format, parameters)) = self.format_and_rest(value) {
                    format.fmtp = parameters.to_owned();
                }
            }
            _ => {}
        }
    }

    /// Splits `96 H264/90000` and finds the format. A section with one format takes any number for it: some cameras
    /// write another one in `a=rtpmap` than in `m=`.
    fn format_and_rest<'v>(&mut self, value: &'v str) -> Option<(&mut Format, &'v str)> {
        let (payload_type, rest) = value.split_once(|c: char| c.is_ascii_whitespace())?;
        let payload_type: u8 = payload_type.parse().ok()?;
        let index = match self.formats.iter().position(|f| f.payload_type == payload_type) {
            Some(index) => index,
            None if self.formats.len() == 1 => 0,
            None => return None,
        };
        Some((self.formats.get_mut(index)?, rest.trim()))
    }

    fn describe(&self) -> String {
        let mut names: Vec<&str> = self.formats.iter().take(4).map(|f| f.encoding.as_str()).collect();
        names.retain(|n| !n.is_empty());
        let kind: String = self.kind.chars().take(20).collect();
        let name: String = names.join("/").chars().take(40).collect();
        if name.is_empty() { kind } else { format!("{kind} {name}") }
    }

    /// The first format that Streamgate can carry, with its payload type.
    pub fn track(&self) -> Option<(u8, Track)> {
        if self.is_backchannel {
            return None;
        }
        self.formats.iter().find_map(|f| Some((f.payload_type, f.track(&self.kind)?)))
    }
}

impl Format {
    /// RFC 3551 §6: what the payload types below 96 mean without `a=rtpmap`.
    fn of_static_type(payload_type: u8) -> Format {
        let (encoding, clock_rate, channels) = match payload_type {
            0 => ("PCMU", 8000, 1),
            3 => ("GSM", 8000, 1),
            4 => ("G723", 8000, 1),
            8 => ("PCMA", 8000, 1),
            9 => ("G722", 8000, 1),
            10 => ("L16", 44100, 2),
            11 => ("L16", 44100, 1),
            14 => ("MPA", 90000, 0),
            26 => ("JPEG", 90000, 0),
            32 => ("MPV", 90000, 0),
            33 => ("MP2T", 90000, 0),
            34 => ("H263", 90000, 0),
            _ => ("", 0, 0),
        };
        Format { payload_type, encoding: encoding.to_owned(), clock_rate, channels, fmtp: String::new() }
    }

    /// The value of a parameter in `a=fmtp`; names are case-insensitive.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.split(';').find_map(|p| {
            let (key, value) = p.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn track(&self, kind: &str) -> Option<Track> {
        let codec = Codec::from_rtpmap(&self.encoding)?;
        if codec.kind().as_str() != kind {
            return None;
        }
        let channels = match codec {
            _ if codec.kind() == Kind::Video => 0,
            Codec::Opus => 2,
            _ => self.channels.clamp(1, 8),
        };
        let clock_rate = match (codec, self.clock_rate) {
            (Codec::H264 | Codec::H265 | Codec::Jpeg, _) => 90_000,
            (Codec::Opus, _) => 48_000,
            (Codec::Aac, 0) => return None,
            (_, 0) => 8000,
            (_, rate) => rate,
        };
        let params = match codec {
            Codec::H264 => h264::params_from_fmtp(&self.fmtp).unwrap_or_default(),
            Codec::H265 => h265::params_from_fmtp(&self.fmtp).unwrap_or_default(),
            Codec::Aac => self.aac_params(clock_rate, channels)?,
            _ => Params::None,
        };
        Some(Track { codec, clock_rate, channels, params })
    }

    /// RFC 3640 §4.1. Only `AAC-hbr` with its usual field sizes is taken. Without `config`, AAC-LC is assumed.
    fn aac_params(&self, clock_rate: u32, channels: u8) -> Option<Params> {
        if self.parameter("mode").is_some_and(|mode| !mode.eq_ignore_ascii_case("AAC-hbr")) {
            return None;
        }
        for (name, usual) in [("sizelength", "13"), ("indexlength", "3"), ("indexdeltalength", "3")] {
            if self.parameter(name).is_some_and(|v| v != usual) {
                return None;
            }
        }
        match self.parameter("config") {
            Some(_) => aac::params_from_fmtp(&self.fmtp),
            None => {
                // ISO/IEC 14496-3 §1.6.2.1: object type 2, frequency index, channels.
                const RATES: [u32; 13] =
                    [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];
                let index = u8::try_from(RATES.iter().position(|r| *r == clock_rate)?).ok()?;
                Some(Params::Aac {
                    config: Arc::from([2 << 3 | index >> 1, (index & 1) << 7 | channels.min(7) << 3]),
                })
            }
        }
    }
}

#[cfg(test)]
#[path = "sdp_tests.rs"]
mod tests;
