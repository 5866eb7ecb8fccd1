//! Streams that are published to other servers: each a task that connects, sends, and tries again.

use super::feeds::lease;
use super::record::record;
use crate::graph::{Consumer, ConsumerInfo, Dialled, EndReason, Registry, State, Stream, Wants};
use crate::media::{Codec, Kind};
use crate::rtsp::url::RtspUrl;
use crate::telemetry::mask;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Targets at the same time.
const MAX_TARGETS: usize = 256;
/// Pauses between attempts: doubling.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A connection that was live for so long was a good one: the next pause is the shortest.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// All streams that are published.
pub struct Publishing {
    registry: Arc<Registry>,
    patience: Duration,
    targets: Mutex<Vec<Target>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

struct Target {
    stream: String,
    url: String,
    /// It is in the file: it outlives its stream, which may come back.
    is_configured: bool,
    end: CancellationToken,
}

impl Publishing {
    /// Nothing is published. `patience`: how long an attempt waits for the source.
    pub fn new(registry: Arc<Registry>, patience: Duration) -> Arc<Publishing> {
        Arc::new(Publishing {
            registry,
            patience,
            targets: Mutex::default(),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        })
    }

    /// Publishes a stream; nothing happens if it is published there already.
    ///
    /// # Errors
    /// What is wrong with the URL, without credentials, or that there are too many.
    pub fn start(self: &Arc<Self>, stream: &str, url: &str) -> Result<(), String> {
        self.begin(stream, url, false)
    }

