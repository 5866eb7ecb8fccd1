//! A clip that flashes and beeps at the same instants: how far apart a viewer gets the two, by WebRTC, HLS, MSE and RTSP, at the
//! start and after the camera has come back with other RTP timestamps, or for as long as one watches.

mod common;
mod hls_support;
mod mse_support;
mod rtsp_support;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Camera, Streamgate, eventually, get, post};
use hls_support::{Playlist, Segment, media, media_playlist};
use mse_support::{CODECS, Socket, Watched};
use rtsp_support::{Client, Depacketized, Message};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};
use str0m::media::MediaKind;
use streamgate::media::rtp::header::{self, SenderReport};
use webrtc_client::{Offering, Report, Viewer, ViewerOptions};

const SOON: Duration = Duration::from_secs(30);
/// What a viewer does not notice, in seconds.
const LIMIT: f64 = 0.040;

/// Runs ffmpeg over a file and gives what its `metadata=print` filters say: `(pts_time, value)`.
fn measure(file: &Path, arguments: &[&str]) -> Vec<(f64, f64)> {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-nostdin", "-v", "error", "-copyts", "-i"])
        .arg(file)
        .args(arguments)
        .args(["-f", "null", "-"]);
    let output = command.output().expect("ffmpeg can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut measured = Vec::new();
    let mut time = 0.0;
    for line in text.lines() {
        if let Some((_, pts)) = line.split_once("pts_time:") {
            time = pts.trim().parse().expect("seconds");
        } else if let Some((_, value)) = line.split_once('=') {
            measured.push((time, value.parse().unwrap_or(f64::NEG_INFINITY)));
        }
    }
    measured
}

/// The brightness of each picture of a file.
fn brightness(file: &Path) -> Vec<(f64, f64)> {
    measure(file, &["-map", "0:v", "-vf", "signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=-"])
}

/// The loudness of each millisecond of a file, in dB.
fn loudness(file: &Path) -> Vec<(f64, f64)> {
    let filter = "aresample=48000,asetnsamples=n=48:p=0,astats=metadata=1:reset=1,\
                  ametadata=print:key=lavfi.astats.Overall.RMS_level:file=-";
    measure(file, &["-map", "0:a", "-af", filter])
}

/// The instants at which a value rises over a threshold, at least half a second after the one before.
fn onsets(values: &[(f64, f64)], threshold: f64) -> Vec<f64> {
    let mut onsets: Vec<f64> = Vec::new();
    for pair in values.windows(2) {
        let rises = pair[0].1 < threshold && pair[1].1 >= threshold;
        if rises && onsets.last().is_none_or(|last| pair[1].0 - last > 0.5) {
            onsets.push(pair[1].0);
        }
    }
    onsets
}

/// Beep minus flash of each flash that has a beep within half a second. All but those at the very ends must have one.
fn offsets(flashes: &[f64], beeps: &[f64]) -> Vec<f64> {
    let nearest = |flash: &f64| {
        beeps
            .iter()
            .map(|beep| beep - flash)
            .min_by(|a, b| a.abs().total_cmp(&b.abs()))
            .filter(|o| o.abs() < 0.5)
    };
    let found: Vec<f64> = flashes.iter().filter_map(nearest).collect();
    assert!(found.len() >= 3 && found.len() + 2 >= flashes.len(), "flashes {flashes:?}, beeps {beeps:?}");
    found
}

fn assert_in_sync(what: &str, flashes: &[f64], beeps: &[f64]) {
    let offsets = offsets(flashes, beeps);
    println!("{what}: beep after flash by {offsets:.3?} s");
    assert!(offsets.iter().all(|offset| offset.abs() < LIMIT), "{what}: {offsets:.3?}");
}

/// The complete segments of the newest init segment, and their init segment, once they last so many seconds.
async fn hls_media(url: &str, after: u64, seconds: f64) -> (u64, Vec<u8>) {
    let mut segments: Vec<Segment> = Vec::new();
    eventually("there are enough segments", SOON, async || {
        let playlist = Playlist::parse(&get(url).await.text());
        segments =
            playlist.segments.into_iter().filter(|s| s.duration.is_some() && s.number >= after).collect();
        let newest = segments.last().map(|segment| segment.init.clone());
        segments.retain(|segment| Some(&segment.init) == newest.as_ref());
        segments.iter().filter_map(|segment| segment.duration).sum::<f64>() >= seconds
    })
    .await;
    let mut bytes = get(&url.replace("index.m3u8", &segments[0].init)).await.body;
    for segment in &segments {
        bytes.extend(get(&url.replace("index.m3u8", &segment.uri)).await.body);
    }
    (segments.last().map_or(0, |segment| segment.number), bytes)
}

/// One camera with each kind of sound, in one server.
#[tokio::test(flavor = "multi_thread")]
async fn hls_plays_each_kind_of_sound_with_its_picture() {
    let sounds = ["aac", "opus", "pcma"];
    let mounts =
        sounds.map(|audio| (format!("/{audio}"), format!("clip=h264_flash_g30,audio={audio},beep=yes")));
    let mounts: Vec<(&str, &str)> =
        mounts.iter().map(|(path, spec)| (path.as_str(), spec.as_str())).collect();
    let mut camera = Camera::start_with(&mounts, None);
    let urls = sounds.map(|audio| camera.url_of(&format!("/{audio}")));
    let streams: Vec<(&str, &str)> = sounds.iter().copied().zip(urls.iter().map(String::as_str)).collect();
    let streamgate = Streamgate::with_streams(&streams);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("media.mp4");
    let mut playlists = Vec::new();
    for audio in sounds {
        playlists.push((media_playlist(&streamgate, audio).await, 0));
    }
    for when in ["at the start", "after a reconnect"] {
        for (audio, (url, from)) in sounds.iter().zip(&mut playlists) {
            let (number, bytes) = hls_media(url, *from, 6.0).await;
            std::fs::write(&file, bytes).expect("a file");
            let what = format!("HLS, {audio}, {when}");
            assert_in_sync(&what, &onsets(&brightness(&file), 128.0), &onsets(&loudness(&file), -30.0));
            *from = number + 1;
        }
        if when == "after a reconnect" {
            break;
        }
        camera.restart();
        for (url, from) in &mut playlists {
            eventually("it goes on", SOON, async || {
                let playlist = Playlist::parse(&get(url).await.text());
                let new =
                    playlist.segments.iter().find(|segment| segment.number >= *from && segment.discontinuity);
                *from = new.map_or(*from, |segment| segment.number);
                new.is_some()
            })
            .await;
        }
    }
}

/// `MSE_SECONDS` says for how long.
#[tokio::test(flavor = "multi_thread")]
async fn mse_keeps_each_kind_of_sound_with_its_picture() {
    let seconds = std::env::var("MSE_SECONDS").map_or(6.0, |text| text.parse().expect("seconds"));
    let sounds = ["aac", "opus", "pcma"];
    let mounts =
        sounds.map(|audio| (format!("/{audio}"), format!("clip=h264_flash_g30,audio={audio},beep=yes")));
    let mounts: Vec<(&str, &str)> =
        mounts.iter().map(|(path, spec)| (path.as_str(), spec.as_str())).collect();
    let camera = Camera::start_with(&mounts, None);
    let urls = sounds.map(|audio| camera.url_of(&format!("/{audio}")));
    let streams: Vec<(&str, &str)> = sounds.iter().copied().zip(urls.iter().map(String::as_str)).collect();
    let streamgate = Streamgate::with_streams(&streams);
    let watching = sounds.map(|audio| {
        let streamgate = &streamgate;
        async move {
            let mut socket = Socket::open(streamgate, audio).await;
            socket.send("mse", CODECS).await;
            let mut watched = Watched::default();
            watched.watch(&mut socket, seconds).await;
            watched.assert_gapless();
            let [video, audio] = watched.ends();
            assert!((video - audio).abs() < 0.5, "the picture ends at {video} s, the sound at {audio} s");
            watched.files.pop().expect("one init segment")
        }
    });
    let files = futures_util::future::join_all(watching).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("media.mp4");
    for (audio, bytes) in sounds.iter().zip(files) {
        std::fs::write(&file, bytes).expect("a file");
        // What was cached is shown in fast motion at first.
        let live = |onsets: Vec<f64>| onsets.into_iter().filter(|at| *at > 1.0).collect::<Vec<_>>();
        let (flashes, beeps) =
            (live(onsets(&brightness(&file), 128.0)), live(onsets(&loudness(&file), -30.0)));
        let early = |onsets: &[f64]| onsets.iter().copied().filter(|at| *at < 7.0).collect::<Vec<_>>();
        assert_in_sync(&format!("MSE, {audio}"), &early(&flashes), &early(&beeps));
        // For minutes. Where the clip begins anew, every eight seconds, a decoder of sound needs a moment.
        for eight in offsets(&flashes, &beeps).chunks_mut(8) {
            eight.sort_by(f64::total_cmp);
            let middle = eight[eight.len() / 2];
            assert!(middle.abs() < LIMIT, "MSE, {audio}, for {seconds} s: {eight:.3?}");
        }
    }
}

/// Where RTP timestamps of a kind are on the wall clock, by a sender report.
fn wall(report: &Report, timestamp: u32, rate: f64) -> f64 {
    let ntp = report.ntp.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let ticks = timestamp.wrapping_sub(report.rtp_time as u32) as i32;
    ntp + f64::from(ticks) / rate
}

/// The sample of a byte of G.711 A-law (ITU-T G.711), from −1 to 1.
fn alaw(byte: u8) -> f64 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i32::from(byte & 15));
    let magnitude = match exponent {
        0 => (mantissa << 4) + 8,
        exponent => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    f64::from(if byte & 0x80 != 0 { magnitude } else { -magnitude }) / 32768.0
}

