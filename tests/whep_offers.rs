//! WHEP offers over HTTP: what real clients send is answered, what nobody can use is refused in words, and nothing stays.

mod common;
mod hostile_support;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Camera, Reply, Streamgate, delete, eventually, post};
use hostile_support::*;

/// As `webrtcbin` of GStreamer writes it: mids in words, the second m-line `bundle-only` with port 0, OPUS in capitals.
const GSTREAMER: &str = "v=0\r\no=- 4263087441 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-options:trickle\r\n\
    a=group:BUNDLE video0 audio1\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 101\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=ice-ufrag:4kKwwVBQxi3vZ1oU\r\n\
    a=ice-pwd:LPSxLnuPZBjpVnMqtBnAQoKD5sR2nCAs\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=recvonly\r\n\
    a=rtpmap:101 H264/90000\r\na=rtcp-fb:101 nack\r\na=rtcp-fb:101 nack pli\r\na=fmtp:101 packetization-mode=1\r\n\
    a=mid:video0\r\na=fingerprint:sha-256 FINGERPRINT\r\n\
    m=audio 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=setup:actpass\r\na=ice-ufrag:4kKwwVBQxi3vZ1oU\r\n\
    a=ice-pwd:LPSxLnuPZBjpVnMqtBnAQoKD5sR2nCAs\r\na=bundle-only\r\na=rtcp-mux\r\na=rtcp-rsize\r\na=recvonly\r\n\
    a=rtpmap:96 OPUS/48000/2\r\na=mid:audio1\r\na=fingerprint:sha-256 FINGERPRINT\r\n";

/// As Firefox with its H.264 plugin writes it: session-level fingerprint, both packetization modes, `sendrecv`.
const FIREFOX: &str = "v=0\r\no=mozilla...THIS_IS_SDPARTA-99.0 7093284112350146934 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
    a=fingerprint:sha-256 FINGERPRINT\r\na=group:BUNDLE 0 1\r\na=ice-options:trickle\r\na=msid-semantic:WMS *\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1\r\na=fmtp:101 0-15\r\na=ice-pwd:3b1ee1d21dfbc2a7d1e2c1a7\r\n\
    a=ice-ufrag:1e1b3a33\r\na=mid:0\r\na=rtcp-mux\r\na=rtpmap:109 opus/48000/2\r\na=rtpmap:9 G722/8000/1\r\n\
    a=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000/1\r\na=setup:actpass\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 120 124 97 98 126 127\r\nc=IN IP4 0.0.0.0\r\na=recvonly\r\n\
    a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1\r\n\
    a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1\r\na=fmtp:120 max-fs=12288;max-fr=60\r\n\
    a=fmtp:124 apt=120\r\na=fmtp:98 apt=97\r\na=fmtp:127 apt=126\r\na=ice-pwd:3b1ee1d21dfbc2a7d1e2c1a7\r\n\
    a=ice-ufrag:1e1b3a33\r\na=mid:1\r\na=rtcp-fb:126 nack\r\na=rtcp-fb:126 nack pli\r\na=rtcp-mux\r\na=rtcp-rsize\r\n\
    a=rtpmap:120 VP8/90000\r\na=rtpmap:124 rtx/90000\r\na=rtpmap:97 H264/90000\r\na=rtpmap:98 rtx/90000\r\n\
    a=rtpmap:126 H264/90000\r\na=rtpmap:127 rtx/90000\r\na=setup:actpass\r\n";

fn client(offer: &str) -> String {
    offer.replace("FINGERPRINT", &["AB"; 32].join(":"))
}

/// Chromium's offer with CRLF, changed line by line: `None` leaves a line out.
fn chromium(change: impl Fn(&str) -> Option<String>) -> String {
    CHROMIUM.lines().filter_map(change).map(|line| line + "\r\n").collect()
}

fn with(line: &str) -> Option<String> {
    Some(line.to_owned())
}

fn replacing(prefix: &'static str, new: &str) -> String {
    chromium(|line| if line.starts_with(prefix) { with(new) } else { with(line) })
}

fn without(prefix: &'static str) -> String {
    chromium(|line| (!line.starts_with(prefix)).then(|| line.to_owned()))
}

async fn offer(streamgate: &Streamgate, sdp: impl Into<Vec<u8>>) -> Reply {
    post(&streamgate.url("/whep/front"), SDP, sdp).await
}

/// The value of an attribute in the m-line's section of that kind.
fn section<'a>(sdp: &'a str, kind: &str) -> &'a str {
    let start = sdp.find(&format!("m={kind} ")).unwrap_or_else(|| panic!("no m={kind}: {sdp}"));
    let rest = &sdp[start..];
    &rest[..rest[2..].find("\r\nm=").map_or(rest.len(), |end| end + 4)]
}

