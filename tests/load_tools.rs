//! `streamgate camera` and `streamgate bench`: a rehearsal on one machine, with the real program between them.

#[path = "common/mod.rs"]
mod common;

use common::Streamgate;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

fn tool(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
    command.args(args).stdin(Stdio::null());
    command
}

/// `streamgate camera` on a free port. Ends with the test.
struct Cameras {
    child: Child,
    /// `rtsp://127.0.0.1:PORT`.
    base: String,
}

impl Cameras {
    fn start(args: &[&str]) -> Cameras {
        let mut command = tool(&["camera", "--listen", "127.0.0.1:0"]);
        let child = command.args(args).stdout(Stdio::piped()).spawn().expect("the binary can be run");
        let mut cameras = Cameras { child, base: String::new() };
        let mut line = String::new();
        let stdout = cameras.child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("text");
        // `serving rtsp://127.0.0.1:PORT/cam1…`
        let url = line.split(' ').nth(1).and_then(|url| url.split_once("/cam1")).expect(&line);
        cameras.base = url.0.to_owned();
        cameras
    }

    fn url(&self, number: usize) -> String {
        format!("{}/cam{number}", self.base)
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bench(url: &str, args: &[&str]) -> Output {
    tool(&["bench", "--url", url]).args(args).output().expect("the binary can be run")
}

fn report(url: &str, args: &[&str]) -> Value {
    let output = bench(url, &[args, &["--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn ffprobe_plays_a_rehearsal_camera() {
    let cameras = Cameras::start(&["--cameras", "3", "--gop", "1s", "--bitrate", "2M"]);
    let mut probe = Command::new("ffprobe");
    probe.args(["-v", "error", "-rtsp_transport", "tcp", "-read_intervals", "%+4", "-select_streams", "v"]);
    probe.args(["-show_entries", "stream=codec_name,width,height:packet=size,flags", "-of", "json"]);
    let output = probe.arg(cameras.url(3)).output().expect("ffprobe can be run");
    let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let stream = &seen["streams"][0];
    assert_eq!(stream["codec_name"], "h264", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((stream["width"].as_u64(), stream["height"].as_u64()), (Some(1280), Some(720)));
    let packets = seen["packets"].as_array().expect("packets");
    assert!(packets.len() >= 90, "{} packets", packets.len());
    let bytes: u64 = packets.iter().filter_map(|p| p["size"].as_str()?.parse::<u64>().ok()).sum();
    let bitrate = bytes * 8 * 30 / packets.len() as u64;
    assert!((1_700_000..2_300_000).contains(&bitrate), "{bitrate} bits a second");
    let keyframes = packets.iter().filter(|p| p["flags"].as_str().is_some_and(|f| f.starts_with('K')));
    assert!((3..=6).contains(&keyframes.count()), "a keyframe each second");
}

#[test]
fn webrtc_viewers_are_counted_and_checked() {
    let cameras = Cameras::start(&["--bitrate", "2M"]);
    let streamgate = Streamgate::with_streams(&[("front", &cameras.url(1))]);
    let pid = streamgate.pid.to_string();
    let url = streamgate.url("/api/webrtc?src=front");
    let args =
        ["--viewers", "6", "--decrypt", "2", "--stall", "1", "--seconds", "3", "--pid", &pid, "--floor"];
    let report = report(&url, &args);
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert_eq!((number("/viewers/joined"), number("/viewers/failed")), (6.0, 0.0), "{report:#}");
    // Five of them read: the sixth has stopped before the figures begin.
    assert_eq!(number("/viewers/stalled"), 1.0, "{report:#}");
    assert_eq!((number("/lost"), number("/viewers/ended_early")), (0.0, 0.0), "{report:#}");
    assert_eq!((number("/checked/broken"), number("/checked/late_starts")), (0.0, 0.0), "{report:#}");
    // Thirty pictures a second for each, give or take what a busy machine holds back.
    assert!((5.0 * 60.0..5.0 * 150.0).contains(&number("/frames")), "{report:#}");
    assert!(number("/packets") > 5.0 * number("/frames"), "{report:#}");
    assert!(number("/checked/frames") > 2.0 * 60.0, "{report:#}");
    assert_eq!(number("/join_ms/first_keyframe/count"), 2.0, "{report:#}");
    assert_eq!(number("/join_ms/first_media/count"), 6.0, "{report:#}");
    assert!(number("/latency_ms/p50") < 5000.0 && number("/latency_ms/count") > 100.0, "{report:#}");
    assert!(number("/server/cpu_us_per_packet") > 0.0 && number("/server/rss_kb") > 1000.0, "{report:#}");
    assert!(number("/floor/cpu_us_per_packet") > 0.0 && number("/floor/ratio") > 0.0, "{report:#}");
}

#[test]
fn hls_viewers_fetch_parts_at_the_live_edge() {
    let cameras = Cameras::start(&["--bitrate", "1M", "--gop", "1s"]);
    let streamgate = Streamgate::with_streams(&[("front", &cameras.url(1))]);
    let pid = streamgate.pid.to_string();
    let url = streamgate.url("/api/stream.m3u8?src=front");
    let report = report(&url, &["--viewers", "3", "--decrypt", "1", "--seconds", "4", "--pid", &pid]);
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
    assert_eq!((number("/viewers/joined"), number("/viewers/failed")), (3.0, 0.0), "{report:#}");
    assert!(number("/parts") >= 3.0 && number("/responses") > number("/parts"), "{report:#}");
    assert!(number("/latency_ms/count") >= 1.0 && number("/latency_ms/p50") < 15_000.0, "{report:#}");
    assert!(number("/server/cpu_us_per_response") >= 0.0, "{report:#}");
}

#[test]
fn what_can_not_be_done_is_refused_with_a_reason() {
    let streamgate = Streamgate::start(&[]);
    let unknown = streamgate.url("/api/webrtc?src=nobody");
    let cases: [(&str, &[&str], i32, &str); 8] = [
        ("https://127.0.0.1/api/webrtc?src=a", &[], 2, "https is not supported"),
        ("front", &[], 2, "e.g. http://127.0.0.1:1984"),
        ("http://127.0.0.1:9/x", &["--pid", "4294967295"], 2, "no such process"),
        ("http://127.0.0.1:9/x.m3u8", &["--floor"], 2, "--floor is about WebRTC"),
        ("http://127.0.0.1:9/x.m3u8", &["--stall", "1"], 2, "--stall is about WebRTC"),
        ("http://127.0.0.1:9/x", &["--viewers", "3", "--stall", "3"], 2, "--stall leaves nobody"),
        ("http://127.0.0.1:9/x", &[], 1, "127.0.0.1:9: "),
        (&unknown, &["--viewers", "1"], 1, "no viewer joined: HTTP 404"),
    ];
    for (url, args, code, says) in cases {
        let output = bench(url, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(says), "{url} {args:?}: {said}");
    }
    let output = tool(&["camera", "--bitrate", "100k"]).output().expect("the binary can be run");
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    let output = tool(&["camera", "--cameras", "2", "--print-config"]).output().expect("can be run");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("rehearsal.yaml");
    std::fs::write(&file, &output.stdout).expect("a file in it");
    let checked = tool(&["check", "-c"]).arg(&file).output().expect("the binary can be run");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
