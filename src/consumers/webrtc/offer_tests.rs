use super::super::answer::{Answering, Sending};
use super::*;
use proptest::prelude::*;

/// What Chromium 156 offers for two recvonly transceivers and a data channel, shortened to what matters.
pub const CHROMIUM: &str = include_str!("testdata/chromium_offer.sdp");

fn chromium() -> Offer {
    Offer::parse(CHROMIUM).unwrap()
}

#[test]
fn a_chromium_offer_is_read() {
    let offer = chromium();
    assert_eq!((offer.video, offer.audio, offer.bundled), (Some(1), Some(0), true));
    assert_eq!(offer.wants().video, [Codec::H264]);
    assert_eq!(offer.wants().audio, [Codec::Opus, Codec::Pcmu, Codec::Pcma]);
    assert_eq!(offer.ufrag, "8hhY");
    assert_eq!(offer.fingerprint.bytes.len(), 32);
    assert_eq!(offer.media[1].mid_extension, Some(4));
    assert_eq!(offer.media[2].receives, None, "the data channel");
    assert!(offer.encodings(Kind::Video).starts_with("VP8, "));
}

#[test]
fn the_h264_payload_nearest_to_the_stream_is_chosen() {
    let chosen = |profile: Option<[u8; 2]>| {
        let payloads = chromium().choose(Kind::Video, Some(Codec::H264), profile);
        assert_eq!(payloads.len(), 1);
        assert_eq!(payloads[0].parameter("packetization-mode"), Some("1"));
        assert!(payloads[0].rtx.is_some());
        payloads[0].parameter("profile-level-id").unwrap().to_owned()
    };
    assert_eq!(chosen(Some([0x42, 0x00])), "42001f");
    assert_eq!(chosen(Some([0x42, 0xc0])), "42e01f");
    assert_eq!(chosen(Some([0x4d, 0x00])), "4d001f");
    assert_eq!(chosen(Some([0x64, 0x00])), "4d001f", "High is not offered; Main is nearest");
    assert_eq!(chosen(None), "42e01f");
}

#[test]
fn the_present_codec_comes_first_and_the_others_follow() {
    let offer = chromium();
    let codecs = |present| -> Vec<Codec> {
        offer.choose(Kind::Audio, Some(present), None).iter().map(|payload| payload.codec).collect()
    };
    assert_eq!(codecs(Codec::Pcma), [Codec::Pcma, Codec::Opus, Codec::Pcmu]);
    assert_eq!(codecs(Codec::Opus), [Codec::Opus, Codec::Pcmu, Codec::Pcma]);
}

#[test]
fn the_answer_fits_the_offer() {
    let offer = chromium();
    let video = offer.choose(Kind::Video, Some(Codec::H264), Some([0x64, 0]));
    let audio = offer.choose(Kind::Audio, Some(Codec::Opus), None);
    let answer = Answering {
        offer: &offer,
        video: Some(Sending { payloads: &video, active: true, ssrc: 1111, rtx_ssrc: Some(2222) }),
        audio: Some(Sending { payloads: &audio, active: false, ssrc: 3333, rtx_ssrc: None }),
        credentials: ("ourufrag", "ourpasswordourpassword"),
        fingerprint: "sha-256 00:11",
        candidates: &["candidate:1 1 udp 2130706431 192.0.2.1 1984 typ host".into()],
        id: 8,
    }
    .write();
    insta::assert_snapshot!(answer);
}

#[test]
fn a_bundle_whose_audio_is_rejected_stays_valid() {
    let offer = Offer::parse(
        &CHROMIUM.replace("opus/48000/2", "speex/16000").replace("PCMU", "G722").replace("PCMA", "CN"),
    )
    .unwrap();
    assert!(offer.wants().audio.is_empty());
    let video = offer.choose(Kind::Video, None, None);
    let sdp = Answering {
        offer: &offer,
        video: Some(Sending { payloads: &video, active: true, ssrc: 1, rtx_ssrc: None }),
        audio: None,
        credentials: ("ufrag", "password"),
        fingerprint: "sha-256 00",
        candidates: &["candidate:1".into()],
        id: 2,
    }
    .write();
    assert!(sdp.contains("a=group:BUNDLE 1\r\n"), "{sdp}");
    assert!(sdp.contains("m=audio 0 "), "{sdp}");
    let video = &sdp[sdp.find("m=video").unwrap()..];
    assert!(
        video.contains("a=candidate:1\r\na=end-of-candidates"),
        "candidates move to the first served line: {sdp}"
    );
}

#[test]
fn without_bundle_one_line_is_served() {
    let plain = CHROMIUM.replace("a=group:BUNDLE 0 1 2\r\n", "");
    let offer = Offer::parse(&plain).unwrap();
    assert_eq!((offer.video, offer.audio, offer.bundled), (Some(1), None, false));
}