#[tokio::test]
async fn offers_of_real_clients_are_answered_as_they_need_it() {
    let camera = Camera::start("clip=h264_main_g60,audio=opus");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    for (name, sdp, video, audio) in [
        ("Chromium", chromium(with), "117", "111"),
        ("Chromium with bare line ends", CHROMIUM.replace("\r\n", "\n"), "117", "111"),
        ("Firefox", client(FIREFOX), "126", "109"),
        ("GStreamer", client(GSTREAMER), "101", "96"),
    ] {
        let reply = offer(&streamgate, sdp.clone()).await;
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
        let answer = reply.text();
        let kinds = |sdp: &str| -> Vec<String> {
            let lines = sdp.lines().filter_map(|line| line.strip_prefix("m="));
            lines.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect()
        };
        assert_eq!(kinds(&answer), kinds(&sdp), "{name}: an answer has the offer's m-lines in their order");
        assert!(answer.lines().all(|line| answer.contains(&format!("{line}\r\n"))), "{name}: CRLF");
        for (kind, payload) in [("video", video), ("audio", audio)] {
            let part = section(&answer, kind);
            let line = part.lines().next().expect("an m-line");
            assert!(line.starts_with(&format!("m={kind} 9 UDP/TLS/RTP/SAVPF {payload}")), "{name}: {line}");
            for needed in [
                "a=sendonly",
                "a=rtcp-mux",
                "a=setup:passive",
                "a=ice-ufrag:",
                "a=ice-pwd:",
                "a=fingerprint:sha-256 ",
            ] {
                assert!(part.contains(needed), "{name}: {kind} has no {needed}\n{part}");
            }
            let mid = section(&sdp, kind).lines().find(|line| line.starts_with("a=mid:")).expect("a mid");
            assert!(part.lines().any(|line| line == mid), "{name}: {mid}\n{part}");
        }
        assert!(answer.contains("a=group:BUNDLE ") && answer.contains("a=ice-lite"), "{name}");
        assert!(answer.contains("a=candidate:") && answer.contains("a=end-of-candidates"), "{name}");
        let id = answer.lines().find_map(|line| line.strip_prefix("o=- ")).and_then(|o| o.split(' ').next());
        assert!(
            id.and_then(|id| id.parse::<i64>().ok()).is_some_and(|id| id >= 0),
            "{name}: RFC 9429 §5.2.1"
        );
        let location = reply.header("location");
        assert_eq!(delete(&streamgate.url(location)).await.status, 200, "{name}");
    }
    eventually("all are gone", DEADLINE, async || viewers(&streamgate, "front").await == 0).await;
}

