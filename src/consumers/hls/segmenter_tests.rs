//! Tests of [`super`].

use super::*;
use crate::media::{Codec, Params, Track};
use mp4_atom::{Decode, Moof};
use proptest::prelude::*;

const SETTINGS: Settings =
    Settings { part: Duration::from_millis(200), segment: Duration::from_secs(2), target: 4 };

fn hex(text: &str) -> std::sync::Arc<[u8]> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn h264() -> Media {
    let sps = hex("6764001facd9405005bb011000000300100000030320f1831960");
    let params = Params::H264 { sps, pps: hex("68ebe3cb22c0") };
    Media::of(&Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params }).unwrap()
}

fn sound(codec: Codec, clock_rate: u32) -> Media {
    Media::of(&Track { codec, clock_rate, channels: 1, params: Params::None }).unwrap()
}

fn input(kind: Kind, millis: i64, keyframe: bool) -> Input {
    let time = Duration::from_millis(u64::try_from(millis).unwrap());
    let data = Bytes::from(millis.to_be_bytes().to_vec());
    Input { kind, time, keyframe, data, now_ms: 1_700_000_000_000 + millis }
}

fn video(millis: i64, keyframe: bool) -> Input {
    input(Kind::Video, millis, keyframe)
}

struct Run {
    segmenter: Segmenter,
    events: Vec<Event>,
}

impl Run {
    fn new(video: Option<Media>, audio: Option<Media>) -> Run {
        let (mut segmenter, mut events) = (Segmenter::new(SETTINGS), Vec::new());
        segmenter.begin(video, audio, &mut events);
        Run { segmenter, events }
    }

    fn push(&mut self, inputs: impl IntoIterator<Item = Input>) -> &mut Run {
        for input in inputs {
            self.segmenter.push(input, &mut self.events);
        }
        self
    }

    fn finish(&mut self) -> &[Event] {
        self.segmenter.finish(&mut self.events);
        &self.events
    }
}

/// Decode time, duration, composition offset of each sample of a track, in order.
fn samples(events: &[Event], track: u32) -> Vec<(u64, u32, i64)> {
    let mut all = Vec::new();
    for event in events {
        let Event::Part { data, .. } = event else { continue };
        let moof = Moof::decode(&mut &data[..]).unwrap();
        for traf in moof.traf.iter().filter(|traf| traf.tfhd.track_id == track) {
            let mut at = traf.tfdt.as_ref().unwrap().base_media_decode_time;
            for entry in traf.trun.iter().flat_map(|trun| trun.samples.iter().collect::<Vec<_>>()) {
                let duration = entry.duration.unwrap();
                all.push((at, duration, entry.cts.unwrap_or(0)));
                at += u64::from(duration);
            }
        }
    }
    all
}

fn assert_gapless(samples: &[(u64, u32, i64)]) {
    for pair in samples.windows(2) {
        assert_eq!(pair[0].0 + u64::from(pair[0].1), pair[1].0);
    }
}

fn starts(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Start { .. })).count()
}

#[test]
fn video_and_sound_share_parts_and_a_timeline() {
    let mut run = Run::new(Some(h264()), Some(sound(Codec::Aac, 16_000)));
    let mut inputs: Vec<Input> = (0..500).map(|n| video(1000 + n * 40, n % 50 == 0)).collect();
    inputs.extend((0..312).map(|n| input(Kind::Audio, 1000 + n * 64, false)));
    inputs.sort_by_key(|input| input.time);
    let events = run.push(inputs).finish();
    assert_eq!(starts(events), 1);
    let (video, audio) = (samples(events, 1), samples(events, 2));
    assert_eq!((video.len(), audio.len()), (500, 312));
    assert_gapless(&video);
    assert_gapless(&audio);
    // The first picture and the first sound are heard and seen at the same moment.
    let shown = (video[0].0 as i64 + video[0].2) as f64 / 90_000.0;
    assert!((shown - audio[0].0 as f64 / 16_000.0).abs() < 0.001);
    let Event::Start { part_target, fps, wall_ms, .. } = &events[0] else { panic!("a start first") };
    assert_eq!((part_target.as_millis(), *fps, *wall_ms), (210, 25.0, 1_700_000_001_000));
}

