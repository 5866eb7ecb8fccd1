//! Players that are not ours play what is served, from the real program and real RTSP.

mod common;
mod hls_support;

use common::{Camera, Streamgate};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Runs a program for a minute at most; it must succeed. Gives its output and its complaints.
async fn run(program: &str, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("timeout");
    command.args(["60", program]).args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("it can be run");
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// What ffprobe says of the streams; it must not complain.
async fn probe(url: &str) -> Vec<Value> {
    let (out, complaints) = run("ffprobe", &["-v", "warning", "-show_streams", "-of", "json", url]).await;
    assert_eq!(complaints, "");
    let json: Value = serde_json::from_str(&out).expect("JSON");
    json["streams"].as_array().expect("a list").clone()
}

/// Decodes four seconds of everything; no frame may be damaged or out of order.
async fn play(url: &str) {
    let (_, complaints) =
        run("ffmpeg", &["-v", "warning", "-xerror", "-i", url, "-t", "4", "-f", "null", "-"]).await;
    // ffmpeg 5 reads the init segment again with each reload of a live playlist, and warns of its own doing.
    let own = ["Found duplicated MOOV Atom", "Last message repeated"];
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| !own.iter().any(|own| line.contains(own))).collect();
    assert_eq!(complaints, Vec::<&str>::new());
}

async fn plays(spec: &str, expected: &[(&str, &str)]) -> Vec<Value> {
    let camera = Camera::start(spec);
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let url = streamgate.url("/hls/front/index.m3u8");
    let streams = probe(&url).await;
    let found: Vec<(&str, &str)> = streams
        .iter()
        .map(|stream| {
            let text = |key: &str| stream[key].as_str().unwrap_or_default();
            (text("codec_name"), text("codec_tag_string"))
        })
        .collect();
    // The same streams are in each program and once outside.
    assert!(expected.iter().all(|codec| found.contains(codec)), "{found:?}");
    assert!(found.iter().all(|codec| expected.contains(codec)), "{found:?}");
    play(&url).await;
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_h264_and_aac() {
    plays("gop=25,audio=aac", &[("h264", "avc1"), ("aac", "mp4a")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_h265_and_opus() {
    plays("video=h265,gop=25,audio=opus", &[("hevc", "hvc1"), ("opus", "Opus")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_g711_as_flac() {
    plays("gop=25,audio=pcma", &[("h264", "avc1"), ("flac", "fLaC")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_sound_without_pictures() {
    plays("video=none,audio=pcmu", &[("flac", "fLaC")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_b_frames() {
    for clip in ["h264_high_bf3_g60", "h265_main_bf3_g60"] {
        let codec = if clip.starts_with("h265") { ("hevc", "hvc1") } else { ("h264", "avc1") };
        let streams = plays(&format!("clip={clip},audio=aac"), &[codec, ("aac", "mp4a")]).await;
        let video = streams.iter().find(|stream| stream["codec_type"] == "video").expect("video");
        assert_eq!(video["has_b_frames"], 2, "{clip}");
    }
}
