//! The RTSP source against a real RTSP server, GStreamer's: transports, codecs, authentication, ends.

mod common;

use common::{Camera, eventually};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streamgate::graph::{RtpIn, SourceDetails, SourceError};
use streamgate::media::{Codec, Params, Track};
use streamgate::sources::rtsp::{Output, RtspSource};
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(15);

/// What a run has written.
#[derive(Default, Clone)]
struct Seen {
    tracks: Vec<Track>,
    details: SourceDetails,
    packets: BTreeMap<usize, usize>,
    bytes: usize,
    losses: usize,
    reports: usize,
    announced: usize,
    error: Option<SourceError>,
}

#[derive(Default, Clone)]
struct Collector(Arc<Mutex<Seen>>);

impl Output for Collector {
    fn set_tracks(&mut self, tracks: Vec<Track>, details: SourceDetails) {
        let mut seen = self.0.lock();
        (seen.tracks, seen.details) = (tracks, details);
        seen.announced += 1;
    }
    fn write_rtp(&mut self, packet: RtpIn<'_>) {
        let mut seen = self.0.lock();
        assert!(packet.track < seen.tracks.len(), "written before it was announced");
        *seen.packets.entry(packet.track).or_default() += 1;
        seen.bytes += packet.payload.len();
        seen.losses += usize::from(packet.loss);
    }
    fn sender_report(&mut self, track: usize, ntp: u64, _rtp: u32) {
        let mut seen = self.0.lock();
        assert!(track < seen.tracks.len() && ntp > 0);
        seen.reports += 1;
    }
    fn flush(&mut self) {}
}