#[test]
fn a_line_that_only_sends_is_not_served() {
    let offer = Offer::parse(&CHROMIUM.replace("a=recvonly", "a=sendonly")).unwrap();
    assert_eq!((offer.video, offer.audio), (None, None));
}

#[test]
fn g711_needs_no_rtpmap_and_bundle_only_lines_are_served() {
    let sdp = "v=0\r\na=group:BUNDLE a\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-1 \
        00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13\r\na=recvonly\r\n\
        m=audio 0 UDP/TLS/RTP/SAVPF 0 8\r\na=mid:a\r\na=bundle-only\r\n";
    let offer = Offer::parse(sdp).unwrap();
    assert_eq!(offer.wants().audio, [Codec::Pcmu, Codec::Pcma]);
    assert_eq!(offer.fingerprint.hash_func, "sha-1");
    assert!(
        Offer::parse(&sdp.replace("a=bundle-only\r\n", "")).unwrap().audio.is_none(),
        "that one is rejected"
    );
}

#[test]
fn what_is_wrong_with_an_offer_is_said() {
    let cases: &[(&str, String, &str)] = &[
        ("empty", String::new(), "no m-line"),
        ("JSON", "{\"type\":\"offer\"}".into(), "line 1"),
        ("garbage", "\u{1F600}\u{0}=\n=\n".into(), "line 1"),
        ("no v=", "a=b\r\n".into(), "v=0"),
        ("no media", "v=0\r\ns=-\r\n".into(), "no m-line"),
        ("no ufrag", CHROMIUM.replace("a=ice-ufrag", "a=x"), "ice-ufrag"),
        ("short pwd", CHROMIUM.replace("a=ice-pwd:", "a=ice-pwd:x\r\na=x:"), "ice-pwd"),
        ("no fingerprint", CHROMIUM.replace("a=fingerprint", "a=x"), "fingerprint"),
        ("short fingerprint", CHROMIUM.replace("sha-256 7C:", "sha-256 "), "fingerprint"),
        ("unknown hash", CHROMIUM.replace("sha-256", "md5"), "fingerprint"),
        ("holdconn", CHROMIUM.replace("setup:actpass", "setup:holdconn"), "holdconn"),
        ("ICE-lite", CHROMIUM.replace("a=group", "a=ice-lite\r\na=group"), "ICE-lite"),
        ("twice a mid", CHROMIUM.replace("a=mid:1", "a=mid:0"), "a=mid"),
        ("port", CHROMIUM.replace("m=video 9", "m=video x"), "broken m-line"),
        ("rtx twice", CHROMIUM.replace("apt=103", "apt=109"), ""),
        (
            "two meanings",
            CHROMIUM.replace("a=rtpmap:111 ", "a=rtpmap:109 ").replace("RTP/SAVPF 111", "RTP/SAVPF 109"),
            "109",
        ),
        ("many lines", format!("v=0\r\n{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(65)), "more than 64"),
        ("too long", format!("v=0\r\n{}", "a=x\r\n".repeat(20_000)), "longer than"),
    ];
    for (name, sdp, expected) in cases {
        match Offer::parse(sdp) {
            Ok(_) => assert!(expected.is_empty(), "{name} was taken"),
            Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{name}: {error}"),
        }
    }
}

#[test]
fn a_receiver_that_names_no_packetization_mode_is_served() {
    let offer = Offer::parse(&CHROMIUM.replace("packetization-mode=1;", "")).unwrap();
    assert!(offer.wants().video.contains(&crate::media::Codec::H264));
}

#[test]
fn broken_format_parameters_make_no_payload() {
    for (name, from, to) in [
        ("mode 0 only", "packetization-mode=1", "packetization-mode=0"),
        ("long profile", "profile-level-id=", "profile-level-id=00"),
        ("no number", "profile-level-id=", "profile-level-id=zz"),
        ("clock", "H264/90000", "H264/48000"),
    ] {
        let offer = Offer::parse(&CHROMIUM.replace(from, to)).unwrap();
        assert!(offer.wants().video.is_empty(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "(v=0\r\n)?([vmas]=[a-z0-9:/ =;.-]{0,60}\r?\n){0,30}") {
        let _ = Offer::parse(&text);
    }

    #[test]
    fn a_damaged_offer_never_panics(at in 0usize..6000, with in ".{0,8}", length in 0usize..40) {
        let mut bytes = CHROMIUM.as_bytes().to_vec();
        let at = at.min(bytes.len());
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.bytes());
        if let Ok(offer) = Offer::parse(&String::from_utf8_lossy(&bytes)) {
            for kind in [Kind::Video, Kind::Audio] {
                let _ = (offer.choose(kind, None, None), offer.encodings(kind));
            }
        }
    }
}
