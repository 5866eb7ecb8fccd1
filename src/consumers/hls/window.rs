//! What can be fetched now: the segments of the playlist, the one that grows, and some that have just left it.
//! Bounded in segments and bytes.

use super::segmenter::Event;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Segments that stay in the playlist whatever they weigh.
const LEAST_SEGMENTS: usize = 3;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Segments in the playlist; more while they last less than three target durations together.
    pub segments: usize,
    /// Bytes in all, gone segments included; the three newest segments stay.
    pub bytes: usize,
    /// `EXT-X-TARGETDURATION` in seconds.
    pub target: u32,
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The fragment.
    pub data: Bytes,
    /// Seconds.
    pub duration: f64,
    /// A player can start with it.
    pub independent: bool,
}

/// A segment, complete or growing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Segment {
    /// Media sequence number.
    pub number: u64,
    /// The init segment it needs.
    pub init: u32,
    /// Timestamps or tracks differ from those of the segment before.
    pub discontinuity: bool,
    /// Wall clock of its beginning, in milliseconds since 1970. Not rounded: that would add up over the segments.
    pub wall_ms: f64,
    /// Its parts.
    pub parts: Vec<Part>,
    /// All parts' bytes, once it is complete. The parts are slices of it then.
    pub data: Bytes,
}

impl Segment {
    /// Seconds.
    pub fn duration(&self) -> f64 {
        self.parts.iter().map(|part| part.duration).sum()
    }

    fn size(&self) -> usize {
        self.parts.iter().map(|part| part.data.len()).sum()
    }

    /// Puts the parts' bytes into one piece.
    fn complete(&mut self) {
        let mut whole = BytesMut::with_capacity(self.size());
        for part in &self.parts {
            whole.extend_from_slice(&part.data);
        }
        self.data = whole.freeze();
        let mut at = 0;
        for part in &mut self.parts {
            let end = at + part.data.len();
            part.data = self.data.slice(at..end);
            at = end;
        }
    }
}

/// What the multivariant playlist tells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Description {
    /// Of all tracks.
    pub codecs: Vec<String>,
    /// Width and height; 0 without video.
    pub size: (u16, u16),
    /// 0 without video.
    pub fps: f64,
}