/// A run in a task, and what it writes.
struct Run {
    seen: Collector,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Run {
    fn start(url: &str) -> Run {
        let source = RtspSource::open(url).expect("a URL");
        let seen = Collector::default();
        let mut out = seen.clone();
        let task = tokio::spawn(async move {
            let ended = source.run_into(&mut out).await;
            out.0.lock().error = ended.as_ref().err().cloned();
            ended
        });
        Run { seen, task }
    }

    fn seen(&self) -> Seen {
        self.seen.0.lock().clone()
    }

    /// Waits for some packets of each of so many tracks.
    async fn plays(&self, tracks: usize) -> Seen {
        eventually("media of all tracks", SOON, async || {
            let seen = self.seen();
            assert_eq!(seen.error, None, "must not end");
            seen.packets.len() == tracks && seen.packets.values().all(|n| *n >= 20)
        })
        .await;
        self.seen()
    }

    /// Waits for the end and gives its error.
    async fn ends(self) -> SourceError {
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("must end")
            .expect("no panic")
            .expect_err("ends with why")
    }
}

fn codecs(seen: &Seen) -> Vec<(Codec, u32, u8)> {
    seen.tracks.iter().map(|t| (t.codec, t.clock_rate, t.channels)).collect()
}

#[tokio::test]
async fn h264_and_aac_play_over_tcp() {
    let camera = Camera::start("audio=aac");
    let run = Run::start(&camera.url);
    let seen = run.plays(2).await;
    assert_eq!(codecs(&seen), [(Codec::H264, 90_000, 0), (Codec::Aac, 48_000, 2)]);
    assert!(matches!(seen.tracks[0].params, Params::H264 { .. }), "{:?}", seen.tracks[0]);
    assert!(matches!(seen.tracks[1].params, Params::Aac { .. }));
    assert_eq!((seen.losses, seen.announced), (0, 1));
    assert_eq!(seen.details.protocol, "rtsp+tcp");
    assert_eq!(seen.details.remote_addr, format!("127.0.0.1:{}", camera.port));
    assert!(seen.details.sdp.contains("m=video") && seen.details.server.contains("GStreamer"));
    eventually("sender reports", SOON, async || run.seen().reports > 1).await;
}

#[tokio::test]
async fn every_audio_codec_plays_beside_video() {
    let specs = ["opus", "pcma", "pcmu"].map(|audio| (format!("/{audio}"), format!("audio={audio}")));
    let mounts: Vec<_> = specs.iter().map(|(path, spec)| (path.as_str(), spec.as_str())).collect();
    let camera = Camera::start_with(&mounts, None);
    for (path, track) in [
        ("/opus", (Codec::Opus, 48_000, 2)),
        ("/pcma", (Codec::Pcma, 8000, 1)),
        ("/pcmu", (Codec::Pcmu, 8000, 1)),
    ] {
        let run = Run::start(&camera.url_of(path));
        assert_eq!(codecs(&run.plays(2).await), [(Codec::H264, 90_000, 0), track], "{path}");
        run.task.abort();
    }
}

#[tokio::test]
async fn h265_plays_with_its_parameter_sets() {
    let camera = Camera::start("video=h265");
    let seen = Run::start(&camera.url).plays(1).await;
    assert_eq!(codecs(&seen), [(Codec::H265, 90_000, 0)]);
    assert!(matches!(seen.tracks[0].params, Params::H265 { .. }), "{:?}", seen.tracks[0]);
}

#[tokio::test]
async fn audio_alone_plays() {
    let camera = Camera::start("video=none,audio=pcma");
    assert_eq!(codecs(&Run::start(&camera.url).plays(1).await), [(Codec::Pcma, 8000, 1)]);
}

#[tokio::test]
async fn media_option_picks_tracks() {
    let camera = Camera::start_with(&[("/cam", "audio=opus"), ("/other", "audio=opus"), ("/mute", "")], None);
    let audio = Run::start(&format!("{}#media=audio", camera.url));
    assert_eq!(codecs(&audio.plays(1).await), [(Codec::Opus, 48_000, 2)]);
    let video = Run::start(&format!("{}#media=video", camera.url_of("/other")));
    assert_eq!(codecs(&video.plays(1).await), [(Codec::H264, 90_000, 0)]);
    let error = Run::start(&format!("{}#media=audio", camera.url_of("/mute"))).ends().await;
    let SourceError::Refused(why) = error else { panic!("{error:?}") };
    assert!(why.contains("#media=audio") && why.contains("video H264"), "{why}");
}

#[tokio::test]
async fn udp_plays_without_loss_for_longer_than_a_report() {
    let camera = Camera::start("audio=pcma,transport=udp");
    let run = Run::start(&format!("{}#transport=udp", camera.url));
    let seen = run.plays(2).await;
    assert_eq!(seen.details.protocol, "rtsp+udp");
    assert_eq!(seen.losses, 0);
    eventually("sender reports over UDP", SOON, async || run.seen().reports > 1).await;
    let start = Instant::now();
    eventually("plays on for 6 s", SOON, async || {
        assert!(!run.task.is_finished());
        start.elapsed() > Duration::from_secs(6)
    })
    .await;
    let later = run.seen().packets[&0];
    eventually("still plays", SOON, async || run.seen().packets[&0] > later).await;
}

#[tokio::test]
async fn udp_falls_back_to_tcp_when_it_is_refused() {
    let camera = Camera::start("transport=tcp");
    let seen = Run::start(&format!("{}#transport=udp", camera.url)).plays(1).await;
    assert_eq!((seen.details.protocol, seen.announced), ("rtsp+tcp", 1));
}

#[tokio::test]
async fn digest_and_basic_log_in() {
    for method in ["digest", "basic"] {
        let camera = Camera::start_protected(&format!("{method}:admin:p@ss:w/rd"), "");
        let run = Run::start(&camera.url_as("admin:p%40ss%3Aw%2Frd"));
        let seen = run.plays(1).await;
        assert!(!seen.details.sdp.contains("p@ss"), "{method}");
    }
}

#[tokio::test]
async fn wrong_or_missing_credentials_are_told_apart() {
    for method in ["digest", "basic"] {
        let camera = Camera::start_protected(&format!("{method}:admin:right"), "");
        let wrong = Run::start(&camera.url_as("admin:not-right")).ends().await;
        assert_eq!(
            wrong,
            SourceError::Refused("401 Unauthorized: user name or password is wrong".into()),
            "{method}"
        );
        let missing = Run::start(&camera.url).ends().await;
        assert!(missing.to_string().contains("wants a user name and password"), "{method}: {missing}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_there_is_a_404() {
    let camera = Camera::start("");
    let error = Run::start(&camera.url_of("/nothing")).ends().await;
    assert_eq!(error, SourceError::Refused("404 Not Found: no such path on the camera".into()));
}

#[tokio::test]
async fn a_dead_camera_is_noticed_at_once() {
    let mut camera = Camera::start("");
    let run = Run::start(&camera.url);
    run.plays(1).await;
    camera.kill();
    let start = Instant::now();
    let error = run.ends().await;
    assert!(matches!(error, SourceError::Ended(_)), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let error = Run::start(&camera.url).ends().await;
    assert!(
        matches!(&error, SourceError::Unreachable(why) if why.contains("refuses connections")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_camera_that_stops_sending_is_noticed() {
    let camera = Camera::start("");
    let run = Run::start(&format!("{}#timeout=2", camera.url));
    run.plays(1).await;
    camera.stall();
    assert_eq!(run.ends().await, SourceError::Ended("no media for 2 s".into()));
}

#[tokio::test]
async fn dropping_the_run_frees_the_camera() {
    let camera = Camera::start("audio=pcma");
    for transport in ["tcp", "udp"] {
        let run = Run::start(&format!("{}#transport={transport}", camera.url));
        run.plays(2).await;
        assert_eq!(camera.clients(), 1);
        run.task.abort();
        eventually("the camera is alone", Duration::from_secs(3), async || camera.clients() == 0).await;
    }
}