/// Flashes and beeps on the wall clock that the sender reports give. `from` is the first packet of interest of each kind.
fn webrtc_onsets(viewer: &Viewer, folder: &Path, from: SystemTime) -> (Vec<f64>, Vec<f64>) {
    let from = from.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let latest = |kind| {
        viewer.seen().reports.iter().rev().find(|report| report.kind == kind).copied().expect("a report")
    };
    let (video, audio) = (latest(MediaKind::Video), latest(MediaKind::Audio));
    let units: Vec<(f64, Vec<Vec<u8>>)> =
        viewer.units(false).into_iter().map(|(stamp, nals)| (wall(&video, stamp, 90_000.0), nals)).collect();
    let bytes: Vec<u8> = units
        .iter()
        .flat_map(|(_, nals)| nals.iter().flat_map(|nal| [&[0, 0, 0, 1], nal.as_slice()].concat()))
        .collect();
    let units: Vec<f64> = units.into_iter().map(|(at, _)| at).collect();
    let heard = viewer.audio();
    let sound = heard.iter().map(|packet| (wall(&audio, packet.timestamp, 8000.0), &packet.payload[..]));
    rtp_onsets(&units, &bytes, sound, folder, from)
}

/// Flashes and beeps of pictures whose times are known, as a byte stream, and of packets of A-law.
fn rtp_onsets<'p>(
    units: &[f64],
    bytes: &[u8],
    sound: impl Iterator<Item = (f64, &'p [u8])>,
    folder: &Path,
    from: f64,
) -> (Vec<f64>, Vec<f64>) {
    let file = folder.join("video.264");
    std::fs::write(&file, bytes).expect("a file");
    let bright = brightness(&file);
    assert_eq!(bright.len(), units.len(), "each unit is a picture");
    let pictures: Vec<(f64, f64)> = units.iter().zip(&bright).map(|(at, (_, value))| (*at, *value)).collect();
    // Each millisecond's loudest sample.
    let loudest = |bytes: &[u8]| bytes.iter().map(|byte| alaw(*byte).abs()).fold(0.0, f64::max);
    let samples: Vec<(f64, f64)> = sound
        .flat_map(|(at, bytes)| {
            bytes.chunks(8).enumerate().map(move |(n, bytes)| (at + n as f64 / 1000.0, loudest(bytes)))
        })
        .collect();
    let later = |onsets: Vec<f64>| onsets.into_iter().filter(|at| *at >= from).collect();
    (later(onsets(&pictures, 128.0)), later(onsets(&samples, 0.1)))
}

