//! A client that believes nothing: every playlist, part and segment is held against the rules.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of this")]

pub mod media;
mod odd_camera;
mod playlist;

pub use media::fragment;
pub use odd_camera::OddCamera;
pub use playlist::{Playlist, Segment};

use super::common::{Reply, Streamgate, get, request};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The URL of a stream's media playlist, once it can be had.
pub async fn media_playlist(streamgate: &Streamgate, name: &str) -> String {
    let url = streamgate.url(&format!("/hls/{name}/index.m3u8"));
    let reply = get(&url).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), "application/vnd.apple.mpegurl");
    let text = reply.text();
    let uri = text.lines().last().expect("a line").to_owned();
    url.replace("index.m3u8", &uri)
}

/// What of a stream must never change, and what was seen of it.
pub struct Poller {
    url: String,
    fixed: Option<[String; 3]>,
    known: BTreeMap<u64, Segment>,
    parts: BTreeMap<(u64, usize), Vec<u8>>,
    checked: BTreeMap<u64, usize>,
    /// By track: where the next fragment must begin.
    next_decode_time: BTreeMap<u32, u64>,
    timescales: BTreeMap<u32, u32>,
    last_init: Option<String>,
    /// Segments that begin without a keyframe are an error.
    pub keyframes_everywhere: bool,
    pub segments: usize,
    pub discontinuities: usize,
}

impl Poller {
    pub fn new(url: String) -> Poller {
        Poller {
            url,
            fixed: None,
            known: BTreeMap::new(),
            parts: BTreeMap::new(),
            checked: BTreeMap::new(),
            next_decode_time: BTreeMap::new(),
            timescales: BTreeMap::new(),
            last_init: None,
            keyframes_everywhere: true,
            segments: 0,
            discontinuities: 0,
        }
    }

    fn file(&self, uri: &str) -> String {
        self.url.replace("index.m3u8", uri)
    }

