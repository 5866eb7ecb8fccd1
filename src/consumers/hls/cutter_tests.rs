//! Tests of [`super`].

use super::*;
use proptest::prelude::*;

const SECOND: i64 = 90_000;

fn lengths(fps: i64) -> Lengths {
    let interval = SECOND / fps;
    let part = (SECOND / 5 / interval).max(1) * interval * 105 / 100;
    Lengths { second: SECOND, interval, part, segment: 2 * SECOND, longest_segment: SECOND * 44 / 10 }
}

/// Decode time and whether it is a keyframe.
fn cut(lengths: Lengths, pictures: impl IntoIterator<Item = (i64, bool)>) -> Vec<Cut> {
    let mut cutter = Cutter::new(lengths);
    let mut cuts: Vec<Cut> = pictures
        .into_iter()
        .filter_map(|(decode, keyframe)| {
            cutter.push(Picture { decode, shown: decode, keyframe, data: Bytes::new() })
        })
        .collect();
    cuts.extend(cutter.finish());
    cuts
}

fn assert_rules(lengths: Lengths, cuts: &[Cut]) {
    let mut next = cuts[0].start;
    let mut segment = 0;
    for (index, cut) in cuts.iter().enumerate() {
        assert_eq!(cut.start, next, "no gap before part {index}");
        next = cut.start + cut.duration;
        assert_eq!(cut.pictures[0].decode, cut.start);
        assert!(cut.pictures.is_sorted_by(|a, b| a.decode < b.decode));
        assert!(cut.pictures.last().unwrap().decode < next);
        assert!(cut.duration <= lengths.part, "part {index}: {} > {}", cut.duration, lengths.part);
        let long_enough = cut.duration * 100 >= lengths.part * 85;
        assert!(long_enough || cut.ends_segment, "part {index}: {} of {}", cut.duration, lengths.part);
        segment += cut.duration;
        assert!(segment <= lengths.longest_segment);
        if cut.ends_segment {
            segment = 0;
        }
    }
}

fn segments(cuts: &[Cut]) -> Vec<i64> {
    let mut all = vec![0];
    for cut in cuts {
        *all.last_mut().unwrap() += cut.duration;
        if cut.ends_segment {
            all.push(0);
        }
    }
    all
}

#[test]
fn steady_pictures_give_even_parts_and_untouched_decode_times() {
    for fps in [5, 10, 15, 20, 25, 30, 50, 60] {
        let lengths = lengths(fps);
        let interval = lengths.interval;
        let cuts = cut(lengths, (0..fps * 20).map(|n| (n * interval, n % fps == 0)));
        assert_rules(lengths, &cuts);
        let moved = cuts.iter().flat_map(|cut| &cut.pictures).filter(|p| p.decode != p.shown).count();
        assert_eq!(moved, 0, "at {fps} fps");
    }
}

#[test]
fn short_gops_are_put_together_once_they_are_known_to_be_short() {
    let lengths = lengths(25);
    let cuts = cut(lengths, (0..25 * 30).map(|n| (n * 3600, n % 25 == 0)));
    let seconds: Vec<i64> = segments(&cuts).iter().map(|ticks| ticks / SECOND).collect();
    assert_eq!((&seconds[..15], &seconds[15..19]), (&[1; 15][..], &[2; 4][..]));
}

#[test]
fn gops_of_four_seconds_are_whole_segments() {
    let lengths = lengths(25);
    let cuts = cut(lengths, (0..25 * 60).map(|n| (n * 3600, n % 100 == 0)));
    assert_rules(lengths, &cuts);
    assert!(segments(&cuts)[..14].iter().all(|ticks| *ticks == 4 * SECOND));
}

#[test]
fn a_gop_longer_than_any_segment_is_cut_without_a_keyframe() {
    let lengths = lengths(25);
    let cuts = cut(lengths, (0..25 * 60).map(|n| (n * 3600, n % 500 == 0)));
    assert_rules(lengths, &cuts);
    assert!(segments(&cuts)[..10].iter().all(|ticks| (3 * SECOND..5 * SECOND).contains(ticks)));
}

#[test]
fn a_lower_frame_rate_keeps_the_rules() {
    let lengths = lengths(25);
    let mut time = 0;
    let pictures = (0..1500).map(|n| {
        time += if n < 200 { 3600 } else { 7200 };
        (time, n % 50 == 0)
    });
    let cuts = cut(lengths, pictures);
    assert_rules(lengths, &cuts);
    for picture in cuts.iter().flat_map(|cut| &cut.pictures) {
        assert!((picture.decode - picture.shown).abs() < SECOND / 8);
    }
}

#[test]
fn a_short_pause_is_caught_up_with() {
    let lengths = lengths(25);
    let pictures = (0..500).map(|n| (n * 3600 + if n > 100 { SECOND * 6 / 10 } else { 0 }, n % 50 == 0));
    let cuts = cut(lengths, pictures);
    assert_rules(lengths, &cuts);
    let last = cuts.last().unwrap().pictures.last().unwrap();
    assert!((last.decode - last.shown).abs() < 3600);
}

proptest! {
    #[test]
    fn jitter_and_wandering_gops_keep_the_rules(
        fps in 8i64..61,
        jitter in proptest::collection::vec(-1080i64..=1080, 600),
        gops in proptest::collection::vec(10i64..39, 40),
    ) {
        let lengths = lengths(fps);
        let mut keyframes = vec![0];
        for gop in gops {
            keyframes.push(keyframes[keyframes.len() - 1] + gop * fps / 10);
        }
        let mut last = -1;
        let pictures: Vec<_> = (0..600).map(|n| {
            last = (n * lengths.interval + jitter[n as usize] + 2000).max(last + 1);
            (last, keyframes.contains(&n))
        }).collect();
        let cuts = cut(lengths, pictures);
        assert_rules(lengths, &cuts);
        let mut begins = true;
        for cut in &cuts {
            prop_assert!(!begins || cut.pictures[0].keyframe, "a segment begins with a keyframe");
            begins = cut.ends_segment;
        }
        for picture in cuts.iter().flat_map(|cut| &cut.pictures) {
            prop_assert!((picture.decode - picture.shown).abs() < SECOND / 8);
        }
    }
}
