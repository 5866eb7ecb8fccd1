//! One HLS viewer: it waits at the live edge and fetches each new part, or each segment where there are no parts.

use super::http::Client;
use super::playlist::{Media, first_variant};
use super::shared::{Shared, micros};
use crate::media::stamp;
use bytes::Bytes;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use url::Url;

/// Watches until the run ends. `joined` is set with the first part.
pub async fn watch(shared: &Shared, looks_inside: bool, joined: &mut bool) -> Result<(), String> {
    let viewer = Viewer { shared, looks_inside, http: Client::connect(shared.address).await? };
    tokio::select! {
        outcome = viewer.run(joined) => outcome,
        () = shared.stop.cancelled() => Ok(()),
    }
}

struct Viewer<'run> {
    shared: &'run Shared,
    looks_inside: bool,
    http: Client,
}

impl Viewer<'_> {
    async fn run(mut self, joined: &mut bool) -> Result<(), String> {
        let start = Instant::now();
        let mut base = self.shared.target.url.clone();
        let mut text = self.text(&base).await?;
        self.shared.samples.lock().answer.push(micros(start.elapsed()));
        if let Some(variant) = first_variant(&text) {
            base = join(&base, variant)?;
            text = self.text(&base).await?;
        }
        let mut had_map = false;
        // What was fetched last: media sequence number, and part or the whole segment.
        let mut newest: Option<(u64, u64)> = None;
        loop {
            let media = Media::parse(&text);
            if let Some(map) = media.map.filter(|_| !had_map) {
                self.fetch(&join(&base, map)?).await?;
                had_map = true;
            }
            let pieces: Vec<((u64, u64), Url)> = if media.parts.is_empty() {
                let whole = media.segments.iter().map(|(msn, uri)| ((*msn, u64::MAX), *uri));
                whole.map(|(at, uri)| Ok((at, join(&base, uri)?))).collect::<Result<_, String>>()?
            } else {
                let parts = media.parts.iter().map(|(msn, part, uri)| ((*msn, *part), *uri));
                parts.map(|(at, uri)| Ok((at, join(&base, uri)?))).collect::<Result<_, String>>()?
            };
            // A viewer begins with the newest piece there is.
            let from = newest.or_else(|| pieces.len().checked_sub(2).and_then(|at| Some(pieces.get(at)?.0)));
            let (can_block, next, target) = (media.can_block, media.next, media.target);
            for (at, url) in pieces {
                if from.is_some_and(|from| at <= from) {
                    continue;
                }
                let data = self.fetch(&url).await?;
                newest = Some(at);
                self.shared.counters.parts.fetch_add(1, Relaxed);
                if !*joined {
                    *joined = true;
                    self.shared.counters.joined.fetch_add(1, Relaxed);
                    self.shared.samples.lock().first_media.push(micros(start.elapsed()));
                }
                if let Some(stamp) = stamp::last_in(&data).filter(|_| self.looks_inside) {
                    self.shared.arrived(stamp);
                }
            }
            text = if can_block {
                let mut url = base.clone();
                let (msn, part) = (next.0.to_string(), next.1.to_string());
                url.query_pairs_mut().append_pair("_HLS_msn", &msn).append_pair("_HLS_part", &part);
                self.text(&url).await?
            } else {
                // RFC 8216 §6.3.4: not before half the target duration.
                tokio::time::sleep(Duration::from_millis(target.clamp(1, 60) * 500)).await;
                self.text(&base).await?
            };
        }
    }

    async fn text(&mut self, url: &Url) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.fetch(url).await?).into_owned())
    }

    async fn fetch(&mut self, url: &Url) -> Result<Bytes, String> {
        let body = self.http.get(url).await?.good()?;
        self.shared.counters.responses.fetch_add(1, Relaxed);
        self.shared.counters.bytes.fetch_add(body.len() as u64, Relaxed);
        Ok(body)
    }
}

fn join(base: &Url, uri: &str) -> Result<Url, String> {
    base.join(uri).map_err(|error| format!("the playlist names {uri:?}: {error}"))
}