/// What an RTSP player has got: each packet on the wall clock, by the last report of its track before it.
#[derive(Default)]
struct Placed {
    stream: Depacketized,
    units: Vec<f64>,
    sound: Vec<(f64, Vec<u8>)>,
    reports: [Option<SenderReport>; 2],
}

impl Placed {
    /// Plays until the sound has gone on for so many seconds after `from`.
    async fn play(&mut self, client: &mut Client, from: f64, seconds: f64) {
        while self.sound.last().is_none_or(|(at, _)| *at < from + seconds) {
            let Some(Message::Data { channel, packet }) = client.next().await else { panic!("the end") };
            let track = usize::from(channel / 2);
            if channel % 2 == 1 {
                self.reports[track] = header::sender_reports(&packet).next().or(self.reports[track]);
                continue;
            }
            let (header, payload) = header::parse(&packet).expect("RTP");
            let report = self.reports[track].expect("a report before the first packet");
            let ticks = header.timestamp.wrapping_sub(report.rtp).cast_signed();
            let at = report.ntp as f64 / 2f64.powi(32) + f64::from(ticks) / [90_000.0, 8000.0][track];
            if track == 1 {
                self.sound.push((at, payload.to_vec()));
                continue;
            }
            self.stream.take(&packet);
            if header.marker {
                self.units.push(at);
            }
        }
    }

