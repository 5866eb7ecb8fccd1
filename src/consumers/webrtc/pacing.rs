//! How fast one viewer is sent to: a token bucket. Pure; what waits is the peer's.

use std::time::{Duration, Instant};

/// A burst that goes at once, and the rate of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Bytes that are sent at once: a picture that fits does not wait.
    pub burst: usize,
    /// Bits a second after that.
    pub rate: u64,
}

impl From<crate::config::Pacing> for Pacing {
    fn from(config: crate::config::Pacing) -> Pacing {
        Pacing { burst: usize::try_from(config.burst).unwrap_or(usize::MAX), rate: config.rate }
    }
}

/// What waits is gone within this time, if need be faster than the rate says: a viewer must not fall behind.
const DRAIN: Duration = Duration::from_millis(500);
/// What waits is looked at this often: each look sends one run.
pub const INTERVAL: Duration = Duration::from_millis(2);

/// One viewer's bucket.
#[derive(Debug)]
pub struct Pacer {
    pacing: Pacing,
    /// Bytes a second, now.
    rate: f64,
    tokens: f64,
    filled: Instant,
}

impl Pacer {
    /// A full bucket.
    pub fn new(pacing: Pacing, now: Instant) -> Pacer {
        let rate = pacing.rate as f64 / 8.0;
        Pacer { pacing, rate, tokens: pacing.burst as f64, filled: now }
    }

    /// Whether so many bytes may be sent now; they count as sent then.
    pub fn take(&mut self, bytes: usize, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled);
        self.filled = now.max(self.filled);
        // A bucket that is smaller than what a look adds, even one that comes late, would hold the rate down.
        let burst = (self.pacing.burst as f64).max(self.rate * 2.0 * INTERVAL.as_secs_f64());
        self.tokens = (self.tokens + self.rate * since.as_secs_f64()).min(burst);
        // Whatever is larger than the whole bucket goes when the bucket is full.
        let may = self.tokens >= (bytes as f64).min(burst);
        if may {
            self.tokens -= bytes as f64;
        }
        may
    }

    /// So many bytes wait.
    pub fn waiting(&mut self, bytes: usize) {
        let usual = self.pacing.rate as f64 / 8.0;
        self.rate = if bytes == 0 { usual } else { self.rate.max(bytes as f64 / DRAIN.as_secs_f64()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACING: Pacing = Pacing { burst: 10_000, rate: 8_000_000 };

    /// Milliseconds at which packets of 1000 bytes that wait are sent.
    fn sent_at(packets: usize, pacer: &mut Pacer, now: Instant) -> Vec<u64> {
        let mut out = Vec::new();
        for step in 0.. {
            let at = now + INTERVAL * step;
            pacer.waiting((packets - out.len()) * 1000);
            while out.len() < packets && pacer.take(1000, at) {
                out.push(2 * u64::from(step));
            }
            if out.len() == packets {
                pacer.waiting(0);
                return out;
            }
        }
        out
    }

    #[test]
    fn what_fits_the_burst_goes_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut pacer = Pacer::new(PACING, now);
        assert_eq!(sent_at(10, &mut pacer, now), [0; 10]);
        let later = now + Duration::from_secs(1);
        let times = sent_at(50, &mut pacer, later);
        assert_eq!(times[..10], [0; 10]);
        assert_eq!((times[10], times[11], times[12]), (2, 2, 4), "a byte a microsecond");
        assert_eq!(times[49], 40);
    }

    #[test]
    fn a_long_queue_is_gone_in_half_a_second() {
        let now = Instant::now();
        let times = sent_at(10_000, &mut Pacer::new(PACING, now), now);
        assert!((450..=510).contains(times.last().unwrap()), "{:?}", times.last());
    }

    #[test]
    fn what_is_larger_than_the_burst_goes_too() {
        let now = Instant::now();
        let mut pacer = Pacer::new(Pacing { burst: 500, rate: 8_000_000 }, now);
        assert_eq!(sent_at(4, &mut pacer, now), [2, 2, 4, 4]);
    }
}
