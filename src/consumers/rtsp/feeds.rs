//! What is sent of a stream: its sources leased, its tracks known as far as a description needs them.

use crate::graph::{ConnectError, Feed, SourceError, Stream, Wants};
use crate::media::{Kind, Params, Track};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long parameter sets are waited for that come with the pictures only.
const PARAMETERS: Duration = Duration::from_secs(4);

/// Sources that run, and what is taken of them.
pub struct Leased {
    /// At most one of video and one of audio.
    pub feeds: Vec<Feed>,
    /// For each feed its track as it is described.
    pub tracks: Vec<Track>,
}

/// Leases the stream's sources and waits until they are described, `patience` at most.
pub async fn lease(stream: &Stream, wants: &Wants, patience: Duration) -> Result<Leased, ConnectError> {
    let deadline = Instant::now() + patience;
    let selection = stream.connect(wants, patience).await?;
    let feeds: Vec<Feed> = [selection.video, selection.audio].into_iter().flatten().collect();
    let mut tracks = Vec::new();
    for feed in &feeds {
        let track = known_track(feed, deadline.min(Instant::now() + PARAMETERS)).await;
        tracks.push(track.ok_or_else(|| SourceError::Ended("the source has changed meanwhile".to_owned()))?);
    }
    Ok(Leased { feeds, tracks })
}

/// The feed's track with its parameter sets, waited for if the source tells them with the pictures only.
async fn known_track(feed: &Feed, deadline: Instant) -> Option<Track> {
    let ring = feed.lease.producer().packets();
    let chosen = feed.epoch.tracks.get(feed.track)?;
    let news = Arc::new(Notify::new());
    let _subscription = ring.subscribe(news.clone());
    loop {
        let epoch = ring.epoch();
        let track = epoch.tracks.iter().find(|track| track.codec == chosen.codec).unwrap_or(chosen);
        let is_known = track.kind() == Kind::Audio || track.params != Params::None;
        if is_known || timeout_at(deadline, news.notified()).await.is_err() {
            return Some(track.clone());
        }
    }
}
