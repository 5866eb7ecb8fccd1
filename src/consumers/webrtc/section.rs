//! The lines of an SDP (RFC 8866), section by section, for [`super::offer`].

use super::offer::{MAX_MEDIA, Media, Payload};
use crate::media::{Codec, Kind};
use str0m::crypto::Fingerprint;

/// `a=rtpmap` or `a=fmtp` lines at most that are kept of an m-line.
const MAX_PAYLOADS: usize = 128;

/// `a=` values that may stand in the session part or in an m-line's.
#[derive(Default, Clone)]
pub(super) struct Transport {
    pub(super) ufrag: Option<String>,
    pub(super) password: Option<String>,
    pub(super) fingerprint: Option<Fingerprint>,
    pub(super) setup: Option<String>,
}

#[derive(Default)]
pub(super) struct Section {
    pub(super) transport: Transport,
    pub(super) port_zero: bool,
    bundle_only: bool,
    direction: Option<Direction>,
    rtpmaps: Vec<(u8, String)>,
    fmtps: Vec<(u8, String)>,
    pub(super) mid: Option<String>,
    mid_extension: Option<u8>,
    reduced_size: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Receives,
    Other,
}

pub(super) fn media_line(value: &str) -> Option<(String, u32, String, String)> {
    let mut words = value.splitn(4, ' ');
    let (name, port, protocol) = (words.next()?, words.next()?, words.next()?);
    let port = port.split('/').next()?.parse().ok()?;
    let formats = words.next()?.trim();
    (!name.is_empty() && !formats.is_empty()).then(|| (name.into(), port, protocol.into(), formats.into()))
}

pub(super) fn bundle_group(value: &str) -> Option<Vec<String>> {
    let mut words = value.split_ascii_whitespace();
    (words.next() == Some("BUNDLE")).then(|| words.map(str::to_owned).take(MAX_MEDIA).collect())
}

pub(super) fn direction(name: &str) -> Option<Direction> {
    match name {
        "recvonly" | "sendrecv" => Some(Direction::Receives),
        "sendonly" | "inactive" => Some(Direction::Other),
        _ => None,
    }
}

/// The transport of the whole bundle is that of its first m-line, completed from the session part.
pub(super) fn transport(session: &Transport, sections: &[Section], group: Option<&[String]>) -> Transport {
    let first = group.and_then(|mids| mids.first());
    let tagged = sections.iter().find(|section| section.mid.as_ref() == first && first.is_some());
    let own = tagged.or_else(|| sections.iter().find(|section| !section.port_zero)).map(|s| &s.transport);
    let own = own.cloned().unwrap_or_default();
    Transport {
        ufrag: own.ufrag.or_else(|| session.ufrag.clone()),
        password: own.password.or_else(|| session.password.clone()),
        fingerprint: own.fingerprint.or_else(|| session.fingerprint.clone()),
        setup: own.setup.or_else(|| session.setup.clone()),
    }
}

/// RFC 8839 §5.4: ice-char, 4 to 256 and 22 to 256 of them.
pub fn check_credentials(ufrag: &str, password: &str) -> Result<(), String> {
    let fits = |text: &str, least| {
        (least..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
    };
    match (fits(ufrag, 4), fits(password, 22)) {
        (true, true) => Ok(()),
        (false, _) => Err("a=ice-ufrag is not 4 to 256 ICE characters".into()),
        _ => Err("a=ice-pwd is not 22 to 256 ICE characters".into()),
    }
}

/// A stranger's word, fit for a message.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

impl Transport {
    pub(super) fn attribute(&mut self, name: &str, value: &str) {
        match name {
            "ice-ufrag" => self.ufrag = Some(value.to_owned()),
            "ice-pwd" => self.password = Some(value.to_owned()),
            "setup" => self.setup = Some(value.to_owned()),
            "fingerprint" => {
                // The best of several: sha-256 before sha-1, others are not known here.
                let better = |new: &Fingerprint, old: &Fingerprint| new.hash_func > old.hash_func;
                if let Some(new) = fingerprint(value)
                    && self.fingerprint.as_ref().is_none_or(|old| better(&new, old))
                {
                    self.fingerprint = Some(new);
                }
            }
            _ => {}
        }
    }
}

fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (function, digest) = value.trim().split_once(' ')?;
    let hash_func = function.to_ascii_lowercase();
    let length = match hash_func.as_str() {
        "sha-256" => 32,
        "sha-1" => 20,
        _ => return None,
    };
    let bytes: Option<Vec<u8>> =
        digest.trim().split(':').take(length + 1).map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.filter(|bytes| bytes.len() == length).map(|bytes| Fingerprint { hash_func, bytes })
}

