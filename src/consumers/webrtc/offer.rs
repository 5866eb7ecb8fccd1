//! What an SDP offer (RFC 8866, RFC 8829) asks for, as far as it matters for sending to a viewer.
//!
//! str0m has an SDP reader of its own, but it asserts on contradictory payload types, so what strangers send is read
//! here, totally, and str0m is given only what has passed.

use crate::graph::Wants;
use crate::media::{Codec, Kind};
use str0m::crypto::Fingerprint;

/// Longest offer that is read.
pub const MAX_OFFER_BYTES: usize = 64 << 10;
const MAX_MEDIA: usize = 64;
const MAX_PAYLOADS: usize = 128;

/// A parsed offer.
#[derive(Debug)]
pub struct Offer {
    /// The viewer's ICE username fragment.
    pub ufrag: String,
    /// The viewer's ICE password.
    pub password: String,
    /// Of the viewer's DTLS certificate (RFC 8122).
    pub fingerprint: Fingerprint,
    /// The viewer wants to be the DTLS server: we are the client then (`a=setup:passive`).
    pub we_are_dtls_client: bool,
    /// There is a BUNDLE group that the answer must repeat.
    pub bundled: bool,
    /// All m-lines, in order.
    pub media: Vec<Media>,
    /// Index of the m-line that video is sent on.
    pub video: Option<usize>,
    /// Index of the m-line that audio is sent on.
    pub audio: Option<usize>,
}

/// One m-line.
#[derive(Debug)]
pub struct Media {
    /// The media type as written: `audio`, `video`, `application` …
    pub name: String,
    /// The transport as written, e.g. `UDP/TLS/RTP/SAVPF`.
    pub protocol: String,
    /// The formats as written.
    pub formats: String,
    /// `a=mid`.
    pub mid: Option<String>,
    /// Audio or video that the viewer wants to receive, on a transport we can serve.
    pub receives: Option<Kind>,
    /// The payload types that we have a codec for.
    pub payloads: Vec<Payload>,
    /// All encoding names, for messages.
    pub encodings: Vec<String>,
    /// Id of the header extension `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 8843 §15).
    pub mid_extension: Option<u8>,
}

/// A payload type that we have a codec for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The RTP payload type.
    pub number: u8,
    /// What it carries.
    pub codec: Codec,
    /// The `a=rtpmap` value, as answered.
    pub rtpmap: String,
    /// The format parameters as offered.
    pub fmtp: Option<String>,
    /// The payload type of its retransmissions (RFC 4588).
    pub rtx: Option<u8>,
}

impl Payload {
    /// One of the format parameters.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.as_deref()?.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// H.264: profile_idc and constraint flags of `profile-level-id`; the default is Baseline (RFC 6184 §8.1).
    fn h264_profile(&self) -> Option<[u8; 2]> {
        let Some(text) = self.parameter("profile-level-id") else { return Some([0x42, 0]) };
        let id = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 6)?;
        let [_, profile, constraints, _] = id.to_be_bytes();
        Some([profile, constraints])
    }
}

/// `a=` values that may stand in the session part or in an m-line's.
#[derive(Default, Clone)]
struct Transport {
    ufrag: Option<String>,
    password: Option<String>,
    fingerprint: Option<Fingerprint>,
    setup: Option<String>,
}

#[derive(Default)]
struct Section {
    transport: Transport,
    port_zero: bool,
    bundle_only: bool,
    direction: Option<Direction>,
    rtpmaps: Vec<(u8, String)>,
    fmtps: Vec<(u8, String)>,
    mid: Option<String>,
    mid_extension: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Receives,
    Other,
}

