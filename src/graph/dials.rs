//! Spreads dials: when a network comes back, hundreds of cameras must not be dialled in the same moment.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Dials that may follow each other at once, e.g. all cameras of a small site.
const BURST: u32 = 32;
/// Between two dials after that: 50 a second. 500 cameras are dialled within ten seconds.
const INTERVAL: Duration = Duration::from_millis(20);

/// Turns for dials that nobody waits for. All sources of a registry share them.
#[derive(Debug, Default)]
pub struct Dials {
    /// When the bucket that [`BURST`] fills is full again.
    full_at: Mutex<Option<Instant>>,
}

impl Dials {
    /// Waits for a turn. A turn that is not waited for is lost.
    pub async fn turn(&self) {
        let now = Instant::now();
        let full_at = {
            let mut full_at = self.full_at.lock();
            let next = full_at.map_or(now, |at| at.max(now)) + INTERVAL;
            *full_at = Some(next);
            next
        };
        // `now` where the bucket still has something.
        sleep_until(full_at.checked_sub(INTERVAL * BURST).unwrap_or(now)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_at_a_steady_rate() {
        let (dials, start) = (Dials::default(), Instant::now());
        let turn = async || {
            dials.turn().await;
            start.elapsed()
        };
        let turns = join_all((0..500).map(|_| turn())).await;
        assert_eq!(turns.iter().filter(|at| at.is_zero()).count(), BURST as usize);
        assert_eq!(turns.last(), Some(&(INTERVAL * (500 - BURST))));
        tokio::time::advance(INTERVAL * BURST).await;
        let later = start.elapsed();
        let turns = join_all((0..BURST).map(|_| turn())).await;
        assert!(turns.iter().all(|at| *at == later), "a burst is there again: {turns:?}");
    }
}
