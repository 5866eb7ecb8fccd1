//! `streamgate bench`: many viewers at little cost, and what the server made of them.
//! May use everything, as the whole command line.
//! Must never count what was not received, nor go on without end.

mod check;
mod count;
mod floor;
mod hls;
mod http;
mod playlist;
mod process;
mod report;
mod shared;
mod webrtc;

use self::process::Process;
use self::report::Report;
use self::shared::{Role, Shared, Totals};
use super::Failure;
use super::serve::Signals;
use crate::config::parse_duration;
use crate::server::files::raise_limit;
use clap::Args;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout_at};

const MAX_VIEWERS: u32 = 5000;
const MAX_SECONDS: u32 = 3600;
/// How long after the last viewer was started the first picture of each is waited for.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
/// From the last viewer's join to the measuring: what joining costs is over by then.
const SETTLE: Duration = Duration::from_secs(1);
/// For saying goodbye to the server.
const FAREWELL: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(100);
/// Viewers that are started in a second if nothing else is asked for.
const RAMP_PER_SECOND: u64 = 100;

pub(super) const EXAMPLES: &str = "\
Use it on your own servers only: it makes load, up to 5000 viewers for an hour.

The URL is a WHEP endpoint, or an HLS playlist (its path ends with .m3u8):
  Streamgate   http://127.0.0.1:1984/api/webrtc?src=front     http://127.0.0.1:1984/api/stream.m3u8?src=front
  go2rtc       http://127.0.0.1:1984/api/webrtc?src=front
  MediaMTX     http://127.0.0.1:8889/front/whep

WebRTC viewers are real ones: ICE, DTLS and SRTP are negotiated with each. Packets are counted by their RTP headers, which
are not encrypted; --decrypt viewers also decrypt all, put frames together and check them. HLS viewers hold one connection
each, wait at the live edge (blocking reload) and fetch each new part or segment.

Measuring begins one second after the last viewer has its first picture, and lasts for --seconds. Latency is known
where frames carry a time stamp, as those of `streamgate camera` do, and only with clocks in step.

Examples:
  streamgate camera --bitrate 2M &
  streamgate --stream front=rtsp://127.0.0.1:8554/cam1 --listen 127.0.0.1:1984 &
  streamgate bench --url 'http://127.0.0.1:1984/api/webrtc?src=front' --viewers 200 --pid $! --floor";

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// WHEP endpoint or HLS playlist, http only
    #[arg(long, value_name = "URL")]
    url: String,
    /// How many viewers
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_VIEWERS)))]
    viewers: u32,
    /// Start the viewers spread over this time [default: 10 ms for each]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ramp: Option<Duration>,
    /// How long to measure after all have joined
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SECONDS)))]
    seconds: u32,
    /// So many of the viewers look into the media: they check frames and read time stamps
    #[arg(long, value_name = "K", default_value_t = 2)]
    decrypt: u32,
    /// So many of the viewers stop reading once they have a picture, as a computer that was put to sleep; the figures are
    /// those of the others (WebRTC only)
    #[arg(long, value_name = "K", default_value_t = 0)]
    stall: u32,
    /// The server's process, on this machine: tells what it used of CPU and memory
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// Then also measure the floor: sealing and sending the same packets at the same times, with nothing round
    /// it (WebRTC only)
    #[arg(long)]
    floor: bool,
    /// Write the figures as JSON to this file; - is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let target = http::Target::parse(&args.url).map_err(Failure::misused)?;
    if args.floor && target.is_hls() {
        return Err(Failure::misused("--floor is about WebRTC: leave it out for an HLS playlist"));
    }
    if args.stall > 0 && target.is_hls() {
        return Err(Failure::misused("--stall is about WebRTC: leave it out for an HLS playlist"));
    }
    if args.stall >= args.viewers {
        return Err(Failure::misused("--stall leaves nobody who reads: it must be less than --viewers"));
    }
    let server = args.pid.map(Process::find).transpose().map_err(Failure::misused)?;
    raise_limit();
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(bench(args, target, server));
    runtime.shutdown_background();
    let report = outcome?;
    let write = |text: &str| match &args.json {
        Some(file) if file != Path::new("-") => std::fs::write(file, text)
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display()))),
        // A reader that has gone away (`| head`) is no failure.
        _ => std::io::stdout().write_all(text.as_bytes()).or(Ok(())),
    };
    if args.json.is_some() {
        write(&(serde_json::to_string_pretty(&report).map_err(Failure::failed)? + "\n"))?;
    }
    if args.json.as_deref() != Some(Path::new("-")) {
        let _ = std::io::stdout().write_all(report.table().as_bytes());
    }
    match report.viewers.joined {
        0 => Err(Failure::failed(report.why_nobody_joined())),
        _ => Ok(()),
    }
}

