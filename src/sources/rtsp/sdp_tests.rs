use super::*;
use crate::sources::rtsp::answer::join_control;

fn camera(name: &str) -> Sdp {
    let path = format!("{}/tests/fixtures/rtsp/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("fixture");
    let sdp = Sdp::parse(text.as_bytes());
    assert_eq!(Sdp::parse(text.replace('\n', "\r\n").as_bytes()), sdp, "line ends don't matter");
    sdp
}

/// Payload type, codec, clock rate and channels of what can be played.
fn tracks(sdp: &Sdp) -> Vec<(u8, Codec, u32, u8)> {
    let tracks = sdp.medias.iter().filter_map(Media::track);
    tracks.map(|(pt, t)| (pt, t.codec, t.clock_rate, t.channels)).collect()
}

fn one(lines: &str) -> Option<Track> {
    Sdp::parse(lines.as_bytes()).medias.first().and_then(Media::track).map(|(_, track)| track)
}

#[test]
fn hikvision_has_absolute_controls_and_metadata() {
    let sdp = camera("hikvision");
    assert_eq!(tracks(&sdp), [(96, Codec::H264, 90_000, 0), (8, Codec::Pcma, 8000, 1)]);
    let (_, h264) = sdp.medias[0].track().expect("H264");
    assert!(matches!(h264.params, Params::H264 { .. }), "{:?}", h264.params);
    let control = sdp.medias[0].control.as_deref().expect("control");
    assert_eq!(join_control("rtsp://base/", control), control);
    assert_eq!(sdp.offer(), "video H264, audio PCMA, application vnd.onvif.metadata");
}

#[test]
fn dahua_has_a_back_channel_that_is_left_out() {
    let sdp = camera("dahua");
    assert_eq!(tracks(&sdp), [(98, Codec::H265, 90_000, 0), (97, Codec::Aac, 16_000, 1)]);
    assert_eq!(sdp.control.as_deref(), Some("*"));
    let (_, h265) = sdp.medias[0].track().expect("H265");
    assert!(matches!(h265.params, Params::H265 { .. }), "{:?}", h265.params);
    assert!(sdp.medias[2].is_backchannel);
}

#[test]
fn reolink_has_aac_with_trailing_parameters() {
    let sdp = camera("reolink");
    let (_, aac) = sdp.medias[1].track().expect("AAC");
    assert_eq!(aac.params, Params::Aac { config: Arc::from([0x14, 0x08]) });
    assert_eq!(sdp.tool.as_deref(), Some("LIVE555 Streaming Media v2013.04.08"));
}

#[test]
fn tapo_has_a_format_that_is_no_number() {
    let sdp = camera("tapo");
    assert_eq!(tracks(&sdp), [(96, Codec::H264, 90_000, 0), (8, Codec::Pcma, 8000, 1)]);
    assert_eq!(sdp.offer(), "video H264, audio PCMA, application/tp-link");
}

#[test]
fn axis_has_opus_and_queries_in_its_controls() {
    let sdp = camera("axis");
    assert_eq!(tracks(&sdp), [(96, Codec::H264, 90_000, 0), (97, Codec::Opus, 48_000, 2)]);
    assert!(
        sdp.medias[1].control.as_deref().is_some_and(|c| c.ends_with("stream=1?videocodec=h264&audio=1"))
    );
}

#[test]
fn static_payload_types_need_no_rtpmap() {
    assert_eq!(
        one("m=audio 0 RTP/AVP 0\n").map(|t| (t.codec, t.clock_rate, t.channels)),
        Some((Codec::Pcmu, 8000, 1))
    );
    assert_eq!(one("m=audio 0 RTP/AVP 8\n").map(|t| t.codec), Some(Codec::Pcma));
    assert_eq!(one("m=video 0 RTP/AVP 26\n").map(|t| (t.codec, t.clock_rate)), Some((Codec::Jpeg, 90_000)));
    assert_eq!(one("m=video 0 RTP/AVP 34\n"), None);
    assert_eq!(Sdp::parse(b"m=video 0 RTP/AVP 26\n").offer(), "video JPEG");
}

#[test]
fn the_first_format_that_can_be_played_is_taken() {
    let sdp =
        Sdp::parse(b"m=audio 0 RTP/AVP 3 97 8\na=rtpmap:97 opus/48000/2\na=fmtp:97\na=rtpmap:8 PCMA/8000\n");
    assert_eq!(tracks(&sdp), [(97, Codec::Opus, 48_000, 2)]);
}

#[test]
fn only_aac_as_it_is_understood_is_taken() {
    let aac = |fmtp: &str| {
        one(&format!("m=audio 0 RTP/AVP 97\na=rtpmap:97 mpeg4-generic/44100/2\na=fmtp:97 {fmtp}\n"))
    };
    let config = |track: Option<Track>| match track.map(|t| t.params) {
        Some(Params::Aac { config }) => Some(config.to_vec()),
        _ => None,
    };
    assert_eq!(config(aac("mode=AAC-hbr;sizeLength=13;config=1210")), Some(vec![0x12, 0x10]));
    assert_eq!(config(aac("mode=AAC-hbr;sizelength=13")), Some(vec![0x12, 0x10]), "made up from rtpmap");
    assert_eq!(aac("mode=AAC-lbr;config=1210"), None);
    assert_eq!(aac("mode=AAC-hbr;sizelength=6;config=1210"), None);
    assert_eq!(aac("mode=AAC-hbr;config=12x0"), None);
    assert_eq!(aac("mode=AAC-hbr;config=1"), None);
    assert_eq!(one("m=audio 0 RTP/AVP 97\na=rtpmap:97 MP4A-LATM/44100/2\n"), None);
}

#[test]
fn kinds_and_codecs_must_agree() {
    assert_eq!(one("m=application 0 RTP/AVP 96\na=rtpmap:96 H264/90000\n"), None);
    assert_eq!(one("m=video 0 UDP 96\na=rtpmap:96 H264/90000\n"), None);
}

#[test]
fn a_server_that_means_itself_by_sendonly_is_played() {
    assert!(one("m=video 0 RTP/AVP 96\na=sendonly\na=rtpmap:96 H264/90000\n").is_some());
}

#[test]
fn any_bytes_are_survived_in_bounds() {
    let many = "m=video 0 RTP/AVP 96\n".repeat(10_000);
    assert_eq!(Sdp::parse(many.as_bytes()).medias.len(), MAX_MEDIAS);
    let wide = format!("m=audio 0 RTP/AVP {}\n", "8 ".repeat(10_000));
    assert_eq!(Sdp::parse(wide.as_bytes()).medias[0].formats.len(), MAX_FORMATS);
    for odd in [
        "",
        "\0\u{ff}=",
        "m=",
        "m=video",
        "a=rtpmap",
        "m=audio 0 RTP/AVP 8\na=rtpmap:\na=fmtp:8 \na=control:\n",
    ] {
        Sdp::parse(odd.as_bytes()).offer();
    }
    Sdp::parse(&[0xff, 0xfe, b'm', b'=', 0x80]);
}

proptest::proptest! {
    #[test]
    fn random_lines_are_survived(text in "([mavc]=[a-z0-9:/ ;=,]{0,40}\r?\n){0,20}") {
        let sdp = Sdp::parse(text.as_bytes());
        sdp.offer();
        sdp.medias.iter().for_each(|m| drop(m.track()));
    }
}
