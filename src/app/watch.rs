//! Applies the configuration's file, and the certificate's, when somebody has changed them, and on SIGHUP.

use crate::api::live::Live;
use crate::config::Stamp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the file is looked at. Two looks must agree: an editor may be in the middle of writing.
const EVERY: Duration = Duration::from_millis(500);

/// Runs until `shutdown`.
pub(super) async fn watch(live: Arc<Live>, shutdown: CancellationToken) {
    let mut hangup = Hangup::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What was there when it was last read, and at the last look. It may have changed since the program started.
    let mut read = None;
    let mut seen = None;
    loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => return,
            () = hangup.next() => true,
            _ = ticks.tick() => false,
        };
        let now = Some(stamps(&live).await);
        let settled = now == seen && now != read;
        seen = now.clone();
        if asked || settled {
            read = now;
            reload(&live, asked).await;
        }
    }
}

async fn stamps(live: &Arc<Live>) -> Vec<Option<Stamp>> {
    let live = live.clone();
    tokio::task::spawn_blocking(move || live.stamps()).await.unwrap_or_default()
}

async fn reload(live: &Arc<Live>, asked: bool) {
    let live = live.clone();
    let outcome = tokio::task::spawn_blocking(move || live.reload()).await;
    match outcome {
        Ok(None) if asked => tracing::info!("SIGHUP: the configuration file says nothing new"),
        Ok(_) => {}
        Err(failure) => tracing::error!("reading the configuration file again panicked: {failure}"),
    }
}

#[cfg(unix)]
struct Hangup(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Hangup {
    fn new() -> Hangup {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::hangup());
        Hangup(signal.inspect_err(|error| tracing::warn!("cannot wait for SIGHUP: {error}")).ok())
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
struct Hangup;

#[cfg(not(unix))]
impl Hangup {
    fn new() -> Hangup {
        Hangup
    }

    async fn next(&mut self) {
        std::future::pending().await
    }
}
