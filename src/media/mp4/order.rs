//! Decode times from the order of arrival: RTP only tells when a picture is shown.
//!
//! With pictures that arrive up to `depth` places before their turn, the decode time of each is the presentation time
//! that is `depth` places back in the sorted sequence: it never runs back and never lies after the picture's own.

/// Places that a picture may be sent ahead of its turn at most.
const MAX_DEPTH: usize = 16;

/// Gives decode times, in ticks.
#[derive(Debug)]
pub struct DecodeOrder {
    depth: usize,
    /// Presentation times whose turn has not come, sorted.
    waiting: Vec<i64>,
    last: Option<i64>,
    /// Where the depth turns out to be too small, decode time goes on by this much.
    step: i64,
}

impl DecodeOrder {
    /// For pictures sent at most `depth` places early, `interval` apart, the first of which is shown at `first`.
    pub fn new(depth: usize, first: i64, interval: i64) -> DecodeOrder {
        let depth = depth.min(MAX_DEPTH);
        let waiting = (1..=depth as i64).rev().map(|back| first - back * interval).collect();
        DecodeOrder { depth, waiting, last: None, step: (interval / 4).max(1) }
    }

    /// How many places early the pictures with these presentation times, in their order of arrival, were sent.
    pub fn depth_of(times: &[i64]) -> usize {
        let earlier = |at: usize, time: i64| times.iter().take(at).filter(|other| **other > time).count();
        times.iter().enumerate().map(|(at, time)| earlier(at, *time)).max().unwrap_or(0).min(MAX_DEPTH)
    }

    /// The next picture's decode time, later than all before.
    pub fn next(&mut self, presentation: i64) -> i64 {
        let at = self.waiting.partition_point(|time| *time <= presentation);
        self.waiting.insert(at, presentation);
        let due = (self.waiting.len() > self.depth).then(|| self.waiting.remove(0));
        let decode = match (due, self.last) {
            (Some(due), Some(last)) if due <= last => {
                self.depth = (self.depth + 1).min(MAX_DEPTH);
                last + self.step
            }
            (Some(due), _) => due,
            (None, last) => last.map_or(presentation, |last| last + self.step),
        };
        self.last = Some(decode);
        decode
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(depth: usize, times: &[i64]) -> Vec<i64> {
        let mut order = DecodeOrder::new(depth, times[0], 10);
        times.iter().map(|time| order.next(*time)).collect()
    }

    #[test]
    fn without_b_frames_pictures_are_decoded_when_they_are_shown() {
        assert_eq!(DecodeOrder::depth_of(&[10, 20, 29, 41]), 0);
        assert_eq!(decode(0, &[10, 20, 29, 41]), [10, 20, 29, 41]);
    }

    #[test]
    fn b_frames_are_decoded_before_they_are_shown() {
        // I P B b b with a pyramid.
        let times = [100, 140, 120, 110, 130, 180, 160, 150, 170];
        assert_eq!(DecodeOrder::depth_of(&times), 2);
        assert_eq!(decode(2, &times), [80, 90, 100, 110, 120, 130, 140, 150, 160]);
    }

    #[test]
    fn a_depth_that_was_thought_too_small_is_learned() {
        let times: Vec<i64> = (0..40).flat_map(|gop| [0, 30, 10, 20].map(|time| time + gop * 40)).collect();
        let decoded = decode(0, &times);
        assert!(decoded.is_sorted_by(|a, b| a < b), "{decoded:?}");
        let late = decoded.iter().zip(&times).skip(20).filter(|(decode, shown)| decode > shown).count();
        assert_eq!(late, 0);
    }

    proptest! {
        #[test]
        fn decode_times_always_grow(depth in 0usize..20, times in proptest::collection::vec(0i64..1000, 1..60)) {
            let decoded = decode(depth, &times);
            prop_assert!(decoded.is_sorted_by(|a, b| a < b), "{:?}", decoded);
        }
    }
}
