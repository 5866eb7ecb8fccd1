//! `streamgate probe`: dials a camera, looks at what it sends for some seconds, and says it.

use super::{Failure, ProbeArgs};
use crate::api::views;
use crate::config::{StreamConfig, check_source};
use crate::graph::{Producer, Registry, State, Stream};
use crate::media::{Kind, Reordering, VideoInfo};
use crate::sources;
use crate::telemetry;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long enough for rates to settle.
const WATCH: Duration = Duration::from_secs(3);
/// Until a whole GOP has been seen, at most this long.
const WATCH_AT_MOST: Duration = Duration::from_secs(12);
const TICK: Duration = Duration::from_millis(100);
/// For saying goodbye to the camera.
const GOODBYE: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    url: String,
    format_name: &'static str,
    protocol: &'static str,
    remote_addr: String,
    server: String,
    tracks: Vec<views::CodecView>,
    width: Option<u32>,
    height: Option<u32>,
    /// Pictures a second, as they came in.
    fps: f64,
    /// Bits a second, all tracks together.
    bitrate: u64,
    /// Pictures from one keyframe to the next; `null` if none came round.
    gop: Option<u32>,
    /// `null` without video or while nothing was seen.
    b_frames: Option<bool>,
    /// Packets that had to be cut out after loss.
    drops: u64,
}

