//! The camera simulator does what the other tests rely on.

mod common;

use common::{Camera, Clip, clips_folder, eventually};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Plays an RTSP URL with ffmpeg into an elementary stream.
fn record(url: &str, format: &str) -> Vec<u8> {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-rtsp_transport", "tcp", "-i", url])
        .args(["-map", "0:v", "-c", "copy", "-f", format, "-"])
        .output()
        .expect("ffmpeg can be run");
    output.stdout
}

#[test]
fn a_clip_played_once_arrives_with_its_nal_units_untouched() {
    let camera = Camera::start_with(
        &[("/h264", "clip=h264_main_g60,once=yes,audio=opus"), ("/h265", "clip=h265_main_g60,once=yes")],
        None,
    );
    let (h264, h265) = std::thread::scope(|scope| {
        let h264 = scope.spawn(|| record(&camera.url_of("/h264"), "h264"));
        let h265 = scope.spawn(|| record(&camera.url_of("/h265"), "hevc"));
        (h264.join().expect("recorded"), h265.join().expect("recorded"))
    });
    assert!(Clip::named("h264_main_g60").nals().len() >= Clip::FRAMES);
    assert!(common::annexb_nals(&h264) == Clip::named("h264_main_g60").nals());
    assert!(common::annexb_nals(&h265) == Clip::named("h265_main_g60").nals());
}

#[tokio::test]
async fn the_camera_counts_its_clients_and_comes_back_on_its_port() {
    let mut camera = Camera::start("clip=h264_main_g60,audio=pcma");
    let mut player = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "quiet", "-rtsp_transport", "tcp", "-i", &camera.url, "-f", "null", "-"])
        .stdout(Stdio::null())
        .spawn()
        .expect("ffmpeg can be run");
    eventually("one client is connected", Duration::from_secs(10), async || camera.clients() == 1).await;
    let port = camera.port;
    camera.restart();
    assert_eq!(camera.port, port);
    player.wait().expect("the player ends with its connection");
    assert_eq!(camera.clients(), 0);
    assert!(clips_folder().join("a_aac.mp4").exists());
}