async fn bench(args: &BenchArgs, target: http::Target, server: Option<Process>) -> Result<Report, Failure> {
    let mut signals = Signals::new().map_err(Failure::failed)?;
    let address = target.address().await.map_err(Failure::failed)?;
    let shared = Arc::new(Shared::new(target, address).map_err(Failure::failed)?);
    let mut viewers = JoinSet::new();
    let (rss_before, own) = (server.as_ref().and_then(Process::rss_kb), Process::own());
    let mut window = None;
    tokio::select! {
        () = measure(args, &shared, &mut viewers, server.as_ref(), own.as_ref(), &mut window) => {}
        () = signals.next() => {}
    }
    shared.measure(false);
    // Stopped early: with what there is.
    let now = Mark::now(&shared, server.as_ref(), own.as_ref());
    let rss = server.as_ref().and_then(Process::rss_kb);
    let start = window.unwrap_or_else(|| now.clone());
    // Beside the run, which goes on: in caches and on cores that others use as well.
    let packets = std::mem::take(&mut *shared.shapes.lock());
    let floor = if args.floor && !packets.is_empty() {
        progress(args, &shared, "measuring the floor");
        Some(floor::measure(args.viewers as usize, packets).await.map_err(Failure::failed)?)
    } else {
        None
    };
    shared.stop.cancel();
    let deadline = Instant::now() + FAREWELL;
    while timeout_at(deadline, viewers.join_next()).await.is_ok_and(|ended| ended.is_some()) {}
    clear_progress();
    let mut report = Report::new(args, &shared, &start, &now);
    report.memory(rss_before, rss);
    if let Some(floor) = floor {
        report.floor(floor);
    }
    Ok(report)
}

/// Everything that is counted, at one instant.
#[derive(Debug, Clone)]
struct Mark {
    at: Instant,
    totals: Totals,
    server_cpu: Option<Duration>,
    own_cpu: Option<Duration>,
}

impl Mark {
    fn now(shared: &Shared, server: Option<&Process>, own: Option<&Process>) -> Mark {
        Mark {
            at: Instant::now(),
            totals: shared.totals(),
            server_cpu: server.and_then(Process::cpu),
            own_cpu: own.and_then(Process::cpu),
        }
    }
}

/// Starts the viewers, waits for them, and then for the time that is measured. The window's start is left behind even
/// when this is not awaited to its end.
async fn measure(
    args: &BenchArgs,
    shared: &Arc<Shared>,
    viewers: &mut JoinSet<()>,
    server: Option<&Process>,
    own: Option<&Process>,
    window: &mut Option<Mark>,
) {
    let count = u64::from(args.viewers);
    let ramp = args.ramp.unwrap_or(Duration::from_millis(count * 1000 / RAMP_PER_SECOND));
    let (start, mut ticks) = (Instant::now(), interval(TICK));
    let mut started = 0;
    loop {
        let due = ramp.checked_div(args.viewers).unwrap_or_default().saturating_mul(started);
        if started == args.viewers {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep_until(start + due) => {
                let role = role(args, started);
                let shared = shared.clone();
                viewers.spawn(async move { shared.viewer(role).await });
                started += 1;
            }
            _ = ticks.tick() => progress(args, shared, "joining"),
        }
    }
    let patient_until = Instant::now() + JOIN_PATIENCE;
    while shared.settled() < count && Instant::now() < patient_until {
        ticks.tick().await;
        progress(args, shared, "joining");
    }
    sleep(SETTLE).await;
    let mark = window.insert(Mark::now(shared, server, own)).at;
    shared.measure(true);
    let end = mark + Duration::from_secs(args.seconds.into());
    while Instant::now() < end && !shared.all_gone() {
        tokio::time::sleep_until(end.min(Instant::now() + TICK)).await;
        progress(args, shared, &format!("measuring, {} s to go", (end - Instant::now()).as_secs()));
    }
}

/// Those who look inside are spread among all who read, those who stall are the last.
fn role(args: &BenchArgs, number: u32) -> Role {
    let readers = args.viewers - args.stall;
    let look_before =
        |number: u32| u64::from(number) * u64::from(args.decrypt.min(readers)) / u64::from(readers);
    match number {
        number if number >= readers => Role::Stalls,
        number if look_before(number) < look_before(number + 1) => Role::LooksInside,
        _ => Role::Counts,
    }
}

/// One line on a terminal, overwritten.
fn progress(args: &BenchArgs, shared: &Shared, what: &str) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let totals = shared.totals();
    let received = totals.packets + totals.responses;
    eprint!(
        "\r\x1b[K{what}: {} of {} viewers, {} failed, {received} received, {} missing",
        totals.joined, args.viewers, totals.failed, totals.missing
    );
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    #[test]
    fn those_who_look_inside_are_spread() {
        let roles = |viewers: u32, decrypt: &str, stall: &str| {
            let viewers = viewers.to_string();
            let words = [
                "bench",
                "--url",
                "http://a/",
                "--viewers",
                &viewers,
                "--decrypt",
                decrypt,
                "--stall",
                stall,
            ];
            let args = Line::parse_from(words).args;
            (0..args.viewers).map(|number| role(&args, number)).collect::<Vec<_>>()
        };
        use Role::{Counts, LooksInside, Stalls};
        assert_eq!(roles(6, "2", "0"), [Counts, Counts, LooksInside, Counts, Counts, LooksInside]);
        assert_eq!(roles(4, "9", "1"), [LooksInside, LooksInside, LooksInside, Stalls]);
        assert_eq!(roles(3, "0", "0"), [Counts; 3]);
        assert_eq!(roles(5000, "7", "3").iter().filter(|role| **role == LooksInside).count(), 7);
    }
}
