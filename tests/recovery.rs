//! Cameras come and go, change and stall; viewers go on by themselves.

mod common;
mod watching;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Camera, Streamgate, delete, eventually, get_json, put};
use std::time::{Duration, Instant};
use watching::{offer, watch};
use webrtc_client::{Transport, Viewer, ViewerOptions};

/// Longer than the longest pause before a second dial, plus a keyframe interval.
const SOON: Duration = Duration::from_secs(20);

/// How many video packets a viewer has now.
fn count(viewer: &Viewer) -> usize {
    viewer.video().len()
}

async fn more_video(viewer: &Viewer, what: &str) {
    let before = count(viewer);
    eventually(what, SOON, async || count(viewer) > before + 20).await;
}

async fn state(streamgate: &Streamgate, stream: &str) -> String {
    let json = get_json(&streamgate.url(&format!("/api/streams?src={stream}"))).await;
    json["state"].as_str().unwrap_or_default().to_owned()
}

/// Sequence numbers without a gap and timestamps that never run back: nothing a decoder could stumble over.
fn assert_continuous(viewer: &Viewer) {
    let video = viewer.video();
    for pair in video.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence + 1, "a sequence number is missing");
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32;
        assert!(step >= 0, "the timestamp ran back by {} ticks", -step);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_is_killed_and_restarted_is_watched_on() {
    let mut camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let viewer = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&viewer, "the picture starts").await;
    camera.kill();
    eventually("the loss is noticed", SOON, async || state(&streamgate, "front").await == "retrying").await;
    camera.restart();
    more_video(&viewer, "the picture goes on").await;
    assert!(viewer.is_connected() && !viewer.is_closed());
    assert_continuous(&viewer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_stalls_without_closing_is_noticed_and_dialled_again() {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &format!("{}#timeout=2", camera.url))]);
    let viewer = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&viewer, "the picture starts").await;
    camera.stall();
    eventually("the stall is noticed", SOON, async || state(&streamgate, "front").await == "retrying").await;
    let json = get_json(&streamgate.url("/api/streams?src=front")).await;
    assert!(json["last_error"].as_str().unwrap_or_default().contains("no media"), "{json}");
    // The new connection is served.
    more_video(&viewer, "the picture goes on").await;
    assert_continuous(&viewer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_who_comes_before_the_camera_waits_for_it() {
    let mut camera = Camera::start("gop=25");
    camera.kill();
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let asked = offer(&streamgate, "front", ViewerOptions::default());
    let (answered, ()) = tokio::join!(asked, async {
        eventually("the first dial fails", SOON, async || state(&streamgate, "front").await == "retrying")
            .await;
        camera.restart();
    });
    let (offering, reply) = answered;
    assert_eq!(reply.status, 201, "{}", reply.text());
    more_video(&offering.connect(&reply.text()), "the picture starts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_of_a_dead_camera_is_told_within_ten_seconds() {
    let mut camera = Camera::start("gop=25");
    camera.kill();
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let asked = Instant::now();
    let (_, reply) = offer(&streamgate, "front", ViewerOptions::default()).await;
    assert!(matches!(reply.status, 502 | 504), "{}: {}", reply.status, reply.text());
    assert!(reply.text().contains("refuses connections"), "{}", reply.text());
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_resolution_is_followed() {
    let camera = Camera::start("gop=25,size=640x360");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let viewer = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&viewer, "the picture starts").await;
    camera.resize("320x240");
    eventually("the new size is known", SOON, async || {
        let json = get_json(&streamgate.url("/api/streams?src=front")).await;
        json["width"] == 320 && json["height"] == 240
    })
    .await;
    more_video(&viewer, "the picture goes on").await;
    assert_continuous(&viewer);
    let sets: std::collections::BTreeSet<Vec<u8>> =
        viewer.units(false).into_iter().flat_map(|(_, nals)| nals).filter(|nal| nal[0] & 31 == 7).collect();
    assert_eq!(sets.len(), 2, "both sizes' parameter sets reached the viewer");
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_replaced_by_h265_goes_on_where_the_viewer_can_play_both() {
    let mut camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let both = ViewerOptions { video: vec!["H264", "H265"], ..ViewerOptions::default() };
    let viewer = watch(&streamgate, "front", both).await;
    more_video(&viewer, "the picture starts").await;
    let before = viewer.video()[0].payload_type;
    camera.replace("video=h265,gop=25");
    eventually("H.265 comes", SOON, async || viewer.video().iter().any(|p| p.payload_type != before)).await;
    assert!(!viewer.is_closed());
    assert_continuous(&viewer);
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_replaced_by_h265_sends_the_others_back_to_ask_again() {
    let mut camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let viewer = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&viewer, "the picture starts").await;
    camera.replace("video=h265,gop=25");
    eventually("the session is ended", SOON, async || viewer.is_closed()).await;
    let (_, reply) = offer(&streamgate, "front", ViewerOptions::default()).await;
    assert_eq!(reply.status, 422, "{}", reply.text());
    assert!(reply.text().contains("H265"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_stops_reading_disturbs_nobody() {
    let camera = Camera::start("gop=25,kbps=2000");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let tcp = ViewerOptions { transport: Transport::Tcp, ..ViewerOptions::default() };
    let stuck = watch(&streamgate, "front", tcp).await;
    let healthy = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&stuck, "both play").await;
    more_video(&healthy, "both play").await;
    stuck.stop_reading();
    let memory = streamgate.rss_kb();
    eventually("the stuck one is given up", Duration::from_secs(30), async || {
        let json = get_json(&streamgate.url("/api/streams?src=front")).await;
        json["viewers"] == 1
    })
    .await;
    more_video(&healthy, "the other one plays on").await;
    assert_continuous(&healthy);
    assert!(streamgate.rss_kb() < memory + 20_000, "memory grew to {} kB", streamgate.rss_kb());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_stream_ends_its_viewers_and_the_cameras_connection() {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::start(&[]);
    let created = put(&streamgate.url(&format!("/api/streams?name=front&src={}", camera.url)), "", "").await;
    assert!(matches!(created.status, 200 | 201), "{}", created.text());
    let viewer = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&viewer, "the picture starts").await;
    assert_eq!(camera.clients(), 1);
    assert_eq!(delete(&streamgate.url("/api/streams?src=front")).await.status, 200);
    eventually("both are gone", Duration::from_secs(3), async || viewer.is_closed() && camera.clients() == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_that_vanishes_is_forgotten_and_the_camera_left() {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_config(&format!(
        "streams:\n  front:\n    sources: [\"{}\"]\n    linger: 1s\n",
        camera.url
    ));
    let viewer = watch(&streamgate, "front", ViewerOptions::default()).await;
    more_video(&viewer, "the picture starts").await;
    viewer.vanish();
    let gone = Instant::now();
    eventually("the viewer is forgotten", Duration::from_secs(10), async || {
        get_json(&streamgate.url("/api/streams?src=front")).await["viewers"] == 0
    })
    .await;
    eventually("the camera is left", Duration::from_secs(5), async || camera.clients() == 0).await;
    assert!(gone.elapsed() < Duration::from_secs(13));
}
