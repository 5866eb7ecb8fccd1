//! What an SDP offer (RFC 8866, RFC 8829) asks for, as far as it matters for sending to a viewer.
//!
//! str0m has an SDP reader of its own, but it asserts on contradictory payload types, so what strangers send is read
//! here, totally, and str0m is given only what has passed.

use super::section::{
    Section, Transport, bundle_group, check_credentials, direction, media_line, printable, transport,
};
use crate::graph::Wants;
use crate::media::{Codec, Kind};
use str0m::crypto::Fingerprint;

/// Longest offer that is read.
pub const MAX_OFFER_BYTES: usize = 64 << 10;
pub(super) const MAX_MEDIA: usize = 64;

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
    /// RTCP may come in single packets (RFC 5506).
    pub reduced_size: bool,
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
    pub(super) fn h264_profile(&self) -> Option<[u8; 2]> {
        let Some(text) = self.parameter("profile-level-id") else { return Some([0x42, 0]) };
        let id = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 6)?;
        let [_, profile, constraints, _] = id.to_be_bytes();
        Some([profile, constraints])
    }
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
                    sections.push(Section::new(port));
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
                Codec::H264 => of_codec.min_by_key(|payload| {
                    let names_mode = payload.parameter("packetization-mode").is_some();
                    (!names_mode, h264_distance(payload.h264_profile(), h264_profile))
                }),
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

#[cfg(test)]
#[path = "offer_tests.rs"]
mod tests;