impl Section {
    /// An m-line with that port.
    pub(super) fn new(port: u32) -> Section {
        Section { port_zero: port == 0, ..Section::default() }
    }

    pub(super) fn attribute(&mut self, name: &str, value: &str) {
        match name {
            "mid" => self.mid = Some(value.trim().to_owned()).filter(|mid| is_token(mid)),
            "bundle-only" => self.bundle_only = true,
            "rtcp-rsize" => self.reduced_size = true,
            "rtpmap" if self.rtpmaps.len() < MAX_PAYLOADS => self.rtpmaps.extend(numbered(value)),
            "fmtp" if self.fmtps.len() < MAX_PAYLOADS => self.fmtps.extend(numbered(value)),
            "extmap" => {
                let mut words = value.split_ascii_whitespace();
                let id = words.next().and_then(|id| id.split('/').next()?.parse().ok());
                // One-byte header extensions (RFC 8285 §4.2) have ids from 1 to 14.
                if words.next() == Some("urn:ietf:params:rtp-hdrext:sdes:mid") {
                    self.mid_extension = id.filter(|id| (1..=14).contains(id));
                }
            }
            _ => {
                self.direction = self.direction.or(direction(name));
                self.transport.attribute(name, value);
            }
        }
    }

    pub(super) fn finish(
        self,
        (name, protocol, formats): (String, String, String),
        session_direction: Option<Direction>,
        group: Option<&[String]>,
    ) -> Media {
        let kind = match name.as_str() {
            "video" => Some(Kind::Video),
            "audio" => Some(Kind::Audio),
            _ => None,
        };
        let direction = self.direction.or(session_direction).unwrap_or(Direction::Receives);
        let in_group = group.is_none_or(|mids| self.mid.as_ref().is_some_and(|mid| mids.contains(mid)));
        let served = direction == Direction::Receives
            && protocol.contains("RTP/SAVP")
            && in_group
            && (!self.port_zero || self.bundle_only);
        let receives = kind.filter(|_| served);
        let (payloads, encodings) =
            receives.map_or_else(Default::default, |kind| self.payloads(kind, &formats));
        Media {
            name,
            protocol,
            formats,
            receives,
            payloads,
            encodings,
            // str0m's mids are 16 letters or digits; a longer one is answered but not sent with packets.
            reduced_size: self.reduced_size,
            mid_extension: self.mid_extension.filter(|_| self.mid.as_deref().is_some_and(fits_str0m)),
            mid: self.mid,
        }
    }