    fn begin(self: &Arc<Self>, stream: &str, url: &str, is_configured: bool) -> Result<(), String> {
        let parsed = parse(url)?;
        let mut targets = self.targets.lock();
        targets.retain(|target| !target.end.is_cancelled());
        if let Some(target) = targets.iter_mut().find(|target| target.stream == stream && target.url == url) {
            target.is_configured |= is_configured;
            return Ok(());
        }
        if targets.len() >= MAX_TARGETS {
            return Err(format!("there are {MAX_TARGETS} publications already, that is the limit"));
        }
        let end = self.cancel.child_token();
        let target =
            Target { stream: stream.to_owned(), url: url.to_owned(), is_configured, end: end.clone() };
        targets.push(target);
        let (publishing, stream) = (self.clone(), stream.to_owned());
        self.tasks.spawn(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = publishing.run(&stream, &parsed, &end, is_configured) => {}
            }
            end.cancel();
            tracing::info!(stream, target = parsed.shown, "not published any more");
        });
        Ok(())
    }

    /// Ends a publication. False if there is none.
    pub fn stop(&self, stream: &str, url: &str) -> bool {
        let targets = self.targets.lock();
        let found = targets
            .iter()
            .find(|target| target.stream == stream && target.url == url && !target.end.is_cancelled());
        found.inspect(|target| target.end.cancel()).is_some()
    }

    /// Publishes what the configuration says, and ends what it said before and says no more.
    pub fn configure(self: &Arc<Self>, wanted: &[(String, Vec<String>)]) {
        let is_wanted = |target: &Target| {
            wanted.iter().any(|(stream, urls)| *stream == target.stream && urls.contains(&target.url))
        };
        self.targets
            .lock()
            .iter()
            .filter(|target| target.is_configured && !is_wanted(target))
            .for_each(|target| target.end.cancel());
        for (stream, urls) in wanted {
            for url in urls {
                if let Err(why) = self.begin(stream, url, true) {
                    tracing::error!(stream, "publish: {why}");
                }
            }
        }
    }

    async fn run(&self, name: &str, url: &RtspUrl, end: &CancellationToken, is_configured: bool) {
        loop {
            match self.registry.get(name) {
                Some(stream) => self.publish(&stream, url, end).await,
                None if is_configured => {}
                None => return,
            }
            // It was removed or is being replaced, or everything ends: then it is found and closed.
            sleep(MIN_PAUSE).await;
        }
    }

    /// Publishes one stream until it is removed.
    async fn publish(&self, stream: &Arc<Stream>, url: &RtspUrl, end: &CancellationToken) {
        let removed = CancellationToken::new();
        let on_end = {
            let (end, removed) = (end.clone(), removed.clone());
            move |reason| match reason {
                EndReason::StreamRemoved => removed.cancel(),
                EndReason::Kicked => end.cancel(),
            }
        };
        let dialled = Dialled { url: url.shown.clone(), state: State::Connecting, last_error: None };
        let info = ConsumerInfo {
            format_name: "rtsp",
            protocol: "rtsp+tcp",
            remote_addr: url.peer(),
            dialled: Some(dialled),
            ..ConsumerInfo::default()
        };
        // It is removed in this moment.
        let Ok(consumer) = stream.add_consumer(info, Box::new(on_end)) else { return };
        let mut pause = MIN_PAUSE;
        loop {
            let mut live = None;
            let why = tokio::select! {
                () = removed.cancelled() => return,
                why = self.attempt(stream, url, &consumer, &mut live) => why,
            };
            if live.is_some_and(|since: Instant| since.elapsed() >= GOOD_RUN) {
                pause = MIN_PAUSE;
            }
            let jittered = pause.mul_f64(rand::random_range(0.8..1.2));
            tracing::warn!(stream = stream.name(), target = url.shown, retry_in = ?jittered, "publishing failed: {why}");
            set(&consumer, State::Retrying, Some(why));
            tokio::select! {
                () = removed.cancelled() => return,
                () = sleep(jittered) => {}
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// One attempt, until it fails: why. Notes since when it is live.
    async fn attempt(
        &self,
        stream: &Arc<Stream>,
        url: &RtspUrl,
        consumer: &Consumer,
        since: &mut Option<Instant>,
    ) -> String {
        set(consumer, State::Connecting, None);
        let all = |kind| Codec::ALL.into_iter().filter(|codec| codec.kind() == kind).collect();
        let wants = Wants { video: all(Kind::Video), audio: all(Kind::Audio) };
        let leased = match lease(stream, &wants, self.patience).await {
            Ok(leased) => leased,
            Err(error) => return mask(&error.to_string()).into_owned(),
        };
        consumer.info.lock().codecs = leased.tracks.iter().map(|track| track.codec).collect();
        let live = || {
            *since = Some(Instant::now());
            tracing::info!(stream = stream.name(), target = url.shown, "published");
            set(consumer, State::Live, None);
        };
        record(url, &leased, stream.name(), consumer, live).await
    }

    /// Ends all and waits for them.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// An error stays until media flows again.
fn set(consumer: &Consumer, state: State, error: Option<String>) {
    if let Some(dialled) = &mut consumer.info.lock().dialled {
        dialled.state = state;
        if error.is_some() || state == State::Live {
            dialled.last_error = error;
        }
    }
}

fn parse(url: &str) -> Result<RtspUrl, String> {
    let scheme = url.trim().split("://").next().unwrap_or_default().to_ascii_lowercase();
    match scheme.as_str() {
        "rtsp" | "rtsps" | "rtspx" => RtspUrl::parse(url),
        "rtmp" | "rtmps" | "http" | "https" | "srt" | "whip" => {
            Err(format!("streams can't be published to {scheme}:// yet, only to rtsp:// and rtsps://"))
        }
        _ => Err("a stream is published to a URL such as rtsp://server/name".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_can_not_be_published_to_is_refused_in_words() {
        assert_eq!(parse("rtsp://a:b@h/x").map(|url| url.shown), Ok("rtsp://***:***@h/x".to_owned()));
        assert_eq!(parse(" RTSPS://a:b@h/x").map(|url| url.shown), Ok("rtsps://***:***@h/x".to_owned()));
        assert!(parse("rtmp://h/app/key").is_err_and(|why| why.contains("rtmp://") && !why.contains("key")));
        assert!(parse("h/x").is_err_and(|why| why.contains("rtsp://server/name")));
    }

    /// All streams are closed before they are forgotten. A task that spins never gives this thread back.
    #[tokio::test]
    async fn a_publication_does_not_spin_on_a_stream_that_is_closed() {
        use super::{Duration, Publishing, Registry};
        use crate::config::StreamConfig;
        use crate::graph::source::Silent;
        use std::sync::Arc;

        let registry = Registry::new(Arc::new(|_: &str| Ok(Arc::new(Silent))));
        registry.set("cam", StreamConfig::new(vec!["test:".to_owned()])).expect("a stream");
        let stream = registry.get("cam").expect("it");
        registry.shutdown().await;
        let publishing = Publishing::new(registry, Duration::from_secs(10));
        publishing.start("cam", "rtsp://127.0.0.1:9/x").expect("a URL");
        tokio::task::yield_now().await;
        let ended = tokio::time::timeout(Duration::from_secs(5), publishing.shutdown());
        assert!(ended.await.is_ok() && stream.consumers().is_empty());
    }
}