impl Offer {
    /// Reads an offer. The error says what is wrong with it.
    pub fn parse(sdp: &str) -> Result<Offer, String> {
        if sdp.len() > MAX_OFFER_BYTES {
            return Err(format!("it is longer than {} KiB", MAX_OFFER_BYTES >> 10));
        }
        let mut session = Transport::default();
        let mut session_direction = None;
        let mut group: Option<Vec<String>> = None;
        let mut lines: Vec<(String, String, String)> = Vec::new();
        let mut sections: Vec<Section> = Vec::new();
        for (number, line) in sdp.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let (kind, value) = line
                .split_once('=')
                .filter(|(kind, _)| kind.len() == 1)
                .ok_or_else(|| format!("line {} is no SDP line (x=…)", number + 1))?;
            if number == 0 && kind != "v" {
                return Err("it does not begin with v=0".into());
            }
            match kind {
                "m" if sections.len() >= MAX_MEDIA => return Err(format!("more than {MAX_MEDIA} m-lines")),
                "m" => {
                    let (name, port, protocol, formats) =
                        media_line(value).ok_or_else(|| format!("line {}: broken m-line", number + 1))?;
                    sections.push(Section { port_zero: port == 0, ..Section::default() });
                    lines.push((name, protocol, formats));
                }
                "a" => {
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    match sections.last_mut() {
                        Some(section) => section.attribute(name, value),
                        None => match name {
                            "group" if group.is_none() => group = bundle_group(value),
                            "ice-lite" => return Err("the viewer is ICE-lite, and so is this server".into()),
                            _ => {
                                session_direction = session_direction.or(direction(name));
                                session.attribute(name, value);
                            }
                        },
                    }
                }
                _ => {}
            }
        }
        if sections.is_empty() {
            return Err("it has no m-line".into());
        }
        let mids: Vec<&str> = sections.iter().filter_map(|section| section.mid.as_deref()).collect();
        if (1..mids.len()).any(|i| mids[..i].contains(&mids[i])) {
            return Err("two m-lines have the same a=mid".into());
        }
        let transport = transport(&session, &sections, group.as_deref());
        let media = lines
            .into_iter()
            .zip(sections)
            .map(|(line, section)| section.finish(line, session_direction, group.as_deref()))
            .collect();
        let mut offer = Offer::with_transport(transport, media, group.is_some())?;
        offer.assign();
        offer.check_payload_numbers()?;
        Ok(offer)
    }

    fn with_transport(transport: Transport, media: Vec<Media>, bundled: bool) -> Result<Offer, String> {
        let (Some(ufrag), Some(password)) = (transport.ufrag, transport.password) else {
            return Err("a=ice-ufrag or a=ice-pwd is missing".into());
        };
        check_credentials(&ufrag, &password)?;
        let fingerprint =
            transport.fingerprint.ok_or("a=fingerprint is missing, or is neither sha-256 nor sha-1")?;
        let we_are_dtls_client = match transport.setup.as_deref() {
            None | Some("actpass" | "active") => false,
            Some("passive") => true,
            Some(other) => return Err(format!("a=setup:{} can't be answered", printable(other))),
        };
        Ok(Offer {
            ufrag,
            password,
            fingerprint,
            we_are_dtls_client,
            bundled,
            media,
            video: None,
            audio: None,
        })
    }

    /// Chooses the m-line for each kind: the first that receives it, one with a usable codec preferred.
    fn assign(&mut self) {
        let find = |kind| {
            let receiving = || self.media.iter().enumerate().filter(move |(_, m)| m.receives == Some(kind));
            receiving().find(|(_, m)| !m.payloads.is_empty()).or_else(|| receiving().next()).map(|(i, _)| i)
        };
        (self.video, self.audio) = (find(Kind::Video), find(Kind::Audio));
        // Without BUNDLE each m-line would need a transport of its own; only one is served.
        if !self.bundled && self.video.is_some() && self.audio.is_some() {
            self.audio = None;
        }
    }

    /// In a BUNDLE group a payload type has one meaning (RFC 8843 §9.1).
    fn check_payload_numbers(&self) -> Result<(), String> {
        let mut seen = [false; 128];
        for media in [self.video, self.audio].into_iter().flatten().filter_map(|index| self.media.get(index))
        {
            for payload in &media.payloads {
                for number in [Some(payload.number), payload.rtx].into_iter().flatten() {
                    match seen.get_mut(usize::from(number)) {
                        Some(seen) if !*seen => *seen = true,
                        _ => return Err(format!("payload type {number} has two meanings")),
                    }
                }
            }
        }
        Ok(())
    }

    /// The m-line that a kind is sent on.
    pub fn line(&self, kind: Kind) -> Option<&Media> {
        let index = match kind {
            Kind::Video => self.video,
            Kind::Audio => self.audio,
        };
        self.media.get(index?)
    }

    /// The codecs that the viewer can use.
    pub fn wants(&self) -> Wants {
        let codecs = |kind| {
            let mut codecs: Vec<Codec> = Vec::new();
            for payload in self.line(kind).map_or(&[][..], |media| &media.payloads) {
                if !codecs.contains(&payload.codec) {
                    codecs.push(payload.codec);
                }
            }
            codecs
        };
        Wants { video: codecs(Kind::Video), audio: codecs(Kind::Audio) }
    }

    /// What the viewer can receive of a kind, for messages: `VP8, VP9, AV1`.
    pub fn encodings(&self, kind: Kind) -> String {
        match self.line(kind) {
            Some(media) if !media.encodings.is_empty() => media.encodings.join(", "),
            _ => format!("no {kind}"),
        }
    }

    /// The payload types to send a kind with, one for each codec, that of `present` first.
    /// `h264_profile` is profile_idc and constraint flags of the stream, where known.
    pub fn choose(&self, kind: Kind, present: Option<Codec>, h264_profile: Option<[u8; 2]>) -> Vec<Payload> {
        let Some(media) = self.line(kind) else { return Vec::new() };
        let mut codecs = self.wants().of(kind).to_vec();
        codecs.sort_by_key(|codec| Some(*codec) != present);
        let best = |codec: Codec| {
            let of_codec = media.payloads.iter().filter(move |payload| payload.codec == codec);
            match codec {
                Codec::H264 => {
                    of_codec.min_by_key(|payload| h264_distance(payload.h264_profile(), h264_profile))
                }
                _ => of_codec.min_by_key(|payload| payload.number == 0),
            }
        };
        codecs.into_iter().filter_map(best).cloned().collect()
    }
}

