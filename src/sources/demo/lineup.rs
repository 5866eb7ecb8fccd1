//! What an RTSP server of this folder shows, under which paths, and since when. Pure code.

use super::clip::Clip;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most clients of the demo camera at a time. Streamgate itself is one.
const MAX_DEMO_CLIENTS: usize = 8;
/// Clients of each rehearsal camera: who reads it, who reconnects before the old connection is noticed to be gone, and
/// who wants to have a look besides.
const CLIENTS_PER_CAMERA: usize = 4;

/// The cameras of a server. They all show the same clip.
#[derive(Debug)]
pub struct Lineup {
    /// What they show.
    pub clip: Arc<Clip>,
    /// Further clients are closed at once.
    pub max_clients: usize,
    /// `None`: the one demo camera, which begins anew for each client.
    cameras: Option<Cameras>,
}

#[derive(Debug)]
struct Cameras {
    count: usize,
    since: Instant,
    /// How far apart the first and the last are in the clip.
    spread: Duration,
    until: Option<Instant>,
}

/// When a camera's clip began to play.
#[derive(Debug, Clone, Copy)]
pub struct Running {
    /// The clip began then.
    pub since: Instant,
    /// Nothing is sent from then on.
    pub until: Option<Instant>,
}

impl Running {
    /// Since `since`, without end.
    pub fn since(since: Instant) -> Running {
        Running { since, until: None }
    }
}

impl Lineup {
    /// The demo camera, at `/demo`.
    pub fn demo(clip: Clip) -> Lineup {
        Lineup { clip: Arc::new(clip), max_clients: MAX_DEMO_CLIENTS, cameras: None }
    }

    /// `/cam1`, `/cam2` … up to `count`, which all run since `since` but are `spread` apart, evenly, and fall silent at
    /// `until`.
    pub fn cameras(
        clip: Clip,
        count: usize,
        since: Instant,
        spread: Duration,
        until: Option<Instant>,
    ) -> Lineup {
        let max_clients = count.saturating_mul(CLIENTS_PER_CAMERA);
        Lineup { clip: Arc::new(clip), max_clients, cameras: Some(Cameras { count, since, spread, until }) }
    }

    /// The camera that a path names, and what follows its name.
    pub fn find<'path>(&self, path: &'path str) -> Option<(usize, &'path str)> {
        let (number, rest) = match &self.cameras {
            None => (0, path.strip_prefix("/demo")?),
            Some(cameras) => {
                let path = path.strip_prefix("/cam")?;
                let (number, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
                // `+1` and `01` are numbers too, but no camera's name.
                let is_plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
                let number = number.parse().ok().filter(|number| is_plain && *number <= cameras.count)?;
                (number, rest)
            }
        };
        (rest.is_empty() || rest.starts_with('/')).then_some((number, rest))
    }

    /// Since when a camera plays, for a client that begins now.
    pub fn running(&self, camera: usize, now: Instant) -> Running {
        let Some(cameras) = &self.cameras else { return Running::since(now) };
        let ahead = cameras.spread.mul_f64(camera.min(cameras.count) as f64 / cameras.count.max(1) as f64);
        let since = cameras.since.checked_sub(ahead).unwrap_or(cameras.since);
        Running { since, until: cameras.until }
    }
}
