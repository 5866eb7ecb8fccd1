//! `streamgate serve`.

use super::{Failure, ServeArgs};
use crate::app::{self, App, Setup};
use crate::config::{self, ConfigError, Loaded, Overrides, Store, StreamConfig};
use crate::telemetry;
use std::path::{Path, PathBuf};
use std::process;
use tokio_util::sync::CancellationToken;

/// What a second signal ends the program with.
const INTERRUPTED: i32 = 130;

/// The configuration of who has none. The first change by the API makes a file of it.
const NO_FILE: &str = "\
# Streamgate's configuration, made by the first change that came over its API. Edit it as you like: changes are
# applied at once. All keys: config.example.yaml and docs/configuration.md
";
const DEMO: &str = "streams:\n  demo: \"demo:\"\n";

pub(super) fn run(args: ServeArgs) -> Result<(), Failure> {
    let file = config::find(args.config.as_deref());
    let demo = file.is_none() && args.streams.is_empty();
    let store = match &file {
        Some(file) => Store::at(file),
        None => {
            let initial = format!("{NO_FILE}{}", if demo { DEMO } else { "" });
            Store::or_initial(Path::new(config::USUAL_FILE), &initial)
        }
    };
    let text = store.read().map_err(Failure::misused)?;
    let parsed = config::parse(&text, &config::environment);
    let Loaded { mut config, warnings } =
        parsed.map_err(|error| Failure::misused(ConfigError { path: file.clone(), ..error }))?;
    let overrides = overrides(args)?;
    overrides.apply(&mut config);
    let log = telemetry::log::init(&config.log.filter(), app::log_format(config.log.format))
        .map_err(Failure::failed)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(serve(Setup { config, store, text, overrides, log }, file, demo));
    // A host name that is still being looked up on a thread of its own must not hold the exit up.
    runtime.shutdown_background();
    outcome
}

async fn serve(setup: Setup, file: Option<PathBuf>, demo: bool) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let signals = tokio::spawn(on_signals(shutdown.clone()));
    match &file {
        Some(file) => tracing::info!("configuration: {}", file.display()),
        None => tracing::debug!("no configuration file"),
    }
    let app = App::start(setup).await.map_err(|error| {
        if error.is_configuration() { Failure::misused(error) } else { Failure::failed(error) }
    })?;
    if demo {
        tracing::info!(
            "no configuration: here is the demo camera. Your own: streamgate --stream front=rtsp://192.168.1.20/stream1"
        );
    }
    app.run(shutdown).await;
    signals.abort();
    Ok(())
}

/// Flags and environment variables.
fn overrides(args: ServeArgs) -> Result<Overrides, Failure> {
    Ok(Overrides {
        listen: args.listen,
        log_level: args.log_level,
        log_format: args.log_format,
        streams: streams(&args.streams)?,
    })
}

/// `NAME=URL`, in their order; the same name again adds a source. Never quotes a URL.
fn streams(flags: &[String]) -> Result<Vec<(String, StreamConfig)>, Failure> {
    let mut streams: Vec<(String, StreamConfig)> = Vec::new();
    for flag in flags {
        let (name, url) =
            flag.split_once('=').filter(|(name, _)| !name.contains("://")).ok_or_else(|| {
                Failure::misused(
                    "--stream needs a name and a URL: --stream front=rtsp://192.168.1.20/stream1",
                )
            })?;
        let url = url.trim();
        config::check_stream_name(name)
            .and_then(|()| config::check_source(url))
            .map_err(|why| Failure::misused(format!("--stream: {why}")))?;
        match streams.iter_mut().find(|(other, _)| other == name) {
            Some((_, stream)) if stream.sources.len() >= StreamConfig::MAX_SOURCES => {
                let most = StreamConfig::MAX_SOURCES;
                return Err(Failure::misused(format!("--stream: {name:?} has more than {most} sources")));
            }
            Some((_, stream)) => stream.sources.push(url.to_owned()),
            None => streams.push((name.to_owned(), StreamConfig::new(vec![url.to_owned()]))),
        }
    }
    Ok(streams)
}

/// The first signal ends the program in order, the second at once.
#[expect(clippy::disallowed_methods, reason = "the second signal asks for an exit without shutdown")]
async fn on_signals(shutdown: CancellationToken) {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::warn!("cannot wait for signals, so shutdown will not be graceful: {error}");
            return;
        }
    };
    signals.next().await;
    shutdown.cancel();
    signals.next().await;
    process::exit(INTERRUPTED);
}

#[cfg(unix)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals)
    }

    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn flags(flags: &[&str]) -> Result<Vec<(String, StreamConfig)>, Failure> {
        streams(&flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn stream_flags_are_names_and_sources() {
        let streams = flags(&["금곡IC=rtsp://a/?x=1&y=2", "b= rtsp://b ", "금곡IC=rtsp://c"]).unwrap();
        assert_eq!(
            streams,
            [
                ("금곡IC".to_owned(), StreamConfig::new(vec!["rtsp://a/?x=1&y=2".into(), "rtsp://c".into()])),
                ("b".to_owned(), StreamConfig::new(vec!["rtsp://b".into()])),
            ]
        );
    }

    #[test]
    fn bad_stream_flags_are_refused_without_quoting_the_url() {
        for bad in
            ["", "front", "rtsp://u:hunter2@a/?b=c", "=rtsp://u:hunter2@a", "a=", "a/b=rtsp://u:hunter2@a"]
        {
            let failure = flags(&[bad]).unwrap_err();
            assert_eq!(failure.code, super::super::MISUSED, "{bad}");
            assert!(!failure.message.contains("hunter2"), "{bad}: {}", failure.message);
        }
        let many: Vec<&str> = std::iter::repeat_n("a=rtsp://b", StreamConfig::MAX_SOURCES + 1).collect();
        assert!(flags(&many).is_err());
    }

    #[test]
    fn flags_beat_the_file() {
        let yaml = "api: {listen: ':1'}\nlog: {level: warn}\nstreams: {a: rtsp://file, b: rtsp://b}\n";
        let mut config = config::parse(yaml, &|_| None).unwrap().config;
        let args = ServeArgs {
            config: None,
            listen: Some(":2".parse().unwrap()),
            log_level: Some(config::LogLevel::Debug),
            log_format: Some(LogFormat::Json),
            streams: vec!["a=rtsp://flag".into()],
        };
        overrides(args).unwrap().apply(&mut config);
        assert_eq!(config.api.listen.port, 2);
        assert_eq!((config.log.level, config.log.format), (config::LogLevel::Debug, LogFormat::Json));
        let names: Vec<_> =
            config.streams.iter().map(|(name, s)| (name.as_str(), s.sources.concat())).collect();
        assert_eq!(names, [("b", "rtsp://b".to_owned()), ("a", "rtsp://flag".to_owned())]);
    }
}