#[test]
fn b_frames_are_shown_at_their_times_and_decoded_in_order() {
    let mut run = Run::new(Some(h264()), None);
    let shown: Vec<i64> =
        (0..100).flat_map(|gop| [4, 2, 1, 3].map(|place| 1040 + (gop * 4 + place) * 40)).collect();
    let inputs = std::iter::once(video(1040, true))
        .chain(shown.iter().enumerate().map(|(n, time)| video(*time, n % 48 == 47)));
    let events = run.push(inputs).finish();
    let samples = samples(events, 1);
    assert_gapless(&samples);
    let base = samples[0].0 as i64 + samples[0].2;
    for (sample, shown) in samples.iter().skip(1).zip(&shown) {
        assert!(sample.2 >= 0, "no picture is shown before it is decoded");
        assert_eq!(sample.0 as i64 + sample.2 - base, (shown - 1040) * 90);
    }
}

#[test]
fn nothing_is_written_before_the_first_keyframe() {
    let mut run = Run::new(Some(h264()), Some(sound(Codec::Opus, 48_000)));
    let events = run.push((0..100).map(|n| video(n * 40, false))).finish();
    assert!(events.is_empty());
}

#[test]
fn a_pause_of_the_source_is_a_discontinuity_at_a_keyframe() {
    let mut run = Run::new(Some(h264()), None);
    run.push((0..100).map(|n| video(n * 40, n % 50 == 0)));
    run.push((0..100).map(|n| video(9000 + n * 40, n % 50 == 0)));
    let events = run.finish();
    assert_eq!(starts(events), 2);
    let at = events.iter().rposition(|event| matches!(event, Event::Start { .. })).unwrap();
    assert_eq!(events[at - 1], Event::SegmentEnd);
    let Event::Start { wall_ms, .. } = &events[at] else { unreachable!() };
    assert_eq!(*wall_ms, 1_700_000_009_000);
}

#[test]
fn other_tracks_begin_with_their_own_init_segment_and_the_same_part_target() {
    let mut run = Run::new(Some(h264()), None);
    run.push((0..100).map(|n| video(n * 40, n % 50 == 0)));
    run.segmenter.begin(Some(h264()), Some(sound(Codec::Pcma, 8000)), &mut run.events);
    run.push((100..200).map(|n| video(n * 33, n % 50 == 0)));
    let targets: Vec<Duration> = run
        .finish()
        .iter()
        .filter_map(|event| match event {
            Event::Start { part_target, .. } => Some(*part_target),
            _ => None,
        })
        .collect();
    assert_eq!(targets, [Duration::from_millis(210); 2]);
}

#[test]
fn sound_alone_is_cut_as_well() {
    for (codec, rate, step) in [(Codec::Pcma, 8000, 20), (Codec::Opus, 48_000, 20), (Codec::Aac, 16_000, 64)]
    {
        let mut run = Run::new(None, Some(sound(codec, rate)));
        let inputs = (0..500).map(|n| {
            let mut input = input(Kind::Audio, n * step, false);
            // 20 ms of each: 160 bytes of G.711, an Opus packet of CELT.
            input.data = if codec == Codec::Opus { vec![0x78; 50] } else { vec![0xd5; 160] }.into();
            input
        });
        let events = run.push(inputs).finish();
        let samples = samples(events, 1);
        assert!(samples.len() > 490, "{codec}: {}", samples.len());
        assert_gapless(&samples);
        let ends = events.iter().filter(|event| matches!(event, Event::SegmentEnd)).count();
        assert!(ends >= 4, "{codec}: {ends} segments");
    }
}

proptest! {
    #[test]
    fn whatever_comes_in_decode_times_have_no_gap(
        steps in proptest::collection::vec((-500i64..800, 0u8..8, any::<bool>()), 1..300),
        with_sound: bool,
    ) {
        let mut run = Run::new(Some(h264()), with_sound.then(|| sound(Codec::Aac, 16_000)));
        let mut time = 5000;
        run.push(steps.into_iter().map(|(step, key, is_sound)| {
            time = (time + step).max(0);
            input(if is_sound { Kind::Audio } else { Kind::Video }, time, key == 0)
        }));
        let events = run.finish().to_vec();
        let starts: Vec<usize> = (0..events.len())
            .filter(|at| matches!(events[*at], Event::Start { .. }))
            .chain([events.len()])
            .collect();
        for pair in starts.windows(2) {
            let video = samples(&events[pair[0]..pair[1]], 1);
            assert_gapless(&video);
            prop_assert!(video.iter().all(|sample| sample.1 > 0));
            assert_gapless(&samples(&events[pair[0]..pair[1]], 2));
        }
    }
}