/// How far an offered profile is from the stream's. Browsers decode High although they do not list it; what matters
/// is that the answer names a payload type of theirs, so the nearest one is taken.
fn h264_distance(offered: Option<[u8; 2]>, stream: Option<[u8; 2]>) -> usize {
    const CONSTRAINED: u8 = 0x40;
    // Baseline, Constrained Baseline, Main, High, High 4:4:4 Predictive, others: from simple to capable.
    let rank = |[profile, constraints]: [u8; 2]| match profile {
        0x42 if constraints & CONSTRAINED == 0 => 0usize,
        0x42 => 1,
        0x4d => 2,
        0x64 => 3,
        0xf4 => 5,
        _ => 4,
    };
    let Some(offered) = offered.map(rank) else { return usize::MAX };
    let stream = stream.map_or(1, rank);
    // What is asked for at least as capable as the stream first, then the nearest below.
    if offered >= stream && offered < 4 { offered - stream } else { 10 + offered.abs_diff(stream) }
}

fn media_line(value: &str) -> Option<(String, u32, String, String)> {
    let mut words = value.splitn(4, ' ');
    let (name, port, protocol) = (words.next()?, words.next()?, words.next()?);
    let port = port.split('/').next()?.parse().ok()?;
    let formats = words.next()?.trim();
    (!name.is_empty() && !formats.is_empty()).then(|| (name.into(), port, protocol.into(), formats.into()))
}

fn bundle_group(value: &str) -> Option<Vec<String>> {
    let mut words = value.split_ascii_whitespace();
    (words.next() == Some("BUNDLE")).then(|| words.map(str::to_owned).take(MAX_MEDIA).collect())
}

fn direction(name: &str) -> Option<Direction> {
    match name {
        "recvonly" | "sendrecv" => Some(Direction::Receives),
        "sendonly" | "inactive" => Some(Direction::Other),
        _ => None,
    }
}

/// The transport of the whole bundle is that of its first m-line, completed from the session part.
fn transport(session: &Transport, sections: &[Section], group: Option<&[String]>) -> Transport {
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
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic()).take(40).collect()
}

impl Transport {
    fn attribute(&mut self, name: &str, value: &str) {
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
    fn attribute(&mut self, name: &str, value: &str) {
        match name {
            "mid" => self.mid = Some(value.trim().to_owned()).filter(|mid| is_token(mid)),
            "bundle-only" => self.bundle_only = true,
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

    fn finish(
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
        Codec::Aac => return None,
    };
    let map = map.strip_suffix("/1").unwrap_or(map);
    let same = map.eq_ignore_ascii_case(expected)
        || (codec == Codec::H265 && map.eq_ignore_ascii_case("HEVC/90000"));
    same.then(|| expected.to_owned())
}

/// What we send of H.264 has fragmented units: that is packetization mode 1 (RFC 6184 §5.4).
fn is_sendable(payload: &Payload) -> bool {
    let printable =
        payload.fmtp.as_deref().is_none_or(|text| text.bytes().all(|b| (0x20..0x7f).contains(&b)));
    let mode = payload.codec != Codec::H264
        || (payload.parameter("packetization-mode") == Some("1") && payload.h264_profile().is_some());
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

#[cfg(test)]
#[path = "offer_tests.rs"]
mod tests;
