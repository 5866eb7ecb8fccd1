//! The command line: `serve` (default), `check`, `schema`, `probe`, `healthcheck`, `camera`, `bench`.
//!
//! Exit codes: 0 done or stopped by a signal; 1 it failed (port taken, camera not playable, server not healthy);
//! 2 the command line or the configuration is wrong.

mod bench;
mod camera;
mod check;
mod healthcheck;
mod probe;
mod serve;

use crate::config::LogLevel;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// It failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const MISUSED: u8 = 2;

const VERSION: &str = const_version();

const fn const_version() -> &'static str {
    if env!("STREAMGATE_REVISION").is_empty() {
        env!("CARGO_PKG_VERSION")
    } else {
        concat!(env!("CARGO_PKG_VERSION"), " (", env!("STREAMGATE_REVISION"), ")")
    }
}

const EXAMPLES: &str = "\
Examples:
  streamgate
      with streamgate.yaml if it is in this folder, else with the built-in demo camera;
      then open http://localhost:1984/
  streamgate --stream front=rtsp://user:password@192.168.1.20/stream1
  streamgate -c /etc/streamgate.yaml --listen :8080
  streamgate check -c /etc/streamgate.yaml
  streamgate probe rtsp://user:password@192.168.1.20/stream1

Source URLs:
  rtsp://user:password@host:554/path   a camera; @ : / # in a password are %40 %3A %2F %23
  demo:                                the built-in demo camera
  Options follow #, joined by #, e.g. rtsp://host/path#transport=udp#media=video
    #transport=udp    RTP over UDP (default: TCP; falls back to it)
    #media=video      only this kind of track; or #media=audio
    #timeout=10       seconds until the camera must have answered
  Quote URLs in a shell: # and & mean something else there.

Addresses:
  :1984  every address of this machine    127.0.0.1:1984  this machine only    [::1]:1984  IPv6
  TCP and UDP use the same port number: open both in a firewall.

Flags beat environment variables, which beat the configuration file.

Exit codes:
  0  done, or stopped by a signal
  1  failed: port taken, camera not playable, server not healthy
  2  command line or configuration wrong";

/// Watch IP cameras in a browser: RTSP in, WebRTC out, one port, nothing transcoded.
#[derive(Debug, Parser)]
#[command(name = "streamgate", version = VERSION, after_long_help = EXAMPLES)]
#[command(after_help = "More with --help: examples, source URLs, addresses, exit codes.")]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what happens without a command)
    #[command(after_long_help = EXAMPLES)]
    Serve(ServeArgs),
    /// Dial a camera and print what it sends
    Probe(ProbeArgs),
    /// Read a configuration file and say what is wrong with it: exit code 0 or 2
    Check(CheckArgs),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Ask a running server whether it answers: exit code 0 or 1, for containers
    Healthcheck(HealthcheckArgs),
    /// Serve synthetic cameras over RTSP, to rehearse with many of them
    #[command(after_long_help = camera::EXAMPLES)]
    Camera(camera::CameraArgs),
    /// Load a server of your own with many viewers and measure it
    #[command(after_long_help = bench::EXAMPLES)]
    Bench(bench::BenchArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Configuration file [default: streamgate.yaml in this folder, if it is there]
    #[arg(short, long, value_name = "FILE", env = "STREAMGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The one port, TCP and UDP [default: :1984]
    #[arg(long, value_name = "ADDR:PORT", env = "STREAMGATE_LISTEN")]
    listen: Option<crate::config::ListenAddress>,
    /// trace, debug, info, warn, error or off [default: info]
    #[arg(long, value_name = "LEVEL", env = "STREAMGATE_LOG_LEVEL")]
    log_level: Option<LogLevel>,
    /// auto, color, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<crate::config::LogFormat>,
    /// One more stream. May be repeated; with the same name again it adds another source to that stream
    #[arg(long = "stream", value_name = "NAME=URL")]
    streams: Vec<String>,
}

#[derive(Debug, Args)]
struct ProbeArgs {
    /// Source URL, e.g. rtsp://user:password@192.168.1.20/stream1
    url: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How long the camera may take to answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::config::parse_duration)]
    timeout: Duration,
    /// What is logged meanwhile, to standard error
    #[arg(long, value_name = "LEVEL", default_value = "off")]
    log_level: LogLevel,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Configuration file [default: streamgate.yaml in this folder]
    #[arg(short, long, value_name = "FILE", env = "STREAMGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct HealthcheckArgs {
    /// The server's address [default: this machine, at the port of STREAMGATE_LISTEN or 1984]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        None => serve::run(cli.serve),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Probe(args)) => probe::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Schema) => {
            check::schema();
            Ok(())
        }
        Some(Command::Healthcheck(args)) => healthcheck::run(&args),
        Some(Command::Camera(args)) => camera::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("streamgate: {}", crate::telemetry::mask(&failure.message));
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn failed(message: impl std::fmt::Display) -> Failure {
        Failure { code: FAILED, message: message.to_string() }
    }

    fn misused(message: impl std::fmt::Display) -> Failure {
        Failure { code: MISUSED, message: message.to_string() }
    }
}

/// A runtime for what waits on sockets. Few threads are enough: WebRTC has its own.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(1, 4))
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        let plain = Cli::try_parse_from(["streamgate", "-c", "a.yaml", "--stream", "a=rtsp://b"]).unwrap();
        assert!(plain.command.is_none());
        assert_eq!(plain.serve.streams, ["a=rtsp://b"]);
        let named = Cli::try_parse_from(["streamgate", "serve", "--listen", ":8080"]).unwrap();
        assert!(
            matches!(named.command, Some(Command::Serve(args)) if args.listen.as_ref().unwrap().port == 8080)
        );
        assert!(Cli::try_parse_from(["streamgate", "--listen", "8080"]).is_err());
    }
}
