//! `streamgate camera`: synthetic cameras over RTSP, as many as a rehearsal needs.

use super::Failure;
use super::serve::Signals;
use crate::config::{ListenAddress, parse_duration};
use crate::server::files::raise_limit;
use crate::sources::demo::cameras::{Cameras, Options};
use clap::Args;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;

/// Most cameras of one process.
const MAX_CAMERAS: u32 = 5000;

pub(super) const EXAMPLES: &str = "\
Each camera is rtsp://HOST:PORT/cam1, /cam2 … with H.264 of 1280x720, without sound, over RTSP's own TCP connection.
They all show the demo clip, each from another place in it. Every frame carries the time of its sending in an SEI
message, so that `streamgate bench` can tell how long it was on its way, on the same machine or with clocks in step.

The clip has about 0.6 Mbit/s and a keyframe every 60 pictures: 2 s at 30 pictures a second. A higher --bitrate is made up
with filler data, as encoders with a constant bit rate do; a longer --gop needs fewer --fps.

Examples:
  streamgate camera
      one camera at rtsp://127.0.0.1:8554/cam1; look at it: ffplay rtsp://127.0.0.1:8554/cam1
  streamgate camera --cameras 500 --bitrate 1M --print-config > rehearsal.yaml
  streamgate camera --cameras 500 --bitrate 1M
  streamgate -c rehearsal.yaml
      500 cameras of 1 Mbit/s, and a Streamgate that plays them
  streamgate camera --fps 15 --gop 4s
      a keyframe every four seconds
  streamgate camera --clip footage.mp4
      your own footage, at its own bit rate";

#[derive(Debug, Args)]
pub(super) struct CameraArgs {
    /// How many cameras
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CAMERAS)))]
    cameras: u32,
    /// Where they listen; without a host on every address of this machine
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8554")]
    listen: ListenAddress,
    /// Show this MP4 file instead of the demo clip: H.264 without B-frames
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    /// Video bits a second of each, e.g. 2M or 800k [default: the clip's own]
    #[arg(long, value_name = "BITS", value_parser = parse_bitrate)]
    bitrate: Option<u64>,
    /// Pictures a second
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// From keyframe to keyframe, e.g. 1s [default: the clip's own]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    gop: Option<Duration>,
    /// Send nothing any more after this time, but stay connected: to see what idle viewers cost
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    silent_after: Option<Duration>,
    /// Print a configuration for Streamgate with these cameras as streams, and do nothing else
    #[arg(long)]
    print_config: bool,
}

pub(super) fn run(args: &CameraArgs) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    if args.print_config {
        // A reader that has gone away (`| head`) is no failure.
        let _ = out.write_all(configuration(args).as_bytes());
        return Ok(());
    }
    raise_limit();
    super::runtime()?.block_on(serve(args))
}

async fn serve(args: &CameraArgs) -> Result<(), Failure> {
    let read = |file: &PathBuf| {
        std::fs::read(file).map_err(|error| Failure::misused(format!("--clip {}: {error}", file.display())))
    };
    let cameras = Cameras::new(&Options {
        clip: args.clip.as_ref().map(read).transpose()?,
        cameras: args.cameras as usize,
        fps: args.fps,
        bitrate: args.bitrate,
        gop: args.gop,
        silent_after: args.silent_after,
    });
    let cameras = cameras.map_err(Failure::misused)?;
    let taken = |error| Failure::failed(format!("cannot listen on {}: {error}", args.listen));
    let (host, port) = (host(args), args.listen.port);
    let listener = TcpListener::bind((host.as_str(), port)).await.map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;
    let range = if args.cameras > 1 { format!(" to /cam{}", args.cameras) } else { String::new() };
    // Nobody reads it: they are served all the same.
    let _ = writeln!(
        std::io::stdout(),
        "serving rtsp://{address}/cam1{range}: {} kbit/s, {} pictures a second, a keyframe every {:.1} s",
        cameras.bitrate / 1000,
        args.fps,
        cameras.gop.as_secs_f64(),
    );
    let mut signals = Signals::new().map_err(Failure::failed)?;
    tokio::select! {
        () = cameras.serve(listener) => {}
        () = signals.next() => {}
    }
    Ok(())
}

fn host(args: &CameraArgs) -> String {
    args.listen.host.clone().unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.to_string())
}

/// Each camera as a stream that is kept warm.
fn configuration(args: &CameraArgs) -> String {
    let host = args.listen.host.clone().unwrap_or_else(|| Ipv4Addr::LOCALHOST.to_string());
    let address = ListenAddress { host: Some(host), port: args.listen.port };
    (1..=args.cameras).fold("streams:\n".to_owned(), |yaml, n| {
        yaml + &format!("  cam{n}: {{ sources: [\"rtsp://{address}/cam{n}\"], on_demand: false }}\n")
    })
}

/// `2M`, `800k`, `500000`.
fn parse_bitrate(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.trim().char_indices().last() {
        Some((at, 'k' | 'K')) => (text.trim().get(..at), 1e3),
        Some((at, 'm' | 'M')) => (text.trim().get(..at), 1e6),
        _ => (Some(text.trim()), 1.0),
    };
    let number: Option<f64> = digits.and_then(|digits| digits.parse().ok());
    let bits = number.map(|number| number * unit).filter(|bits| (1e3..=1e8).contains(bits));
    bits.map(|bits| bits as u64).ok_or_else(|| "bits a second, from 1k to 100M, e.g. 2M or 800k".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bit_rates_are_read() {
        let cases = [("2M", 2_000_000), ("1.5m", 1_500_000), ("800k", 800_000), ("500000", 500_000)];
        for (text, bits) in cases {
            assert_eq!(parse_bitrate(text), Ok(bits), "{text}");
        }
        for wrong in ["", "M", "-2M", "2G", "NaN", "infM", "5", "1e9k"] {
            assert!(parse_bitrate(wrong).is_err(), "{wrong}");
        }
    }
}
