//! Puts received RTP packets in order and tells where some are missing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A packet that is this much ahead of or behind the expected one is no straggler: the sender numbers anew
/// (RFC 3550 appendix A.1, `MAX_DROPOUT`).
const MAX_JUMP: i16 = 3000;
/// After this many stragglers in a row the sender is believed to number anew, too.
const MAX_LATE: u8 = 64;

/// Orders one track's packets by sequence number. Duplicates and packets that come too late are dropped; after a
/// big jump of the numbers it goes on from there and tells a loss.
#[derive(Debug)]
pub struct Sequencer<T> {
    max_packets: usize,
    max_delay: Duration,
    /// The sequence number that is due.
    next: Option<u16>,
    /// Packets that came too early, by sequence number.
    waiting: VecDeque<Waiting<T>>,
    late_in_a_row: u8,
}

#[derive(Debug)]
struct Waiting<T> {
    sequence: u16,
    arrival: Instant,
    item: T,
}

/// A packet in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered<T> {
    /// What was pushed.
    pub item: T,
    /// At least one packet is missing right before this one.
    pub loss: bool,
}

impl<T> Sequencer<T> {
    /// For transports that keep the order (TCP): nothing is held back, gaps are told.
    pub fn in_order() -> Self {
        Self::reordering(0, Duration::ZERO)
    }

    /// For UDP: a packet that comes early waits for the missing ones, until `max_packets` wait or one of them has waited
    /// for `max_delay`.
    pub fn reordering(max_packets: usize, max_delay: Duration) -> Self {
        Sequencer { max_packets, max_delay, next: None, waiting: VecDeque::new(), late_in_a_row: 0 }
    }

    /// Takes a packet and appends to `out` all that are ready, in order.
    pub fn push(&mut self, sequence: u16, arrival: Instant, item: T, out: &mut Vec<Ordered<T>>) {
        let next = *self.next.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(next) as i16;
        if ahead < 0 && ahead > -MAX_JUMP && self.late_in_a_row < MAX_LATE {
            self.late_in_a_row += 1;
        } else if !(-MAX_JUMP..MAX_JUMP).contains(&ahead) || ahead < 0 {
            self.release_all(out);
            self.emit(sequence, item, true, out);
        } else if ahead == 0 {
            self.emit(sequence, item, false, out);
            self.release_ready(out);
        } else {
            self.late_in_a_row = 0;
            let place =
                self.waiting.partition_point(|other| (other.sequence.wrapping_sub(next) as i16) < ahead);
            if self.waiting.get(place).is_none_or(|other| other.sequence != sequence) {
                self.waiting.insert(place, Waiting { sequence, arrival, item });
            }
            if self.waiting.len() > self.max_packets {
                self.skip_gap(out);
            }
        }
        self.flush(arrival, out);
    }

