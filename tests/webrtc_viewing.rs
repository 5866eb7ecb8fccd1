//! What viewers of one camera see: the picture at once, every byte, and their own clock.

#[path = "common/mod.rs"]
mod common;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;
mod webrtc_support;

use common::eventually;
use std::time::{Duration, Instant, SystemTime};
use str0m::media::MediaKind;
use streamgate::consumers::webrtc::Options;
use streamgate::media::Codec;
use webrtc_client::{Offering, Rtp, Transport, Viewer, ViewerOptions};
use webrtc_support::bad_link::{BadLink, SERVER, VIEWER};
use webrtc_support::{ClipCamera, DEADLINE, Router, assert_continuous, audio_payload, shown};

async fn until_units(viewer: &Viewer, h265: bool, count: usize) {
    eventually("units of video arrive", DEADLINE, async || viewer.units(h265).len() >= count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_starts_at_the_keyframe_at_once_and_gets_every_byte() {
    let router = Router::start(ClipCamera::new("h264_main_g120", None)).await;
    let (first, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&first, false, 45).await;
    // In the middle of a GOP of 4 s: without the cached GOP this one would wait for more than 2 s.
    let asked = Instant::now();
    let (second, _) = router.viewer(ViewerOptions::default()).await;
    let connected = Instant::now();
    until_units(&second, false, 1).await;
    assert!(connected.elapsed() < Duration::from_millis(300), "{:?}", connected.elapsed());
    assert!(asked.elapsed() < Duration::from_millis(1000), "{:?}", asked.elapsed());
    until_units(&second, false, 200).await;
    for viewer in [&first, &second] {
        let units = viewer.units(false);
        assert_eq!(router.camera.units().position(&units) % 120, 0, "it starts at a keyframe");
        assert_continuous(&viewer.video());
    }
    assert!(!router.stream.producers()[0].is_converting(), "nobody asked for frames");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cached_timestamps_are_compressed_and_run_into_the_live_ones() {
    let router = Router::start(ClipCamera::new("h264_main_g120", None)).await;
    let (first, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&first, false, 60).await;
    let (second, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&second, false, 110).await;
    let stamps: Vec<u32> = second.units(false).iter().map(|(timestamp, _)| *timestamp).collect();
    let steps: Vec<u32> = stamps.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.iter().all(|step| *step >= 1), "each unit has a timestamp of its own: {steps:?}");
    let compressed = steps.iter().take_while(|step| **step <= 90).count();
    assert!(compressed >= 50, "{compressed} compressed");
    assert!(steps[compressed..].iter().all(|step| (2_000..4_500).contains(step)), "then live: {steps:?}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_goes_to_who_can_play_it_byte_for_byte() {
    let router = Router::start(ClipCamera::new("h265_main_g60", None)).await;
    let (viewer, answer) =
        router.viewer(ViewerOptions { video: vec!["H265", "H264"], ..Default::default() }).await;
    let video = answer.sdp.lines().position(|line| line.starts_with("m=video")).unwrap();
    let first = answer.sdp.lines().skip(video).find(|line| line.starts_with("a=rtpmap:")).unwrap();
    assert!(first.ends_with("H265/90000"), "{first}");
    until_units(&viewer, true, 130).await;
    assert_eq!(router.camera.units().position(&viewer.units(true)) % 60, 0);
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_tcp_carries_the_same() {
    let router = Router::start(ClipCamera::new("h264_main_g60", Some(Codec::Pcma))).await;
    let (viewer, _) = router.viewer(ViewerOptions { transport: Transport::Tcp, ..Default::default() }).await;
    until_units(&viewer, false, 70).await;
    assert_eq!(router.camera.units().position(&viewer.units(false)) % 60, 0);
    let consumer = router.stream.consumers().remove(0);
    let info = consumer.info.lock().clone();
    assert_eq!((info.format_name, info.protocol), ("webrtc", "tcp"));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_passes_through_and_shares_the_pictures_clock() {
    let router = Router::start(ClipCamera::new("h264_main_g60", Some(Codec::Pcma))).await;
    let (viewer, answer) = router.viewer(ViewerOptions::default()).await;
    assert_eq!(answer.notes, Vec::<String>::new());
    let kinds = [MediaKind::Audio, MediaKind::Video];
    eventually("reports of both kinds arrive", DEADLINE, async || {
        let seen = viewer.seen();
        kinds.iter().all(|kind| seen.reports.iter().filter(|r| r.kind == *kind).count() >= 3)
    })
    .await;
    let audio = viewer.audio();
    assert_continuous(&audio);
    let start = (0..5000).find(|n| audio_payload(*n) == *audio[0].payload).unwrap();
    for (offset, packet) in audio.iter().enumerate().take(100) {
        assert_eq!(*packet.payload, *audio_payload(start + offset as u64));
        assert!(!packet.marker);
    }
    // The camera takes sound and picture at the same moments: by the reports their wall clocks agree.
    let wall = |kind, rate: f64| -> f64 {
        let seen = viewer.seen();
        let report = *seen.reports.iter().rfind(|report| report.kind == kind).unwrap();
        let newest = seen.packets.iter().rfind(|packet| packet.kind == kind).unwrap();
        let ahead = newest.timestamp.wrapping_sub(report.rtp_time as u32) as i32;
        let ntp = report.ntp.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        // When it was taken by the reports, against when it arrived.
        ntp + f64::from(ahead) / rate + newest.at.elapsed().as_secs_f64()
    };
    let difference = wall(MediaKind::Audio, 8_000.0) - wall(MediaKind::Video, 90_000.0);
    assert!(difference.abs() < 0.1, "sound and picture are {difference} s apart");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_come_only_of_what_is_sent_and_keep_one_line() {
    let router = Router::start(ClipCamera::new("h264_main_g120", None)).await;
    let (first, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&first, false, 80).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    eventually("reports arrive", DEADLINE, async || viewer.seen().reports.len() >= 4).await;
    let reports = viewer.seen().reports.clone();
    for pair in reports.windows(2) {
        let rtp = pair[1].rtp_time.wrapping_sub(pair[0].rtp_time) as i32 as f64 / 90_000.0;
        let ntp = pair[1].ntp.duration_since(pair[0].ntp).unwrap().as_secs_f64();
        assert!((rtp - ntp).abs() < 0.05, "rtp went on {rtp} s, the wall clock {ntp} s");
    }
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_are_sent_again() {
    let router = Router::start(ClipCamera::new("h264_main_g60", None)).await;
    let (viewer, _) = router.viewer(ViewerOptions { lose_every: 20, ..Default::default() }).await;
    eventually("much is lost", DEADLINE, async || viewer.seen().lost >= 20).await;
    let newest = viewer.video().last().unwrap().sequence;
    let healed =
        |packets: &[Rtp]| packets.windows(2).take_while(|p| p[0].sequence + 1 == p[1].sequence).count();
    eventually("what was lost is there", DEADLINE, async || {
        let packets = viewer.video();
        packets[0].sequence + healed(&packets) as u64 >= newest
    })
    .await;
    router.camera.units().position(&viewer.units(false));
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_picture_is_healed_from_the_ring_and_not_more_than_once_a_second() {
    let router = Router::start(ClipCamera::new("h264_main_g120", None)).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&viewer, false, 50).await;
    let keyframes = |viewer: &Viewer| {
        viewer.units(false).iter().filter(|(_, nals)| nals.iter().any(|nal| nal[0] & 0x1f == 5)).count()
    };
    assert_eq!(keyframes(&viewer), 1);
    for _ in 0..5 {
        viewer.request_keyframe();
    }
    eventually("a keyframe comes", Duration::from_millis(700), async || keyframes(&viewer) >= 2).await;
    until_units(&viewer, false, 150).await;
    assert_eq!(keyframes(&viewer), 2, "one burst for many requests");
    assert_continuous(&viewer.video());
    let mut stamps: Vec<u32> = viewer.units(false).iter().map(|(timestamp, _)| *timestamp).collect();
    let all = stamps.len();
    stamps.dedup();
    assert_eq!(stamps.len(), all, "no timestamp stands for two pictures");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequence_numbers_wrap_and_the_picture_goes_on() {
    let camera = ClipCamera::new("h264_main_g60", None);
    camera.orders.send_modify(|orders| orders.fps = 6_000);
    let router = Router::start(camera).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    let deadline = Duration::from_secs(40);
    eventually("more than 65536 packets arrive", deadline, async || {
        viewer.seen().packets.last().is_some_and(|packet| packet.sequence > 65_536 + 20_000)
    })
    .await;
    let error = viewer.seen().error.clone();
    assert_eq!(error, None);
    let after = viewer.seen().packets.iter().filter(|packet| packet.sequence > 65_536).count();
    assert!(after > 10_000, "what comes after the wrap can be decrypted: {after}");
    router.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_is_listed_with_its_counts_and_its_round_trip() {
    let router = Router::start(ClipCamera::new("h264_main_g60", Some(Codec::Pcma))).await;
    let (viewer, _) = router.viewer(ViewerOptions::default()).await;
    until_units(&viewer, false, 30).await;
    let consumer = router.stream.consumers().remove(0);
    let info = consumer.info.lock().clone();
    assert_eq!((info.format_name, info.protocol, info.user_agent.as_str()), ("webrtc", "udp", "test"));
    assert!(info.remote_addr.starts_with("127.0.0.1:") && !info.remote_addr.ends_with(":5555"), "{info:?}");
    assert_eq!(info.codecs, [Codec::H264, Codec::Pcma]);
    let load = std::sync::atomic::Ordering::Relaxed;
    assert!(consumer.packets.load(load) > 30 && consumer.bytes.load(load) > 30_000);
    eventually("the round trip is known", DEADLINE, async || consumer.rtt_us.load(load) > 0).await;
    router.stop().await;
}

/// Runs `check` with a router on one side of a bad link and a viewer on the other, unless that is not possible here.
/// Says what the link forwarded to the viewer and dropped.
fn over_a_bad_link(
    link: &[&str],
    clip: &'static str,
    options: Options,
    check: impl AsyncFnOnce(&Router, &Viewer) + Send + 'static,
) -> Option<(usize, usize)> {
    let link = BadLink::open(link)?;
    std::thread::scope(|scope| {
        // Each side's sockets belong to the namespace of the thread that opens them.
        let (to_viewer, offers) = std::sync::mpsc::sync_channel::<(Offering, String)>(1);
        let (to_server, viewers) = std::sync::mpsc::sync_channel::<Viewer>(1);
        let (make, offering) = std::sync::mpsc::sync_channel::<Offering>(1);
        let link = &link;
        scope.spawn(move || {
            link.enter_viewer();
            make.send(Offering::new(ViewerOptions { address: VIEWER, ..Default::default() })).unwrap();
            let (offering, answer) = offers.recv().unwrap();
            to_server.send(offering.connect(&answer)).unwrap();
        });
        let server = scope.spawn(move || {
            link.enter_server();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.unwrap().block_on(async move {
                let router = Router::at(SERVER, ClipCamera::new(clip, None), options).await;
                let offering = offering.recv().unwrap();
                let answer = router.offer(&offering.offer).await.unwrap();
                to_viewer.send((offering, answer.sdp)).unwrap();
                let viewer = viewers.recv().unwrap();
                check(&router, &viewer).await;
                drop(viewer);
                router.stop().await;
            });
        });
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    Some(link.close())
}

#[test]
fn a_bad_link_costs_pictures_but_never_shows_a_broken_one() {
    // 5 Mbit/s with little room, 4 % lost, 20 ms each way: the GOP that a viewer starts with does not get through whole.
    let link = ["20", "2", "4", "5000", "0", "32000"];
    let counts = over_a_bad_link(&link, "h264_main_g60", Options::default(), async |router, viewer| {
        let units = router.camera.units();
        let deadline = Duration::from_secs(40);
        eventually("ten seconds' worth of pictures are whole", deadline, async || {
            let packets = viewer.video();
            // What any receiver does: a gap that stays is answered with a request for a keyframe.
            let newest = packets.last().map(|packet| packet.sequence);
            let gap = packets.windows(2).rfind(|pair| pair[0].sequence + 1 != pair[1].sequence);
            if gap.is_some_and(|gap| newest > Some(gap[1].sequence + 20)) {
                viewer.request_keyframe();
            }
            packets.len() > 100 && shown(&units, &packets).0 >= 300
        })
        .await;
    });
    let Some((forwarded, dropped)) = counts else { return };
    assert!(dropped > 10, "the link was not bad: {dropped} of {forwarded} dropped");
}