    fn assert_in_sync(&self, when: &str, folder: &Path, from: f64) {
        let sound = self.sound.iter().map(|(at, bytes)| (*at, &bytes[..]));
        let (flashes, beeps) = rtp_onsets(&self.units, &self.stream.bytes, sound, folder, from);
        assert_in_sync(&format!("RTSP, {when}"), &flashes, &beeps);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rtsp_plays_sound_with_its_picture() {
    let mut camera = Camera::start("clip=h264_flash_g30,audio=pcma,beep=yes");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut client = Client::connect(streamgate.port, "front").await;
    client.play().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut placed = Placed::default();
    placed.play(&mut client, 0.0, 0.0).await;
    let began = placed.sound[0].0;
    placed.play(&mut client, began, 4.5).await;
    placed.assert_in_sync("at the start", folder.path(), began);
    // Whole pictures only.
    camera.stall();
    camera.restart();
    // What was sent before is older than that.
    let back = header::ntp_timestamp(SystemTime::now()) as f64 / 2f64.powi(32);
    placed.play(&mut client, back, 4.5).await;
    placed.assert_in_sync("after a reconnect", folder.path(), back);
}

#[tokio::test(flavor = "multi_thread")]
async fn webrtc_plays_sound_with_its_picture() {
    let mut camera = Camera::start("clip=h264_flash_g30,audio=pcma,beep=yes");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let options = ViewerOptions { audio: vec!["PCMA"], ..ViewerOptions::default() };
    let offering = Offering::new(options);
    let answer =
        post(&streamgate.url("/api/webrtc?src=front"), "application/sdp", offering.offer.clone()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let viewer = offering.connect(&answer.text());
    let folder = tempfile::tempdir().expect("a folder");
    let mut from = SystemTime::UNIX_EPOCH;
    for when in ["at the start", "after a reconnect"] {
        let reports_before = viewer.seen().reports.len();
        let mut onsets = (Vec::new(), Vec::new());
        eventually("five flashes and beeps came, and sender reports", SOON, async || {
            let fresh =
                |kind| viewer.seen().reports.iter().skip(reports_before).any(|report| report.kind == kind);
            if !fresh(MediaKind::Video) || !fresh(MediaKind::Audio) {
                return false;
            }
            onsets = webrtc_onsets(&viewer, folder.path(), from);
            onsets.0.len() >= 5 && onsets.1.len() >= 5
        })
        .await;
        assert_in_sync(&format!("WebRTC, {when}"), &onsets.0, &onsets.1);
        if when == "at the start" {
            camera.kill();
            let still = viewer.video().len();
            camera.restart();
            eventually("it goes on", SOON, async || viewer.video().len() > still + 30).await;
            from = SystemTime::now();
        }
    }
}