#[tokio::test]
async fn offers_that_nobody_can_answer_are_refused_in_words_and_leave_nothing() {
    let mut streamgate = Streamgate::with_streams(&[("front", "demo:")]);
    let before = Footprint::of(&streamgate);
    let data_channel = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n";
    let header: String =
        CHROMIUM.lines().take_while(|l| !l.starts_with("m=")).map(|l| l.to_owned() + "\r\n").collect();
    let long = "x".repeat(60_000);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("nothing", Vec::new(), 400, "no m-line"),
        ("NULs", vec![0; 1000], 400, "line 1"),
        ("no UTF-8", b"v=0\r\n\xff\xfe".to_vec(), 400, "UTF-8"),
        ("a byte order mark", format!("\u{feff}{CHROMIUM}").into(), 400, "line 1"),
        ("bare returns", CHROMIUM.replace("\r\n", "\n").replace('\n', "\r").into(), 400, "m-line"),
        ("HTML", "<html></html>".into(), 400, "line 1"),
        ("a cut header", header.clone().into(), 400, "no m-line"),
        ("an m-line cut short", format!("{header}m=video 9\r\n").into(), 400, "m-line"),
        ("a thousand m-lines", format!("{header}{}", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(1000)).into(), 400, "m-lines"),
        ("ten thousand candidates", [chromium(with), "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(10_000)].concat().into(), 413, "64 KiB"),
        ("no ufrag", without("a=ice-ufrag").into(), 400, "ice-ufrag"),
        ("no password", without("a=ice-pwd").into(), 400, "ice-pwd"),
        ("no fingerprint", without("a=fingerprint").into(), 400, "fingerprint"),
        ("a short ufrag", replacing("a=ice-ufrag", "a=ice-ufrag:x").into(), 400, "ice-ufrag"),
        ("a long ufrag", replacing("a=ice-ufrag", &format!("a=ice-ufrag:{long}")).into(), 413, "64 KiB"),
        ("a colon in the ufrag", replacing("a=ice-ufrag", "a=ice-ufrag:abcd:efgh").into(), 400, "ice-ufrag"),
        ("MD5", replacing("a=fingerprint", &format!("a=fingerprint:md5 {}", ["AB"; 16].join(":"))).into(), 400, "sha-256"),
        ("a short fingerprint", replacing("a=fingerprint", "a=fingerprint:sha-256 AB:CD").into(), 400, "fingerprint"),
        ("sending only", replacing("a=recvonly", "a=sendonly").into(), 400, "receives"),
        ("inactive", replacing("a=recvonly", "a=inactive").into(), 400, "receives"),
        ("rejected m-lines", chromium(|l| Some(l.replace(" 9 UDP/TLS/RTP", " 0 UDP/TLS/RTP"))).into(), 400, "receives"),
        ("only a data channel", format!("{header}{data_channel}a=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n", "p".repeat(24), ["AB"; 32].join(":")).into(), 400, "receives"),
        ("plain RTP", chromium(|l| Some(l.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"))).into(), 400, "receives"),
        ("a mid twice", replacing("a=mid", "a=mid:0").into(), 400, "same a=mid"),
        ("a bundle of others", replacing("a=group", "a=group:BUNDLE x y").into(), 400, "receives"),
        ("ICE-lite on both sides", replacing("s=-", "s=-\r\na=ice-lite").into(), 400, "ICE-lite"),
        ("a role that is none", replacing("a=setup", "a=setup:\u{1b}[31mholdconn").into(), 400, "setup"),
        ("an absurd clock", chromium(|l| Some(l.replace("H264/90000", "H264/99999999999"))).into(), 422, "codec"),
        ("another profile", chromium(|l| Some(l.replace("profile-level-id=", "profile-level-id=zz"))).into(), 422, "codec"),
        ("only payload types that are RTCP", format!("{header}m=video 9 UDP/TLS/RTP/SAVPF 72\r\na=mid:0\r\na=recvonly\r\na=rtpmap:72 H264/90000\r\na=fmtp:72 packetization-mode=1\r\na=ice-ufrag:abcd\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {}\r\n", "p".repeat(24), ["AB"; 32].join(":")).into(), 422, "codec"),
        ("the same number twice in a bundle", chromium(|l| Some(l.replace("109", "111"))).into(), 400, "two meanings"),
    ];
    for (name, body, status, part) in cases {
        check_error(&offer(&streamgate, body).await, status, part, name);
    }
    assert_eq!(viewers(&streamgate, "front").await, 0);
    // The stream was dialled for those whose codecs did not fit; its linger ends by itself.
    check_sane(&mut streamgate);
    let grown = streamgate.rss_kb().saturating_sub(before.rss_kb);
    assert!(grown < 24_000, "memory grew by {grown} kB");
}

#[tokio::test]
async fn odd_offers_that_can_be_answered_are() {
    let mut streamgate = Streamgate::with_streams(&[("front", "demo:")]);
    let everything: String = (0..9000).map(|n| format!(" {n}")).collect();
    let numbers = |line: &str| {
        line.strip_prefix("m=video 9 UDP/TLS/RTP/SAVPF")
            .map_or_else(|| line.to_owned(), |_| format!("m=video 9 UDP/TLS/RTP/SAVPF{everything}"))
    };
    let cases = [
        ("every payload type", chromium(|line| Some(numbers(line)))),
        ("apt that names nothing", chromium(|line| Some(line.replace("apt=", "apt=9")))),
        ("apt in a circle", chromium(|line| Some(line.replace("a=fmtp:114 apt=109", "a=fmtp:114 apt=114")))),
        (
            "many candidates",
            [chromium(with), "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(1000)].concat(),
        ),
        (
            "broken candidates",
            [chromium(with), "a=candidate:-1 99999999999 x -5 999.1.1.1 99999999 typ\r\n".repeat(99)]
                .concat(),
        ),
        ("a long attribute", format!("{}a=x:{}\r\n", chromium(with), "y".repeat(50_000))),
        ("NULs in attributes", replacing("a=rtcp-mux", "a=rtcp-mux\r\na=\0\0:\0")),
        ("the same role twice", replacing("a=setup", "a=setup:actpass\r\na=setup:actpass")),
        ("the viewer as DTLS server", replacing("a=setup", "a=setup:passive")),
        ("many m-lines", [chromium(with), "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(50)].concat()),
    ];
    for (name, sdp) in cases {
        let reply = offer(&streamgate, sdp).await;
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
        assert!(reply.body.len() < 70_000, "{name}: {} bytes", reply.body.len());
        assert_eq!(delete(&streamgate.url(reply.header("location"))).await.status, 200, "{name}");
    }
    eventually("all are gone", DEADLINE, async || viewers(&streamgate, "front").await == 0).await;
    check_sane(&mut streamgate);
}
