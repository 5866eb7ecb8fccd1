//! Session descriptions (RFC 8866) of what is served or published.

use crate::media::{Codec, Kind, Params, Track};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use std::fmt::Write;

/// The payload type for a track: the static one of RFC 3551 where there is one, else 96 for video, 97 for audio.
pub fn payload_type(track: &Track) -> u8 {
    match (track.codec, track.clock_rate, track.channels) {
        (Codec::Pcmu, 8000, 0 | 1) => 0,
        (Codec::Pcma, 8000, 0 | 1) => 8,
        (Codec::Jpeg, 90_000, _) => 26,
        _ if track.kind() == Kind::Video => 96,
        _ => 97,
    }
}

/// Describes tracks, each with its payload type and its control URL. `name` is shown by players.
pub fn describe<'t>(name: &str, tracks: impl IntoIterator<Item = (&'t Track, u8, &'t str)>) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let name = if name.trim().is_empty() { "-" } else { name.as_str() };
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns={name}\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\na=range:npt=0-\r\n"
    );
    for (track, payload_type, control) in tracks {
        let (codec, rate) = (track.codec.rtpmap_name(), track.clock_rate);
        let channels = match (track.codec, track.channels) {
            // RFC 7587 §7: always two.
            (Codec::Opus, _) => "/2".to_owned(),
            (_, 0 | 1) => String::new(),
            (_, channels) => format!("/{channels}"),
        };
        // Writing to a string can't fail.
        let _ = write!(
            sdp,
            "m={} 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {codec}/{rate}{channels}\r\n",
            track.kind()
        );
        if let Some(parameters) = format_parameters(track) {
            let _ = write!(sdp, "a=fmtp:{payload_type} {parameters}\r\n");
        }
        let _ = write!(sdp, "a=control:{control}\r\n");
    }
    sdp
}

/// What a decoder must know before the first packet: RFC 6184 §8.1, RFC 7798 §7.1, RFC 3640 §4.1.
fn format_parameters(track: &Track) -> Option<String> {
    let text = |set: &[u8]| BASE64_STANDARD.encode(set);
    match (&track.params, track.codec) {
        (Params::H264 { sps, pps }, _) => {
            let profile = hex(sps.get(1..4).unwrap_or_default());
            Some(format!(
                "packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={},{}",
                text(sps),
                text(pps)
            ))
        }
        (Params::H265 { vps, sps, pps }, _) => {
            Some(format!("sprop-vps={};sprop-sps={};sprop-pps={}", text(vps), text(sps), text(pps)))
        }
        (Params::Aac { config }, _) => Some(format!(
            "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config={}",
            hex(config)
        )),
        (Params::None, Codec::H264) => Some("packetization-mode=1".to_owned()),
        (Params::None, _) => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn track(codec: Codec, clock_rate: u32, channels: u8, params: Params) -> Track {
        Track { codec, clock_rate, channels, params }
    }

    #[test]
    fn every_codec_is_described() {
        let set = |byte: u8| Arc::from([byte, 0x64, 0, 0x1f]);
        let tracks = [
            track(Codec::H264, 90_000, 0, Params::H264 { sps: set(0x67), pps: set(0x68) }),
            track(Codec::H265, 90_000, 0, Params::H265 { vps: set(0x40), sps: set(0x42), pps: set(0x44) }),
            track(Codec::H264, 90_000, 0, Params::None),
            track(Codec::Aac, 48_000, 2, Params::Aac { config: Arc::from([0x11, 0x90]) }),
            track(Codec::Opus, 48_000, 1, Params::None),
            track(Codec::Pcma, 8000, 1, Params::None),
            track(Codec::Pcmu, 16_000, 2, Params::None),
        ];
        let types: Vec<u8> = tracks.iter().map(payload_type).collect();
        assert_eq!(types, [96, 96, 96, 97, 97, 8, 97]);
        let sdp = describe("금곡\nIC", tracks.iter().zip(types).map(|(track, pt)| (track, pt, "trackID=0")));
        insta::assert_snapshot!(sdp.replace("\r\n", "\n"), @r"
        v=0
        o=- 1 1 IN IP4 0.0.0.0
        s=금곡 IC
        c=IN IP4 0.0.0.0
        t=0 0
        a=control:*
        a=range:npt=0-
        m=video 0 RTP/AVP 96
        a=rtpmap:96 H264/90000
        a=fmtp:96 packetization-mode=1;profile-level-id=64001f;sprop-parameter-sets=Z2QAHw==,aGQAHw==
        a=control:trackID=0
        m=video 0 RTP/AVP 96
        a=rtpmap:96 H265/90000
        a=fmtp:96 sprop-vps=QGQAHw==;sprop-sps=QmQAHw==;sprop-pps=RGQAHw==
        a=control:trackID=0
        m=video 0 RTP/AVP 96
        a=rtpmap:96 H264/90000
        a=fmtp:96 packetization-mode=1
        a=control:trackID=0
        m=audio 0 RTP/AVP 97
        a=rtpmap:97 MPEG4-GENERIC/48000/2
        a=fmtp:97 streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190
        a=control:trackID=0
        m=audio 0 RTP/AVP 97
        a=rtpmap:97 opus/48000/2
        a=control:trackID=0
        m=audio 0 RTP/AVP 8
        a=rtpmap:8 PCMA/8000
        a=control:trackID=0
        m=audio 0 RTP/AVP 97
        a=rtpmap:97 PCMU/16000/2
        a=control:trackID=0
        ");
    }
}
