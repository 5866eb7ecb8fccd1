//! Where parts and segments end.
//!
//! A part must not last longer than the part target nor less than 85 % of it, unless it ends a segment
//! (draft-pantos-hls-rfc8216bis §4.4.4.9), but cameras' timestamps jitter and their frame rates change. Decode times
//! are ours to choose, though: a part's boundaries are put where the rules want them and its pictures' decode times
//! spread between; composition offsets keep the moment each is shown to the tick. The difference is paid back by the
//! next part.

use bytes::Bytes;
use std::collections::VecDeque;

/// Keyframe distances that are remembered.
const GOPS: usize = 16;
/// Until so many are known, the next one may be as long as a segment: a few alike may be chance.
const GOPS_TO_TRUST: usize = GOPS;

/// One access unit of the leading track, in ticks.
#[derive(Debug, Clone)]
pub struct Picture {
    /// When it is decoded, if nothing else is wanted.
    pub decode: i64,
    /// When it is shown.
    pub shown: i64,
    /// A decoder can start here.
    pub keyframe: bool,
    /// Its bytes.
    pub data: Bytes,
}

/// The access units of one part.
#[derive(Debug)]
pub struct Cut {
    /// The units, each with its final decode time.
    pub pictures: Vec<Picture>,
    /// Decode time at which the part begins.
    pub start: i64,
    /// How long it lasts.
    pub duration: i64,
    /// It is the last of its segment.
    pub ends_segment: bool,
}

/// Lengths, in ticks of the leading track.
#[derive(Debug, Clone, Copy)]
pub struct Lengths {
    /// Ticks a second.
    pub second: i64,
    /// From one access unit to the next, on average.
    pub interval: i64,
    /// No part is longer.
    pub part: i64,
    /// A segment ends at the first keyframe after this long.
    pub segment: i64,
    /// No segment is longer.
    pub longest_segment: i64,
}

/// Cuts the leading track.
#[derive(Debug)]
pub struct Cutter {
    lengths: Lengths,
    pending: Vec<Picture>,
    /// Where the pending part begins.
    start: i64,
    /// Length of the segment's parts so far.
    segment: i64,
    last_keyframe: Option<i64>,
    gops: VecDeque<i64>,
}

impl Cutter {
    /// Nothing cut yet.
    pub fn new(lengths: Lengths) -> Cutter {
        Cutter {
            lengths,
            pending: Vec::new(),
            start: 0,
            segment: 0,
            last_keyframe: None,
            gops: VecDeque::new(),
        }
    }

    /// Takes the next access unit; gives the part that it brings to an end.
    pub fn push(&mut self, picture: Picture) -> Option<Cut> {
        let at = picture.decode;
        if picture.keyframe
            && let Some(last) = self.last_keyframe.replace(at)
        {
            self.gops.push_back(at - last);
            if self.gops.len() > GOPS {
                self.gops.pop_front();
            }
        }
        // Judged with the GOP that ends here: it may be the first that is not like the others.
        let ends_segment = picture.keyframe && self.ends_segment(at);
        let mut cut = None;
        if self.pending.is_empty() {
            self.start = at;
        } else if ends_segment || self.ends_part(at) {
            cut = Some(self.cut(at, ends_segment));
        }
        self.pending.push(picture);
        cut
    }

    /// The part that was still growing: nothing follows.
    pub fn finish(&mut self) -> Option<Cut> {
        let last = self.pending.last()?;
        let end = last.decode + self.lengths.interval;
        let cut = self.cut(end, true);
        self.last_keyframe = None;
        Some(cut)
    }

    fn ends_segment(&self, at: i64) -> bool {
        let Lengths { second, interval, segment, longest_segment, .. } = self.lengths;
        let length = self.segment + at - self.start;
        let (shortest, longest) = (self.gops.iter().min(), self.gops.iter().max());
        let next_gop = match (shortest, longest) {
            // They are alike, or short: the next one will be, too.
            (Some(shortest), Some(longest))
                if self.gops.len() >= GOPS_TO_TRUST
                    && (longest * 4 <= shortest * 5 || longest * 2 <= second) =>
            {
                *longest
            }
            _ => longest_segment,
        };
        !self.pending.is_empty()
            && (length >= segment - interval / 2
                || (length >= second * 2 / 5 && length + next_gop + interval > longest_segment))
    }

    /// The shortest part that need not end a segment.
    fn shortest_part(&self) -> i64 {
        (self.lengths.part * 85 + 99) / 100
    }

    fn ends_part(&self, at: i64) -> bool {
        let length = at - self.start;
        let longer = length + self.lengths.interval;
        let (least, most) = (self.shortest_part(), self.lengths.part);
        // With another unit it would be too long. Where it is too short without one, the smaller fault is taken.
        longer > most && (length >= least || least - length <= longer - most)
    }

    fn cut(&mut self, at: i64, ends_segment: bool) -> Cut {
        let Lengths { second, part, longest_segment, .. } = self.lengths;
        let least = if ends_segment { 1 } else { self.shortest_part() };
        let count = self.pending.len() as i64;
        let length = (at - self.start).max(least.max(count));
        // A source that stopped for long is believed at last: its sound must not run away.
        let duration = if length > part + second { length } else { length.min(part.max(count)) };
        let (start, first) = (self.start, self.pending.first().map_or(at, |picture| picture.decode));
        let spread = (at - first).max(1);
        let mut pictures = std::mem::take(&mut self.pending);
        let mut least = start;
        for (left, picture) in (1..=count).rev().zip(&mut pictures) {
            let even = start + (picture.decode - first).clamp(0, spread) * duration / spread;
            // Each keeps at least one tick, also where rounding would take it.
            picture.decode = even.max(least).min(start + duration - left);
            least = picture.decode + 1;
        }
        self.start = start + duration;
        self.segment += duration;
        let ends_segment = ends_segment || self.segment + part > longest_segment;
        if ends_segment {
            self.segment = 0;
        }
        Cut { pictures, start, duration, ends_segment }
    }
}

#[cfg(test)]
#[path = "cutter_tests.rs"]
mod tests;
