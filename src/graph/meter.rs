//! Rates for people to read: bits and frames a second over the last moments.

use std::time::{Duration, Instant};

/// Counts over about the last two seconds. Fed by one writer, read at any time.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    started: Instant,
    bytes: u64,
    frames: u32,
    bitrate: f64,
    fps: f64,
}

const WINDOW: Duration = Duration::from_secs(2);

impl Meter {
    /// Nothing counted yet.
    pub fn new(now: Instant) -> Meter {
        Meter { started: now, bytes: 0, frames: 0, bitrate: 0.0, fps: 0.0 }
    }

    /// Adds what has arrived: payload bytes of all tracks and started video access units.
    pub fn add(&mut self, now: Instant, bytes: usize, frames: u32) {
        self.bytes += bytes as u64;
        self.frames += frames;
        let elapsed = now.saturating_duration_since(self.started);
        if elapsed >= WINDOW {
            (self.bitrate, self.fps) = self.rates(elapsed);
            (self.started, self.bytes, self.frames) = (now, 0, 0);
        }
    }

    fn rates(&self, elapsed: Duration) -> (f64, f64) {
        let seconds = elapsed.as_secs_f64();
        (self.bytes as f64 * 8.0 / seconds, f64::from(self.frames) / seconds)
    }

    /// Bits a second and frames a second, at `now`; they fall to zero when nothing arrives.
    pub fn read(&self, now: Instant) -> (u64, f64) {
        let elapsed = now.saturating_duration_since(self.started);
        let (bitrate, fps) = if elapsed > WINDOW || (self.bitrate == 0.0 && elapsed >= WINDOW / 4) {
            self.rates(elapsed)
        } else {
            (self.bitrate, self.fps)
        };
        (bitrate.round() as u64, (fps * 10.0).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_arrives_and_fall_to_zero() {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        for n in 1..=90u64 {
            meter.add(start + Duration::from_millis(n * 1000 / 30), 1000, 1);
        }
        let (bitrate, fps) = meter.read(start + Duration::from_secs(3));
        assert!((235_000..245_000).contains(&bitrate), "{bitrate}");
        assert!((29.0..=31.0).contains(&fps), "{fps}");
        assert_eq!(meter.read(start + Duration::from_secs(3600)).1, 0.0);
    }
}