pub(super) fn run(args: &ProbeArgs) -> Result<(), Failure> {
    telemetry::log::init(args.log_level.as_str(), telemetry::log::Format::Auto).map_err(Failure::failed)?;
    check_source(&args.url).map_err(Failure::misused)?;
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(probe(args));
    runtime.shutdown_background();
    let report = outcome?;
    let text = if args.json {
        serde_json::to_string_pretty(&report).map_err(Failure::failed)? + "\n"
    } else {
        describe(&report)
    };
    // A reader that has gone away (`| head`) is no failure of the probe.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

async fn probe(args: &ProbeArgs) -> Result<Report, Failure> {
    let registry = Registry::new(Arc::new(sources::open));
    let config =
        StreamConfig { linger: Duration::ZERO, ..StreamConfig::new(vec![args.url.trim().to_owned()]) };
    let stream = registry.unlisted(config).map_err(Failure::misused)?;
    let progress = Progress::new();
    let outcome = watch(&stream, args.timeout, &progress).await;
    progress.clear();
    // The camera gets a moment for a farewell; what it does not take by then is its own affair.
    stream.close();
    let _ = tokio::time::timeout(GOODBYE, registry.shutdown()).await;
    outcome
}

async fn watch(stream: &Arc<Stream>, patience: Duration, progress: &Progress) -> Result<Report, Failure> {
    let producer = stream.producers().first().ok_or_else(|| Failure::misused("no source"))?;
    let failed = |why: &dyn std::fmt::Display| Failure::failed(format!("{}: {why}", producer.url()));
    let _lease = producer.lease();

    let deadline = tokio::time::Instant::now() + patience;
    let described = producer.described(deadline, false);
    let waited = progress.during(&format!("connecting to {}", producer.url()), described).await;
    let epoch = waited.map_err(|error| failed(&error))?;
    let has_video = epoch.tracks.iter().any(|track| track.kind() == Kind::Video);

    let mut live_since: Option<Instant> = None;
    let (label, mut ticks) = (format!("watching {}", producer.url()), tokio::time::interval(TICK));
    loop {
        ticks.tick().await;
        let (status, observed) = (producer.status(), producer.observed());
        progress.show(&label, &format!("{} pictures, {} packets", observed.units, observed.packets));
        match (status.state, &status.last_error) {
            (State::Retrying, Some(error)) => return Err(failed(error)),
            (State::Live, _) => {
                let watched = live_since.get_or_insert_with(Instant::now).elapsed();
                let complete = !has_video || observed.gop.is_some();
                if watched >= WATCH && (complete || watched >= WATCH_AT_MOST) {
                    return Ok(report(producer, has_video));
                }
            }
            _ if live_since.is_none() && tokio::time::Instant::now() >= deadline => {
                return Err(failed(&"it has described its tracks, but sends nothing"));
            }
            _ => {}
        }
    }
}

fn report(producer: &Producer, has_video: bool) -> Report {
    let (observed, epoch) = (producer.observed(), producer.epoch());
    let (bitrate, fps) = observed.meter.read(Instant::now());
    let info: Option<VideoInfo> = epoch.tracks.iter().find_map(|track| track.video_info());
    Report {
        url: telemetry::mask(producer.url()).into_owned(),
        format_name: producer.format_name(),
        protocol: observed.details.protocol,
        remote_addr: observed.details.remote_addr,
        server: observed.details.server,
        tracks: epoch.tracks.iter().map(views::track_codec).collect(),
        width: info.as_ref().map(|info| info.width),
        height: info.as_ref().map(|info| info.height),
        fps,
        bitrate,
        gop: observed.gop,
        b_frames: match observed.reordering {
            _ if !has_video || observed.units == 0 => None,
            Reordering::Yes => Some(true),
            // Seconds of pictures have shown none.
            Reordering::No | Reordering::Unknown => Some(false),
        },
        drops: observed.dropped,
    }
}

/// For people to read.
fn describe(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{key:<12}{value}");
    };
    line("source", &report.url);
    let via = [report.protocol, &report.remote_addr, &report.server];
    line("connection", &via.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "));
    for track in &report.tracks {
        line(track.codec_type, &track.to_string());
    }
    if let (Some(width), Some(height)) = (report.width, report.height) {
        line("size", &format!("{width}x{height}"));
    }
    if report.b_frames.is_some() {
        line("frame rate", &format!("{:.1} fps", report.fps));
        line(
            "GOP",
            &match report.gop {
                Some(gop) if report.fps > 0.0 => {
                    format!("{gop} pictures, a keyframe every {:.1} s", f64::from(gop) / report.fps)
                }
                Some(gop) => format!("{gop} pictures"),
                None => format!("longer than {} s", WATCH_AT_MOST.as_secs()),
            },
        );
    }
    line("bitrate", &format!("{} kbit/s", report.bitrate / 1000));
    if report.drops > 0 {
        line("lost", &format!("{} packets cut out after loss on the way from the camera", report.drops));
    }
    match report.b_frames {
        Some(true) => {
            line("B-frames", "yes: browsers can't play this over WebRTC; turn them off in the camera")
        }
        Some(false) => line("B-frames", "no"),
        None => {}
    }
    text
}

/// One line on standard error that is written over, if a person is there to see it.
struct Progress {
    terminal: bool,
    started: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), started: Instant::now() }
    }

    fn show(&self, what: &str, more: &str) {
        if self.terminal {
            let seconds = self.started.elapsed().as_secs();
            eprint!("\r\x1b[K{}  {seconds} s  {more}", telemetry::mask(what));
        }
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }

    /// Shows how time goes by until `future` is done.
    async fn during<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(TICK);
        tokio::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return done,
                _ = ticks.tick() => self.show(what, ""),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Params, Track};

    #[test]
    fn a_report_reads_well() {
        let track = |codec, clock_rate, channels| {
            views::track_codec(&Track { codec, clock_rate, channels, params: Params::None })
        };
        let report = Report {
            url: "rtsp://***@cam/1".into(),
            format_name: "rtsp",
            protocol: "rtsp+tcp",
            remote_addr: "192.0.2.1:554".into(),
            server: String::new(),
            tracks: vec![track(Codec::H264, 90_000, 0), track(Codec::Aac, 16_000, 1)],
            width: Some(1920),
            height: Some(1080),
            fps: 25.0,
            bitrate: 2_345_678,
            gop: Some(50),
            b_frames: Some(false),
            drops: 0,
        };
        assert_eq!(
            describe(&report),
            "source      rtsp://***@cam/1\n\
             connection  rtsp+tcp, 192.0.2.1:554\n\
             video       h264\n\
             audio       aac, 16000 Hz, 1 channel\n\
             size        1920x1080\n\
             frame rate  25.0 fps\n\
             GOP         50 pictures, a keyframe every 2.0 s\n\
             bitrate     2345 kbit/s\n\
             B-frames    no\n"
        );
        let sound = Report { b_frames: None, width: None, gop: None, ..report };
        assert!(!describe(&sound).contains("GOP"));
    }
}
