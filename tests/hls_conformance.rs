//! Every rule of the protocol, held against the real program while cameras misbehave.
//!
//! `HLS_SECONDS` sets how long each poller runs; 20 by default.

mod common;
mod hls_support;

use common::{Camera, Streamgate, eventually, get_json};
use hls_support::{OddCamera, Poller, media_playlist};
use std::time::Duration;

fn time() -> Duration {
    let seconds = std::env::var("HLS_SECONDS").ok().and_then(|value| value.parse().ok()).unwrap_or(20);
    Duration::from_secs(seconds)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_camera_is_served_by_the_rules() {
    let camera = Camera::start("gop=25,audio=aac");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut poller = Poller::new(media_playlist(&streamgate, "front").await);
    poller.run(time()).await;
    assert!(poller.segments >= 6, "{} segments", poller.segments);
    assert_eq!(poller.discontinuities, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn b_frames_and_long_gops_are_served_by_the_rules() {
    let camera = Camera::start_with(
        &[("/b", "clip=h264_high_bf3_g60,audio=opus"), ("/g", "clip=h264_main_g120,audio=pcma")],
        None,
    );
    let streamgate = Streamgate::with_streams(&[("b", &camera.url_of("/b")), ("g", &camera.url_of("/g"))]);
    let (mut b, mut g) = (
        Poller::new(media_playlist(&streamgate, "b").await),
        Poller::new(media_playlist(&streamgate, "g").await),
    );
    tokio::join!(b.run(time()), g.run(time()));
    assert!(b.segments >= 6 && g.segments >= 4, "{} and {} segments", b.segments, g.segments);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_comes_back_changed_is_followed_by_the_rules() {
    let mut camera = Camera::start("gop=25,audio=pcma");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut poller = Poller::new(media_playlist(&streamgate, "front").await);
    let phase = time() / 4;
    poller.run(phase).await;
    camera.resize("320x240");
    poller.run(phase).await;
    camera.restart();
    poller.run(phase).await;
    camera.replace("video=h265,gop=25,fps=15,audio=aac");
    eventually("it is live again", Duration::from_secs(20), async || {
        let json = get_json(&streamgate.url("/api/streams?src=front")).await;
        json["state"] == "live" && json["video_codec"] == "hevc"
    })
    .await;
    poller.run(phase).await;
    assert!(poller.discontinuities >= 3, "{} discontinuities", poller.discontinuities);
}

#[tokio::test(flavor = "multi_thread")]
async fn jitter_wandering_gops_and_broken_connections_are_served_by_the_rules() {
    let camera = OddCamera::start().await;
    let streamgate = Streamgate::with_streams(&[("odd", &camera.url)]);
    let mut poller = Poller::new(media_playlist(&streamgate, "odd").await);
    poller.run(time() * 3 / 4).await;
    assert_eq!(poller.discontinuities, 0, "jitter is no reason");
    camera.drop_clients();
    poller.run(time() / 4).await;
    assert!(poller.segments >= 5, "{} segments", poller.segments);
}