    /// Gives up on missing packets that others have waited for too long, as of `now`.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<Ordered<T>>) {
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.skip_gap(out);
        }
    }

    /// When [`Sequencer::flush`] is due. `None` while nothing waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.arrival).min().map(|oldest| oldest + self.max_delay)
    }

    fn emit(&mut self, sequence: u16, item: T, loss: bool, out: &mut Vec<Ordered<T>>) {
        self.next = Some(sequence.wrapping_add(1));
        self.late_in_a_row = 0;
        out.push(Ordered { item, loss });
    }

    fn release_ready(&mut self, out: &mut Vec<Ordered<T>>) {
        while self.waiting.front().is_some_and(|first| Some(first.sequence) == self.next) {
            if let Some(first) = self.waiting.pop_front() {
                self.emit(first.sequence, first.item, false, out);
            }
        }
    }

    fn skip_gap(&mut self, out: &mut Vec<Ordered<T>>) {
        if let Some(first) = self.waiting.pop_front() {
            self.emit(first.sequence, first.item, true, out);
            self.release_ready(out);
        }
    }

    fn release_all(&mut self, out: &mut Vec<Ordered<T>>) {
        while !self.waiting.is_empty() {
            self.skip_gap(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(sequencer: &mut Sequencer<u16>, sequences: &[u16]) -> Vec<(u16, bool)> {
        let now = Instant::now();
        let mut out = Vec::new();
        for &sequence in sequences {
            sequencer.push(sequence, now, sequence, &mut out);
        }
        out.into_iter().map(|ordered| (ordered.item, ordered.loss)).collect()
    }

    fn udp() -> Sequencer<u16> {
        Sequencer::reordering(64, Duration::from_millis(100))
    }

    #[test]
    fn tcp_passes_everything_at_once_and_tells_gaps() {
        let out = run(&mut Sequencer::in_order(), &[65534, 65535, 0, 3, 4, 4, 2, 5]);
        assert_eq!(out, [(65534, false), (65535, false), (0, false), (3, true), (4, false), (5, false)]);
    }

    #[test]
    fn udp_puts_packets_in_order() {
        let out = run(&mut udp(), &[65534, 1, 65535, 0, 0, 3, 3, 2]);
        assert_eq!(out, [65534, 65535, 0, 1, 2, 3].map(|sequence| (sequence, false)));
    }

    #[test]
    fn udp_gives_up_after_the_delay() {
        let mut sequencer = udp();
        let start = Instant::now();
        let mut out = Vec::new();
        sequencer.push(1, start, 1, &mut out);
        assert_eq!(sequencer.deadline(), None);
        sequencer.push(3, start, 3, &mut out);
        sequencer.push(5, start + Duration::from_millis(50), 5, &mut out);
        assert_eq!(sequencer.deadline(), Some(start + Duration::from_millis(100)));
        sequencer.flush(start + Duration::from_millis(99), &mut out);
        assert_eq!(out.len(), 1);
        sequencer.flush(start + Duration::from_millis(100), &mut out);
        assert_eq!(out[1..], [Ordered { item: 3, loss: true }]);
        assert_eq!(sequencer.deadline(), Some(start + Duration::from_millis(150)));
    }

    #[test]
    fn udp_holds_no_more_than_it_may() {
        let sequences: Vec<u16> = std::iter::once(0).chain(2..2 + 65).collect();
        let mut sequencer = udp();
        let out = run(&mut sequencer, &sequences);
        assert_eq!(out.len(), 66);
        assert_eq!(out[1], (2, true));
        assert_eq!(sequencer.deadline(), None);
    }

    #[test]
    fn numbering_anew_is_a_loss() {
        let out = run(&mut udp(), &[10, 12, 40000, 40001]);
        assert_eq!(out, [(10, false), (12, true), (40000, true), (40001, false)]);
        let out = run(&mut Sequencer::in_order(), &[20000, 5, 6]);
        assert_eq!(out, [(20000, false), (5, true), (6, false)]);
    }

    #[test]
    fn sender_that_repeats_its_numbers_is_followed_in_the_end() {
        let out = run(&mut Sequencer::in_order(), &[7; 200]);
        assert!(out.len() > 2 && out[1..].iter().all(|packet| packet.1));
    }

    proptest! {
        #[test]
        fn output_is_in_order_and_every_gap_is_told(
            start: u16,
            steps in proptest::collection::vec((0u16..200, 0u64..30), 1..300),
        ) {
            let origin = Instant::now();
            let mut sequencer = Sequencer::reordering(16, Duration::from_millis(100));
            let mut out = Vec::new();
            let mut clock = origin;
            for (offset, wait) in steps {
                clock += Duration::from_millis(wait);
                sequencer.push(start.wrapping_add(offset), clock, start.wrapping_add(offset), &mut out);
                prop_assert!(sequencer.waiting.len() <= 16);
            }
            sequencer.flush(clock + Duration::from_secs(1), &mut out);
            prop_assert!(sequencer.deadline().is_none());
            for pair in out.windows(2) {
                prop_assert_eq!(pair[1].loss, pair[1].item != pair[0].item.wrapping_add(1));
            }
        }
    }
}
