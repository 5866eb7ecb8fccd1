//! Tests of [`super`].

use super::super::segmenter::Event;
use super::super::window::{Bounds, Window};
use super::*;
use bytes::Bytes;
use std::time::Duration;

fn start(wall_ms: i64) -> Event {
    Event::Start {
        init: Bytes::from_static(b"init"),
        wall_ms,
        fps: 25.0,
        part_target: Duration::from_millis(525),
        codecs: vec!["avc1.64001f".into(), "mp4a.40.2".into()],
        size: (1920, 1080),
    }
}

fn segment(window: &mut Window, parts: usize) {
    for index in 0..parts {
        window.apply(Event::Part { data: vec![0; 1000].into(), duration: 0.5, independent: index == 0 });
    }
}

fn window(segments: usize, parts: usize) -> Window {
    let mut window = Window::new(Bounds { segments: 20, bytes: 1 << 20, target: 2 });
    window.apply(start(1_767_225_600_000));
    for number in 0..segments {
        segment(&mut window, 4);
        window.apply(Event::SegmentEnd);
        if number == 3 {
            window.apply(start(1_767_225_700_000));
        }
    }
    segment(&mut window, parts);
    window
}

#[test]
fn a_media_playlist() {
    insta::assert_snapshot!(media(&window(6, 2), false).unwrap());
}

#[test]
fn a_media_playlist_right_after_a_segment_has_ended() {
    insta::assert_snapshot!(media(&window(1, 0), false).unwrap());
}

#[test]
fn a_delta_leaves_out_what_lies_before_the_boundary() {
    insta::assert_snapshot!(media(&window(9, 1), true).unwrap());
    assert_eq!(media(&window(6, 0), true), None);
}

#[test]
fn a_multivariant_playlist() {
    insta::assert_snapshot!(multivariant(&window(6, 2), "x/index.m3u8"));
}

#[test]
fn a_delta_is_the_full_playlist_without_the_skipped_lines() {
    for (segments, parts) in [(7, 0), (9, 1), (15, 3), (40, 2)] {
        let window = window(segments, parts);
        let (full, delta) = (media(&window, false).unwrap(), media(&window, true).unwrap());
        let (head, rest) = delta.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=").unwrap();
        let (skipped, tail) = rest.split_once('\n').unwrap();
        let middle = full.strip_prefix(head).unwrap().strip_suffix(tail).unwrap();
        assert_eq!(middle.matches("#EXTINF").count(), skipped.parse::<usize>().unwrap());
        let kept: f64 = tail
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.trim_end_matches(',').parse::<f64>().ok())
            .sum();
        assert!(kept + parts as f64 * 0.5 >= 12.0, "the whole boundary is kept");
    }
}
