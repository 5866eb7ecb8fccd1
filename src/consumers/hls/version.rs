//! One state of a playlist: rendered and compressed once, shared by all who ask.

use super::playlist;
use super::query::Reload;
use super::waiters::Place;
use super::window::Window;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::sync::{Arc, OnceLock};

/// A text and its compressed form.
#[derive(Debug)]
pub struct Text {
    /// As it is.
    pub plain: Bytes,
    gzip: OnceLock<Option<Bytes>>,
}

impl Text {
    /// Of this content.
    pub fn new(text: String) -> Arc<Text> {
        Arc::new(Text { plain: text.into(), gzip: OnceLock::new() })
    }

    /// Compressed (RFC 1952), by whoever asks first.
    pub fn gzip(&self) -> Option<Bytes> {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::with_capacity(1024), Compression::default());
            encoder.write_all(&self.plain).ok()?;
            encoder.finish().ok().map(Bytes::from)
        };
        self.gzip.get_or_init(compress).clone()
    }
}

/// A playlist with at least one complete segment.
#[derive(Debug)]
pub struct Version {
    full: Arc<Text>,
    delta: Option<Arc<Text>>,
    /// Number of the last complete segment, and how many parts it has.
    last: (u64, u64),
    /// Parts of the segment after it.
    growing: u64,
}

impl Version {
    /// The window as it is now. `None` before the first segment is complete.
    pub fn of(window: &Window) -> Option<Version> {
        let last = window.segments.back()?;
        Some(Version {
            full: Text::new(playlist::media(window, false)?),
            delta: playlist::media(window, true).map(Text::new),
            last: (last.number, last.parts.len() as u64),
            growing: window.growing.parts.len() as u64,
        })
    }

    /// The playlist, as a delta update where that is welcome and leaves something out.
    pub fn text(&self, reload: &Reload) -> Arc<Text> {
        match &self.delta {
            Some(delta) if reload.skip => delta.clone(),
            _ => self.full.clone(),
        }
    }

    /// Whether it holds what the request waits for (§6.2.5.2).
    pub fn satisfies(&self, reload: &Reload) -> bool {
        reload.place().is_none_or(|place| self.has(place))
    }

    /// Whether it has come as far as this.
    pub fn has(&self, (segment, part): Place) -> bool {
        let (last, parts) = self.last;
        match part {
            None => segment <= last,
            Some(_) if segment < last => true,
            // A part after the last of its segment is the first of the next one.
            Some(part) if segment == last => part < parts || self.growing > 0,
            Some(part) => segment == last + 1 && part < self.growing,
        }
    }

    /// Whether the request is for something so far ahead that nobody can honestly know of it (§6.2.5.2).
    pub fn is_too_far_ahead(&self, reload: &Reload) -> bool {
        reload.segment.is_some_and(|segment| segment > self.last.0 + 2)
    }

    /// Whether a part is the one that comes next: the one that is hinted.
    pub fn is_next(&self, segment: u64, part: u64) -> bool {
        segment == self.last.0 + 1 && part == self.growing
    }

    /// Number of the last complete segment, and parts of the growing one.
    pub fn edge(&self) -> (u64, u64) {
        (self.last.0, self.growing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Last complete segment 5 with 4 parts, 2 parts of segment 6.
    fn version() -> Version {
        Version { full: Text::new("full".into()), delta: None, last: (5, 4), growing: 2 }
    }

    fn reload(segment: u64, part: impl Into<Option<u64>>) -> Reload {
        Reload { segment: Some(segment), part: part.into(), skip: false }
    }

    #[test]
    fn a_request_is_answered_once_what_it_names_is_there() {
        for (request, there) in [
            (Reload::default(), true),
            (reload(5, None), true),
            (reload(6, None), false),
            (reload(4, 9), true),
            (reload(5, 3), true),
            (reload(5, 4), true), // the same as part 0 of segment 6
            (reload(6, 1), true),
            (reload(6, 2), false),
            (reload(7, 0), false),
        ] {
            assert_eq!(version().satisfies(&request), there, "{request:?}");
        }
    }

    #[test]
    fn more_than_two_segments_ahead_is_too_far() {
        assert!(!version().is_too_far_ahead(&reload(7, None)));
        assert!(version().is_too_far_ahead(&reload(8, None)));
        assert!(version().is_next(6, 2) && !version().is_next(6, 3) && !version().is_next(7, 0));
    }

    #[test]
    fn the_compressed_text_is_the_text() {
        let text = Text::new("#EXTM3U\n".repeat(100));
        let gzip = text.gzip().unwrap();
        let mut back = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut back).unwrap();
        assert_eq!(back.as_bytes(), text.plain);
        assert_eq!(text.gzip().unwrap().as_ptr(), gzip.as_ptr(), "compressed once");
    }

    #[test]
    fn a_thousand_viewers_share_one_text_and_one_compression() {
        let version = Version { full: Text::new("#EXTM3U\n".repeat(500)), ..version() };
        let mut places = std::collections::HashSet::new();
        std::thread::scope(|scope| {
            let ask = || {
                (0..125)
                    .map(|_| version.text(&reload(5, None)))
                    .map(|text| (text.plain.as_ptr() as usize, text.gzip().unwrap().as_ptr() as usize))
                    .collect::<Vec<_>>()
            };
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            places.extend(askers.into_iter().flat_map(|asker| asker.join().unwrap()));
        });
        assert_eq!(places.len(), 1);
    }
}