/// See the module's page.
#[derive(Debug)]
pub struct Window {
    bounds: Bounds,
    /// Set by the first [`Event::Start`].
    pub part_target: Duration,
    /// Of the newest tracks.
    pub description: Description,
    /// Complete segments of the playlist.
    pub segments: VecDeque<Segment>,
    /// The segment that grows; its number is the next one. Without parts it is in no playlist yet.
    pub growing: Segment,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`.
    pub discontinuities_gone: u64,
    gone: VecDeque<Segment>,
    inits: BTreeMap<u32, Bytes>,
    bytes: usize,
}

impl Window {
    /// Nothing yet.
    pub fn new(bounds: Bounds) -> Window {
        Window {
            bounds,
            part_target: Duration::ZERO,
            description: Description::default(),
            segments: VecDeque::new(),
            growing: Segment::default(),
            discontinuities_gone: 0,
            gone: VecDeque::new(),
            inits: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// `EXT-X-TARGETDURATION` in seconds.
    pub fn target(&self) -> u32 {
        self.bounds.target
    }

    /// Takes what the segmenter gave.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Start { init, wall_ms, fps, part_target, codecs, size } => {
                self.end_segment();
                let id = self.inits.last_key_value().map_or(0, |(id, _)| id + 1);
                self.growing.discontinuity = !self.inits.is_empty();
                self.growing.init = id;
                self.growing.wall_ms = wall_ms as f64;
                self.inits.insert(id, init);
                self.part_target = part_target;
                self.description = Description { codecs, size, fps };
            }
            Event::Part { data, duration, independent } => {
                self.bytes += data.len();
                self.growing.parts.push(Part { data, duration, independent });
            }
            Event::SegmentEnd => self.end_segment(),
        }
    }

    fn end_segment(&mut self) {
        if self.growing.parts.is_empty() {
            return;
        }
        let duration = self.growing.duration();
        let next = Segment {
            number: self.growing.number + 1,
            init: self.growing.init,
            wall_ms: self.growing.wall_ms + duration * 1000.0,
            ..Segment::default()
        };
        let mut complete = std::mem::replace(&mut self.growing, next);
        complete.complete();
        self.segments.push_back(complete);
        self.evict();
    }

    fn evict(&mut self) {
        let least = f64::from(self.bounds.target) * 3.0;
        let mut length: f64 = self.segments.iter().map(Segment::duration).sum();
        while let Some(oldest) = self.segments.front() {
            let left = length - oldest.duration();
            let many = self.segments.len() > self.bounds.segments && left >= least;
            let heavy = self.bytes > self.bounds.bytes && self.segments.len() > LEAST_SEGMENTS;
            if !many && !heavy {
                break;
            }
            length = left;
            self.discontinuities_gone += u64::from(oldest.discontinuity);
            self.gone.extend(self.segments.pop_front());
        }
        // A client may still ask for what its playlist named: as long as the playlist lasts.
        while self.gone.len() > self.segments.len()
            || (self.bytes > self.bounds.bytes && !self.gone.is_empty())
        {
            self.bytes -= self.gone.pop_front().map_or(0, |segment| segment.size());
        }
        let oldest = self.gone.iter().chain(&self.segments).next().map_or(0, |segment| segment.init);
        self.inits.retain(|id, _| *id >= oldest);
    }

    /// The complete segment of that number.
    pub fn segment(&self, number: u64) -> Option<&Segment> {
        self.gone.iter().chain(&self.segments).find(|segment| segment.number == number)
    }

    /// A part, also of the growing segment.
    pub fn part(&self, number: u64, index: usize) -> Option<Bytes> {
        let segment = if number == self.growing.number { &self.growing } else { self.segment(number)? };
        segment.parts.get(index).map(|part| part.data.clone())
    }

    /// An init segment.
    pub fn init(&self, id: u32) -> Option<Bytes> {
        self.inits.get(&id).cloned()
    }

    /// Bits a second: of the heaviest segment, and of all together.
    pub fn bandwidth(&self) -> (u64, u64) {
        let rate = |bytes: usize, seconds: f64| (bytes as f64 * 8.0 / seconds.max(0.001)).ceil() as u64;
        let all = || self.segments.iter();
        let peak = all().map(|segment| rate(segment.size(), segment.duration())).max().unwrap_or(0);
        let average = rate(all().map(Segment::size).sum(), all().map(Segment::duration).sum());
        (peak.max(1), average.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn start(wall_ms: i64) -> Event {
        Event::Start {
            init: Bytes::from_static(b"init"),
            wall_ms,
            fps: 25.0,
            part_target: Duration::from_millis(210),
            codecs: vec!["avc1.64001f".into()],
            size: (640, 360),
        }
    }

    fn part(bytes: usize) -> Event {
        Event::Part { data: vec![7; bytes].into(), duration: 1.0, independent: true }
    }

    fn window(bytes: usize) -> Window {
        let mut window = Window::new(Bounds { segments: 5, bytes, target: 1 });
        window.apply(start(0));
        window
    }

    #[test]
    fn a_part_is_a_slice_of_its_segment() {
        let mut window = window(1 << 20);
        for n in 1..4 {
            window.apply(part(n));
        }
        assert_eq!(window.part(0, 2).unwrap().len(), 3);
        window.apply(Event::SegmentEnd);
        assert_eq!(window.segment(0).unwrap().data.len(), 6);
        assert_eq!(window.part(0, 2).unwrap().as_ptr(), window.segment(0).unwrap().data[3..].as_ptr());
        assert_eq!(window.part(0, 3), None);
    }

    #[test]
    fn the_window_is_bounded_in_segments_and_bytes() {
        let mut window = window(1000);
        for _ in 0..100 {
            window.apply(part(10));
            window.apply(Event::SegmentEnd);
        }
        assert_eq!((window.segments.len(), window.gone.len(), window.bytes), (5, 5, 100));
        assert_eq!(window.segments[0].number, 95);
        assert!(window.segment(90).is_some() && window.segment(89).is_none());
        for _ in 0..10 {
            window.apply(part(400));
            window.apply(Event::SegmentEnd);
        }
        assert_eq!((window.segments.len(), window.bytes), (3, 1200));
    }

    #[test]
    fn the_wall_clock_of_segments_does_not_drift() {
        let mut window = window(1 << 20);
        // 50 pictures at 30 a second: no whole number of milliseconds.
        for _ in 0..3000 {
            window.apply(Event::Part {
                data: Bytes::from_static(b"x"),
                duration: 5.0 / 3.0,
                independent: true,
            });
            window.apply(Event::SegmentEnd);
        }
        assert!((window.growing.wall_ms - 5_000_000.0).abs() < 1.0, "{} ms", window.growing.wall_ms);
    }

    #[test]
    fn a_new_start_is_a_discontinuity_with_its_own_init_segment() {
        let mut window = window(1 << 20);
        window.apply(part(1));
        window.apply(start(5000));
        window.apply(part(2));
        assert_eq!((window.growing.number, window.growing.init), (1, 1));
        assert!(window.growing.discontinuity && !window.segments[0].discontinuity);
        assert_eq!(window.growing.wall_ms, 5000.0);
        for _ in 0..20 {
            window.apply(Event::SegmentEnd);
            window.apply(part(1));
        }
        assert_eq!(window.discontinuities_gone, 1);
        assert_eq!(window.init(0), None);
        assert!(window.init(1).is_some());
    }
}
