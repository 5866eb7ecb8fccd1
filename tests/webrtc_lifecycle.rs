//! How WebRTC sessions come and go: goodbyes, silence, removal, changes of the camera, strangers.

#[path = "common/mod.rs"]
mod common;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;
mod webrtc_support;

use common::eventually;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use streamgate::consumers::webrtc::{OfferError, Options, TrickleError, Trickled};
use streamgate::graph::SourceError;
use streamgate::media::Codec;
use webrtc_client::{Offering, Transport, Viewer, ViewerOptions};
use webrtc_support::{ClipCamera, DEADLINE, Router, Units, assert_continuous};

async fn until_units(viewer: &Viewer, h265: bool, count: usize) {
    eventually("units of video arrive", DEADLINE, async || viewer.units(h265).len() >= count).await;
}

fn offer(video: &[&'static str], audio: &[&'static str]) -> String {
    Offering::new(ViewerOptions { video: video.into(), audio: audio.into(), ..Default::default() }).offer
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_a_session_ends_it_at_once_and_tells_the_viewer() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (viewer, answer) = router.viewer(ViewerOptions::default()).await;
    let (other, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&viewer, false, 5).await;
    assert!(router.webrtc.close(&answer.session));
    eventually("the viewer is told", Duration::from_secs(1), async || viewer.is_closed()).await;
    eventually("it is not listed any more", Duration::from_secs(1), async || router.consumers() == 1).await;
    assert!(!router.webrtc.close(&answer.session), "there is no such session any more");
    let before = other.units(false).len();
    until_units(&other, false, before + 10).await;
    assert_eq!((router.webrtc.sizes().0, router.webrtc.sizes().1), (1, 1));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_says_goodbye_is_gone() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    for transport in [Transport::Udp, Transport::Tcp] {
        let (viewer, _) = router.viewer(ViewerOptions { transport, ..Default::default() }).await;
        viewer.close();
        eventually("it is gone", Duration::from_secs(2), async || router.consumers() == 0).await;
        assert_eq!(router.webrtc.sizes(), (0, 0, 0));
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_viewer_is_gone_within_ten_seconds() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    let (faithful, _) = router.viewer(ViewerOptions::default()).await;
    viewer.vanish();
    let since = Instant::now();
    eventually("it is gone", Duration::from_secs(10), async || router.consumers() == 1).await;
    assert!(since.elapsed() > Duration::from_secs(4), "not at the first hiccup: {:?}", since.elapsed());
    assert!(!faithful.is_closed());
    assert_eq!(router.webrtc.sizes(), (1, 1, 1));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_never_connects_is_given_up() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    router.offer(&offer(&["H264"], &[])).await.unwrap();
    assert_eq!(router.consumers(), 1);
    eventually("it is given up", Duration::from_secs(17), async || router.consumers() == 0).await;
    assert_eq!(router.webrtc.sizes(), (0, 0, 0));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_the_stream_or_kicking_ends_viewers() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (kicked, _) = router.viewer(ViewerOptions::default()).await;
    let id = router.stream.consumers()[0].id;
    let (other, _) = router.viewer(ViewerOptions { transport: Transport::Tcp, ..Default::default() }).await;
    assert!(router.stream.kick(id));
    eventually("the kicked one is told", Duration::from_secs(1), async || kicked.is_closed()).await;
    assert!(!other.is_closed());
    assert!(router.registry.remove("front"));
    eventually("the other one is told", Duration::from_secs(1), async || other.is_closed()).await;
    assert_eq!(router.offer(&offer(&["H264"], &[])).await.unwrap_err(), OfferError::Removed);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_says_goodbye_to_all_and_is_quick() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let mut viewers = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Udp] {
        viewers.push(router.viewer(ViewerOptions { transport, ..Default::default() }).await.0);
    }
    let since = Instant::now();
    router.webrtc.shutdown().await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    for viewer in &viewers {
        eventually("each is told", Duration::from_secs(1), async || viewer.is_closed()).await;
    }
    assert_eq!(router.offer(&offer(&["H264"], &[])).await.unwrap_err(), OfferError::Busy);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_stops_reading_disturbs_nobody() {
    let camera = ClipCamera::new("h264_main_g60", None);
    camera.orders.send_modify(|orders| orders.fps = 300);
    let router = Router::with(camera, Options { workers: 1, ..Options::default() }).await;
    let (stuck, _) = router.viewer(ViewerOptions { transport: Transport::Tcp, ..Default::default() }).await;
    let stuck_consumer = router.stream.consumers().remove(0);
    let (good, _) = router.viewer(ViewerOptions { transport: Transport::Tcp, ..Default::default() }).await;
    until_units(&stuck, false, 10).await;
    stuck.stop_reading();
    let load = Ordering::Relaxed;
    // 10 Mbit/s fill the system's buffers, then ours; long before the silence is noticed nothing more is queued.
    let since = good.units(false).len();
    until_units(&good, false, since + 900).await;
    assert_continuous(&good.video());
    router.camera.units().position(&good.units(false));
    eventually("the stuck one is skipped or gone", DEADLINE, async || {
        stuck_consumer.drops.load(load) > 0 || router.consumers() == 1
    })
    .await;
    eventually("the stuck one is gone", Duration::from_secs(12), async || router.consumers() == 1).await;
    assert!(!good.is_closed());
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_viewer_jumps_to_a_keyframe_and_never_sees_half_a_picture() {
    let camera = ClipCamera::new("h264_main_g60", None);
    camera.orders.send_modify(|orders| orders.fps = 600);
    let router = Router::start(camera).await;
    let (viewer, _) = router.viewer(ViewerOptions { transport: Transport::Tcp, ..Default::default() }).await;
    let consumer = router.stream.consumers().remove(0);
    until_units(&viewer, false, 10).await;
    // The camera sends some 2.5 MB a second.
    viewer.read_slowly(1_500_000);
    let load = Ordering::Relaxed;
    eventually("pictures are left out", Duration::from_secs(20), async || consumer.drops.load(load) > 0)
        .await;
    let dropped_after = consumer.packets.load(load);
    let first = viewer.video()[0].sequence;
    eventually("it has seen what came after that", Duration::from_secs(20), async || {
        viewer.video().last().is_some_and(|packet| packet.sequence > first + dropped_after + 3_000)
    })
    .await;
    let packets = viewer.video();
    assert_continuous(&packets);
    let (units, clip) = (viewer.units(false), &router.camera.units().units);
    let mut place = 0;
    let mut jumps = 0;
    for (_, unit) in &units {
        if *unit != clip[place % clip.len()] {
            jumps += 1;
            place = clip.iter().position(|known| known == unit).expect("a whole picture of the clip");
            assert_eq!(place % 60, 0, "it goes on at a keyframe");
        }
        place += 1;
    }
    assert!(jumps > 0 && units.len() > 500, "{jumps} jumps in {} pictures", units.len());
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b_frames_are_refused_in_words() {
    let router = Router::start(ClipCamera::new("h264_high_bf3_g60", None)).await;
    match router.offer(&offer(&["H264"], &[])).await {
        Err(OfferError::Incompatible { reason }) => assert!(reason.contains("B-frames"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(router.consumers(), 0);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_common_codec_names_both_lists() {
    let router = Router::start(ClipCamera::new("h265_main_g60", Some(Codec::Aac))).await;
    for (video, audio) in [(&["H264"][..], &["opus"][..]), (&["VP8"], &["PCMA"]), (&["VP8"], &[])] {
        match router.offer(&offer(video, audio)).await {
            Err(OfferError::Incompatible { reason }) => {
                assert!(reason.contains("H265") && reason.contains(video[0]), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_without_the_video_codec_is_not_given_sound_alone() {
    let router = Router::start(ClipCamera::new("h264_main_g60", Some(Codec::Pcma))).await;
    match router.offer(&offer(&["VP8"], &["PCMA"])).await {
        Err(OfferError::Incompatible { reason }) => {
            assert!(reason.contains("H264") && reason.contains("VP8"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let answer = router.offer(&offer(&[], &["PCMA"])).await.unwrap();
    assert!(answer.sdp.contains("m=audio 9 "), "who asks for sound alone gets it");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aac_is_left_out_and_said_so() {
    let router = Router::start(ClipCamera::new("h264_main_g60", Some(Codec::Aac))).await;
    let (viewer, answer) = router.viewer(ViewerOptions::default()).await;
    assert_eq!(answer.notes, ["audio left out: the camera's AAC can't be sent over WebRTC"]);
    assert!(answer.sdp.contains("a=inactive"), "{}", answer.sdp);
    until_units(&viewer, false, 5).await;
    assert!(viewer.audio().is_empty());
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_restarts_continues_for_its_viewers() {
    let router = Router::start(ClipCamera::new("h264_main_g60", Some(Codec::Pcma))).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&viewer, false, 70).await;
    router.camera.restart(|_| {});
    let before = viewer.video().len();
    eventually("pictures come again", DEADLINE, async || viewer.video().len() > before + 200).await;
    assert_continuous(&viewer.video());
    assert_continuous(&viewer.audio());
    assert!(!viewer.is_closed());
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_goes_on_when_the_camera_changes_its_codec() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (modern, _) =
        router.viewer(ViewerOptions { video: vec!["H264", "H265"], ..Default::default() }).await;
    let (plain, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&modern, false, 40).await;
    let h264 = modern.video()[0].payload_type;
    let units = Units::of("h265_main_g60");
    router.camera.restart(|orders| orders.video = Some(units.clone()));
    eventually("who can't play it is ended, to negotiate anew", DEADLINE, async || plain.is_closed()).await;
    let of_h265 = || -> Vec<_> { modern.video().into_iter().filter(|p| p.payload_type != h264).collect() };
    eventually("H265 comes", DEADLINE, async || of_h265().len() > 150).await;
    assert_continuous(&modern.video());
    let start = units.position(&webrtc_client::access_units(&of_h265(), true));
    assert_eq!(start % 60, 0, "it starts at a keyframe");
    assert!(!modern.is_closed());
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b_frames_that_come_later_end_the_session() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&viewer, false, 10).await;
    router.camera.restart(|orders| orders.video = Some(Units::of("h264_high_bf3_g60")));
    eventually("the viewer is told", DEADLINE, async || viewer.is_closed()).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_is_down_is_waited_for_and_then_named() {
    let camera = ClipCamera::new("h264_main_g60", None);
    camera.orders.send_modify(|orders| orders.down = true);
    let options = Options { workers: 1, source_deadline: Duration::from_secs(4), ..Options::default() };
    let router = Router::with(camera.clone(), options).await;
    let since = Instant::now();
    let error = router.offer(&offer(&["H264"], &[])).await.unwrap_err();
    assert_eq!(error, OfferError::Source(SourceError::Unreachable("the camera is down".into())));
    assert!(since.elapsed() > Duration::from_millis(2500));
    router.stop().await;
    let options = Options { workers: 1, source_deadline: DEADLINE, ..Options::default() };
    let router = Router::with(camera.clone(), options).await;
    let come_back = async {
        let failed = async || router.stream.producers()[0].status().retries > 0;
        eventually("the first dial has failed", DEADLINE, failed).await;
        camera.orders.send_modify(|orders| orders.down = false);
    };
    let offered = offer(&["H264"], &[]);
    let (answer, ()) = tokio::join!(router.offer(&offered), come_back);
    answer.expect("it came back in time");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_sessions_than_allowed() {
    let options = Options { workers: 1, max_sessions: 2, ..Options::default() };
    let router = Router::with(ClipCamera::new("h264_main_g60", None), options).await;
    let first = router.offer(&offer(&["H264"], &[])).await.unwrap();
    router.offer(&offer(&["H264"], &[])).await.unwrap();
    assert_eq!(router.offer(&offer(&["H264"], &[])).await.unwrap_err(), OfferError::Busy);
    router.webrtc.close(&first.session);
    eventually("there is room again", DEADLINE, async || router.offer(&offer(&["H264"], &[])).await.is_ok())
        .await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trickled_candidates_are_taken_and_etags_are_checked() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let offering = Offering::new(ViewerOptions::default());
    let answer = router.offer(&offering.offer).await.unwrap();
    let line = |name: &str| offering.offer.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let fragment = format!(
        "{}\r\n{}\r\na=candidate:1 1 udp 2122260223 0a1b2c3d-1111-2222-3333-444455556666.local 50000 typ host\r\n\
         a=end-of-candidates\r\n",
        line("a=ice-ufrag:"),
        line("a=ice-pwd:")
    );
    let trickle = |etag: Option<&str>, text: &str| router.webrtc.trickle(&answer.session, etag, text);
    assert_eq!(trickle(None, &fragment), Ok(Trickled::NoContent));
    assert_eq!(trickle(Some(&format!("\"{}\"", answer.etag)), &fragment), Ok(Trickled::NoContent));
    assert_eq!(trickle(Some("\"other\""), &fragment), Err(TrickleError::EtagMismatch));
    assert!(matches!(trickle(None, "hello"), Err(TrickleError::Bad(_))));
    assert_eq!(router.webrtc.trickle("nobody", None, &fragment), Err(TrickleError::NotFound));
    let viewer = offering.connect(&answer.sdp);
    until_units(&viewer, false, 5).await;
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_is_restarted_with_new_credentials() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let offering = Offering::new(ViewerOptions::default());
    let answer = router.offer(&offering.offer).await.unwrap();
    let restart = "a=ice-ufrag:newufrag\r\na=ice-pwd:0123456789abcdef01234567\r\n";
    assert!(matches!(router.webrtc.trickle(&answer.session, None, restart), Err(TrickleError::Bad(_))));
    let Ok(Trickled::Restarted { etag, fragment }) =
        router.webrtc.trickle(&answer.session, Some("*"), restart)
    else {
        panic!("not restarted");
    };
    assert_ne!(etag, answer.etag);
    let value = |text: &str, name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap().to_owned();
    let (old, new) = (value(&answer.sdp, "a=ice-ufrag:"), value(&fragment, "a=ice-ufrag:"));
    assert_ne!(old, new);
    assert!(fragment.contains("a=candidate:") && fragment.ends_with("a=end-of-candidates\r\n"), "{fragment}");
    // A second one with the old ETag is refused, one with the new ETag is not.
    let again = restart.replace("newufrag", "newerufrag");
    let refused = router.webrtc.trickle(&answer.session, Some(&answer.etag), &again);
    assert_eq!(refused, Err(TrickleError::EtagMismatch));
    // Checks with the old username fragment reach nobody, those with the new one do.
    let check = |ufrag: &str| stun_check(&format!("{ufrag}:newufrag"));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let counters = router.webrtc.counters();
    socket.send_to(&check(&old), router.udp).await.unwrap();
    eventually("the old one is unknown", DEADLINE, async || counters.unknown.load(Ordering::Relaxed) == 1)
        .await;
    socket.send_to(&check(&new), router.udp).await.unwrap();
    eventually("the new one is looked at", DEADLINE, async || counters.refused.load(Ordering::Relaxed) == 1)
        .await;
    router.stop().await;
}

/// A binding request whose MESSAGE-INTEGRITY is wrong.
fn stun_check(username: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut attribute = |kind: u16, value: &[u8]| {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&(value.len() as u16).to_be_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    };
    attribute(0x0006, username.as_bytes());
    attribute(0x0024, &[0, 0, 1, 0]);
    attribute(0x0025, &[]);
    attribute(0x802a, &[1; 8]);
    attribute(0x0008, &[7; 20]);
    let mut message = vec![0, 1];
    message.extend_from_slice(&(body.len() as u16).to_be_bytes());
    message.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    message.extend_from_slice(&[9; 12]);
    message.extend_from_slice(&body);
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_datagrams_change_nothing() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (viewer, answer) = router.viewer(ViewerOptions::default()).await;
    until_units(&viewer, false, 5).await;
    let ufrag = answer.sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap();
    let before = router.webrtc.sizes();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let counters = router.webrtc.counters();
    for n in 0..5_000usize {
        let datagram = match n % 6 {
            0 => stun_check("unknown:someone"),
            1 => stun_check(&format!("{ufrag}:wrong")),
            2 => vec![22; 1 + n % 1400],
            3 => vec![128; 1 + n % 1400],
            4 => vec![0; n % 40],
            _ => (0..n % 1300).map(|i| (i * n) as u8).collect(),
        };
        socket.send_to(&datagram, router.udp).await.unwrap();
        if n % 100 == 99 {
            // Not faster than the port can take them, or most would never get there.
            let all = || {
                let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                load(&counters.unknown) + load(&counters.refused) + load(&counters.overflow)
            };
            eventually("they are counted", DEADLINE, async || all() + 60 > n as u64).await;
        }
    }
    assert!(
        counters.refused.load(Ordering::Relaxed) > 500 && counters.unknown.load(Ordering::Relaxed) > 2_000
    );
    assert_eq!(router.webrtc.sizes(), before, "nothing was learned from strangers");
    let had = viewer.units(false).len();
    until_units(&viewer, false, had + 40).await;
    assert_continuous(&viewer.video());
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_tcp_connections_are_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let check = stun_check("unknown:someone");
    let mut framed = (check.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&check);
    for first in [framed, b"\xff\xff".to_vec(), b"\x00\x04abcd".to_vec(), b"\x00".to_vec(), Vec::new()] {
        let mut stream = tokio::net::TcpStream::connect(router.tcp).await.unwrap();
        stream.write_all(&first).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(7), stream.read_u8()).await;
        assert!(matches!(end, Ok(Err(_))), "{first:?} was not closed: {end:?}");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_offers_are_refused_and_leave_nothing() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let good = offer(&["H264"], &["opus"]);
    let bad = [
        String::new(),
        "\u{0}".repeat(1000),
        "v=0\r\n".into(),
        "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n".repeat(100),
        format!("v=0\r\n{}", "a=candidate:1 1 udp 1 1.2.3.4 1 typ host\r\n".repeat(10_000)),
        good.replace("a=ice-ufrag", "a=x"),
        good.replace("a=fingerprint", "a=x"),
        good.replace("a=setup:actpass", "a=setup:\u{1b}[31mred"),
    ];
    for sdp in &bad {
        let error = router.offer(sdp).await.unwrap_err();
        let OfferError::BadOffer(reason) = error else { panic!("{error:?}") };
        assert!(!reason.is_empty() && reason.chars().all(|c| !c.is_control()), "{reason:?}");
    }
    let sending = good.replace("a=recvonly", "a=sendonly");
    assert_eq!(router.offer(&sending).await.unwrap_err(), OfferError::NoMedia);
    assert_eq!((router.consumers(), router.webrtc.sizes()), (0, (0, 0, 0)));
    router.stop().await;
}