    /// Polls as a low-latency player does until the time is over, checking all that comes.
    pub async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut query = String::new();
        let mut polls = 0;
        while Instant::now() < end {
            let reply = get(&format!("{}{query}", self.url)).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let playlist = Playlist::parse(&reply.text());
            self.check(&playlist);
            self.fetch(&playlist).await;
            polls += 1;
            if polls % 7 == 0 {
                self.check_delta().await;
            }
            let (segment, part) = playlist.next;
            query = format!("?_HLS_msn={segment}&_HLS_part={part}");
        }
    }

    /// Rules for the text alone, and against the texts before.
    fn check(&mut self, playlist: &Playlist) {
        let fixed = self.fixed.get_or_insert_with(|| playlist.fixed.clone());
        assert_eq!(*fixed, playlist.fixed, "targets and hold-backs are fixed");
        assert!(playlist.part_hold_back >= 3.0 * playlist.part_target - 1e-9);
        assert!(playlist.skip_until >= 6.0 * playlist.target);
        assert!(playlist.hold_back >= 3.0 * playlist.target);
        let mut wall = 0;
        for segment in &playlist.segments {
            assert!(segment.duration.is_none_or(|length| length.round() <= playlist.target), "{segment:?}");
            let last = segment.parts.len().saturating_sub(1);
            for (index, part) in segment.parts.iter().enumerate() {
                assert!(part.duration <= playlist.part_target + 1e-5, "{part:?}: too long");
                let may_be_short = segment.duration.is_some() && index == last;
                let long_enough = part.duration >= playlist.part_target * 0.85 - 1e-5;
                assert!(may_be_short || long_enough, "{part:?} of {segment:?}: too short");
            }
            assert!(segment.wall_ms > wall, "time runs on");
            wall = segment.wall_ms;
            if let Some(known) = self.known.get(&segment.number) {
                assert_eq!(known.discontinuity, segment.discontinuity);
                assert!(known.duration.is_none() || known.duration == segment.duration);
                let same = known.parts.iter().zip(&segment.parts).all(|(known, now)| known == now);
                assert!(same, "parts stay as they were");
                assert_eq!(known.init, segment.init, "init segment of {}", segment.number);
            } else if let Some((last, _)) = self.known.last_key_value() {
                assert_eq!(segment.number, last + 1, "no segment is left out");
            }
            self.known.insert(segment.number, segment.clone());
        }
    }

    /// Gets all that is new, and checks the bytes.
    async fn fetch(&mut self, playlist: &Playlist) {
        for segment in &playlist.segments {
            for (index, part) in segment.parts.iter().enumerate() {
                if !self.parts.contains_key(&(segment.number, index)) {
                    let bytes = self.media(&part.uri).await;
                    self.parts.insert((segment.number, index), bytes);
                }
            }
            if segment.duration.is_some() && !self.checked.contains_key(&segment.number) {
                let bytes = self.media(&segment.uri).await;
                self.check_segment(segment, &bytes).await;
                self.checked.insert(segment.number, bytes.len());
                self.segments += 1;
            }
        }
    }

    async fn media(&self, uri: &str) -> Vec<u8> {
        let url = self.file(uri);
        let (one, other) = tokio::join!(get(&url), get(&url));
        assert_eq!(one.status, 200, "{uri}: {}", one.text());
        assert_eq!(one.body, other.body, "{uri}: two clients see the same bytes");
        assert_eq!(one.header("content-type"), "video/mp4");
        assert_eq!(one.header("access-control-allow-origin"), "*");
        let cache = one.header("cache-control");
        assert!(cache.starts_with("public, max-age="), "{uri}: {cache}");
        one.body
    }

    async fn check_segment(&mut self, segment: &Segment, bytes: &[u8]) {
        let number = segment.number;
        // Parts of segments from before we came are not listed any more.
        let parts: Vec<&Vec<u8>> =
            self.parts.range((number, 0)..(number + 1, 0)).map(|(_, part)| part).collect();
        if !parts.is_empty() {
            assert_eq!(parts.len(), segment.parts.len());
            assert!(parts.iter().copied().flatten().eq(bytes), "segment {number} is its parts, in order");
        }
        if self.last_init.as_ref() != Some(&segment.init) {
            assert!(self.last_init.is_none() || segment.discontinuity, "another init needs a discontinuity");
            self.timescales = media::timescales(&self.media(&segment.init).await);
            self.last_init = Some(segment.init.clone());
        }
        if segment.discontinuity {
            self.discontinuities += 1;
            self.next_decode_time.clear();
        }
        let mut fragments = fragment(bytes);
        let mut length = 0.0;
        for (index, fragment) in fragments.iter_mut().enumerate() {
            let mut part_length = 0.0;
            for track in &fragment.tracks {
                let begins = self.next_decode_time.insert(track.id, track.decode_time + track.duration);
                assert!(
                    begins.is_none_or(|begins| begins == track.decode_time),
                    "segment {number}, part {index}, track {}: {begins:?} then {}",
                    track.id,
                    track.decode_time
                );
                if track.id == 1 {
                    part_length = track.duration as f64 / f64::from(self.timescales[&1]);
                }
            }
            if let Some(part) = segment.parts.get(index) {
                assert!((part.duration - part_length).abs() < 1e-4, "{part:?} lasts {part_length} s");
                let has_keyframe = fragment.tracks.iter().any(|t| t.id == 1 && t.keyframes.contains(&true));
                assert_eq!(part.independent, has_keyframe, "{part:?}");
            }
            length += part_length;
        }
        let declared = segment.duration.expect("complete");
        assert!((declared - length).abs() < 1e-3, "segment {number} lasts {length} s, not {declared} s");
        if self.keyframes_everywhere {
            let first = fragments.first().expect("a fragment");
            assert!(first.tracks[0].keyframes[0], "segment {number} begins with a keyframe");
        }
    }

    /// A delta update equals the full playlist. Both are asked for until they are of the same version.
    async fn check_delta(&self) {
        for _ in 0..20 {
            let delta = get(&format!("{}?_HLS_skip=YES", self.url)).await.text();
            let full = get(&self.url).await.text();
            let Some((head, rest)) = delta.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=") else {
                return;
            };
            let (skipped, tail) = rest.split_once('\n').expect("a line");
            let Some(middle) = full.strip_prefix(head).and_then(|full| full.strip_suffix(tail)) else {
                continue;
            };
            assert_eq!(middle.matches("#EXTINF").count(), skipped.parse::<usize>().expect("a number"));
            return;
        }
        panic!("delta and full playlist never agreed");
    }
}

/// A GET that says that it takes gzip.
pub async fn get_gzip(url: &str) -> Reply {
    request("GET", url, &[("accept-encoding", "gzip")], "").await
}
