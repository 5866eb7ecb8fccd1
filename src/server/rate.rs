//! Keeps log lines that a stranger can cause from filling the log.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lets one event through in each period.
#[derive(Debug)]
pub(super) struct Rate {
    period: Duration,
    last: Mutex<Option<Instant>>,
}

impl Rate {
    pub(super) const fn every(period: Duration) -> Rate {
        Rate { period, last: Mutex::new(None) }
    }

    /// Whether this event is let through.
    pub(super) fn allow(&self) -> bool {
        let mut last = self.last.lock();
        let now = Instant::now();
        let allowed = last.is_none_or(|last| now.duration_since(last) >= self.period);
        if allowed {
            *last = Some(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_in_each_period() {
        let rate = Rate::every(Duration::from_secs(3600));
        assert!(rate.allow());
        assert!(!rate.allow());
        let rate = Rate::every(Duration::ZERO);
        assert!(rate.allow() && rate.allow());
    }
}
