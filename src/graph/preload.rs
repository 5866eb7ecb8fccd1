//! Streams that are kept warm by a consumer that watches nothing: go2rtc's `preload`.

use super::consumer::ConsumerInfo;
use super::negotiate::Wants;
use super::stream::{ConnectError, Stream};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The `format_name` of the consumer that keeps a stream warm.
pub const FORMAT_NAME: &str = "preload";
/// How long to look for tracks, and the pause after that failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What of a stream is kept warm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preload {
    /// As it is written: `video&audio`, `video=h264`.
    pub query: String,
    /// The same, understood.
    pub wants: Wants,
}

/// All preloads by the name of their stream, which need not exist (yet).
#[derive(Default)]
pub(super) struct Preloads(Mutex<BTreeMap<String, (Preload, CancellationToken)>>);

impl Preloads {
    /// Makes `wanted` all there is. `stream` finds a stream by name.
    pub(super) fn set(
        &self,
        wanted: Vec<(String, Preload)>,
        stream: impl Fn(&str) -> Option<Arc<Stream>>,
        tasks: &TaskTracker,
    ) {
        let mut running = self.0.lock();
        let mut old = std::mem::take(&mut *running);
        for (name, preload) in wanted {
            let unchanged = old.remove(&name).filter(|(was, cancel)| {
                let same = *was == preload;
                if !same {
                    cancel.cancel();
                }
                same
            });
            let entry = unchanged.unwrap_or_else(|| {
                let cancel = CancellationToken::new();
                match stream(&name) {
                    Some(stream) => drop(tasks.spawn(keep(stream, preload.wants.clone(), cancel.clone()))),
                    None => tracing::warn!(stream = name, "there is no stream of that name to preload"),
                }
                (preload, cancel)
            });
            running.insert(name, entry);
        }
        old.values().for_each(|(_, cancel)| cancel.cancel());
    }

    /// Keeps a stream warm that is new, if it is to be.
    pub(super) fn begin(&self, stream: &Arc<Stream>, tasks: &TaskTracker) {
        if let Some((preload, cancel)) = self.0.lock().get(stream.name()) {
            tasks.spawn(keep(stream.clone(), preload.wants.clone(), cancel.clone()));
        }
    }

    pub(super) fn list(&self) -> BTreeMap<String, Preload> {
        self.0.lock().iter().map(|(name, (preload, _))| (name.clone(), preload.clone())).collect()
    }
}

/// Holds what it needs until the stream ends or `cancel`.
async fn keep(stream: Arc<Stream>, wants: Wants, cancel: CancellationToken) {
    let ended = cancel.child_token();
    let end = ended.clone();
    let info = ConsumerInfo { format_name: FORMAT_NAME, ..ConsumerInfo::default() };
    let Ok(consumer) = stream.add_consumer(info, Box::new(move |_| end.cancel())) else { return };
    let body = async {
        let Some(first) = stream.producers().iter().find(|producer| producer.unsupported().is_none()) else {
            return;
        };
        // In its turn: nobody waits for it, and there may be hundreds of them.
        let _warm = first.keep_warm();
        let mut status = first.statuses();
        let known = |status: &super::Status| status.described || status.retries > 0;
        if status.wait_for(known).await.is_err() {
            return;
        }
        loop {
            match stream.connect(&wants, PATIENCE).await {
                Ok(selection) => {
                    let codecs = [&selection.video, &selection.audio];
                    consumer.info.lock().codecs =
                        codecs.into_iter().flatten().filter_map(|f| f.codec()).collect();
                    return std::future::pending().await;
                }
                Err(ConnectError::Removed) => return,
                Err(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
    };
    tokio::select! {
        () = ended.cancelled() => {}
        () = body => {}
    }
}