    fn payloads(&self, kind: Kind, formats: &str) -> (Vec<Payload>, Vec<String>) {
        let fmtp = |number| self.fmtps.iter().find(|(n, _)| *n == number).map(|(_, text)| text.clone());
        let rtx_of = |number: u8| {
            let apt = format!("apt={number}");
            self.rtpmaps
                .iter()
                .filter(|(rtx, map)| is_payload_type(*rtx) && map.to_ascii_lowercase().starts_with("rtx/"))
                .find(|(rtx, _)| {
                    fmtp(*rtx).is_some_and(|text| text.split(';').any(|pair| pair.trim() == apt))
                })
                .map(|(rtx, _)| *rtx)
        };
        let mut payloads: Vec<Payload> = Vec::new();
        let mut encodings: Vec<String> = Vec::new();
        for number in formats.split_ascii_whitespace().filter_map(|format| format.parse::<u8>().ok()) {
            let mapped = self.rtpmaps.iter().find(|(n, _)| *n == number).map(|(_, map)| map.as_str());
            // RFC 3551 §6: the static payload types need no rtpmap.
            let Some(map) = mapped.or(match number {
                0 => Some("PCMU/8000"),
                8 => Some("PCMA/8000"),
                _ => None,
            }) else {
                continue;
            };
            let encoding = map.split('/').next().unwrap_or_default();
            let helper = ["rtx", "red", "ulpfec", "flexfec-03", "CN", "telephone-event"];
            let known = encodings.iter().any(|name| name.eq_ignore_ascii_case(encoding));
            if !known && !helper.iter().any(|helper| helper.eq_ignore_ascii_case(encoding)) {
                encodings.push(printable(encoding));
            }
            let Some(codec) = Codec::from_rtpmap(encoding).filter(|codec| codec.kind() == kind) else {
                continue;
            };
            let rtpmap = canonical_rtpmap(codec, map);
            let duplicate = payloads.iter().any(|payload| payload.number == number);
            if let Some(rtpmap) = rtpmap.filter(|_| is_payload_type(number) && !duplicate) {
                let rtx = rtx_of(number).filter(|_| kind == Kind::Video);
                let payload = Payload { number, codec, rtpmap, fmtp: fmtp(number), rtx };
                if is_sendable(&payload) {
                    payloads.push(payload);
                }
            }
        }
        (payloads, encodings)
    }
}

/// Our rtpmap for a codec if the offered one has its clock and channels.
fn canonical_rtpmap(codec: Codec, map: &str) -> Option<String> {
    let expected = match codec {
        Codec::H264 => "H264/90000",
        Codec::H265 => "H265/90000",
        Codec::Opus => "opus/48000/2",
        Codec::Pcma => "PCMA/8000",
        Codec::Pcmu => "PCMU/8000",
        Codec::Aac | Codec::Jpeg => return None,
    };
    let map = map.strip_suffix("/1").unwrap_or(map);
    let same = map.eq_ignore_ascii_case(expected)
        || (codec == Codec::H265 && map.eq_ignore_ascii_case("HEVC/90000"));
    same.then(|| expected.to_owned())
}

/// What we send of H.264 has fragmented units: that is packetization mode 1 (RFC 6184 §5.4). Who names no mode means 0 by
/// the letter, but is in practice a receiver that takes everything (GStreamer's): it is served if it offers nothing better.
fn is_sendable(payload: &Payload) -> bool {
    let printable =
        payload.fmtp.as_deref().is_none_or(|text| text.bytes().all(|b| (0x20..0x7f).contains(&b)));
    let mode = payload.codec != Codec::H264
        || (payload.parameter("packetization-mode").is_none_or(|mode| mode == "1")
            && payload.h264_profile().is_some());
    // RFC 7798 §7.1: only the single-stream transmission mode exists in browsers.
    let single =
        payload.codec != Codec::H265 || payload.parameter("tx-mode").is_none_or(|mode| mode == "SRST");
    printable && mode && single
}

/// RTP payload types that can't be mistaken for RTCP (RFC 5761 §4).
fn is_payload_type(number: u8) -> bool {
    number < 64 || (96..128).contains(&number)
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Whether str0m can carry a mid as it is.
pub fn fits_str0m(mid: &str) -> bool {
    (1..=16).contains(&mid.len()) && mid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `96 H264/90000` as number and text.
fn numbered(value: &str) -> Option<(u8, String)> {
    let (number, text) = value.split_once(' ')?;
    Some((number.parse().ok()?, text.trim().to_owned()))
}
