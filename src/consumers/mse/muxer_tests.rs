//! Tests of [`super`] and, with its fragments, of [`super::super::retime`].

use super::*;
use crate::consumers::mse::Retimer;
use crate::media::{Codec, Params, Track};
use mp4_atom::{Decode, Moof};
use proptest::prelude::*;

const FRAME: i64 = 3_600;

fn video() -> Media {
    let sps = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0xc8];
    let params = Params::H264 { sps: sps[..].into(), pps: [0x68, 0xce, 0x38, 0x80][..].into() };
    Media::of(&Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params }).unwrap()
}

fn sound(codec: Codec, clock_rate: u32) -> Media {
    Media::of(&Track { codec, clock_rate, channels: 1, params: Params::None }).unwrap()
}

fn nanos(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

/// A camera's frames in milliseconds: pictures each 40 ms with a keyframe each second, sound each 64 ms (AAC at 16 kHz).
fn play(muxer: &mut Muxer, millis: std::ops::Range<i64>, out: &mut Vec<Fragment>) {
    for at in millis {
        if at % 40 == 0 {
            muxer.push(Kind::Video, nanos(at), at % 1000 == 0, Bytes::from_static(b"\0\0\0\x01p"), out);
        }
        if at % 64 == 0 {
            muxer.push(Kind::Audio, nanos(at), false, Bytes::from_static(b"sound"), out);
        }
    }
}

fn muxer(video: Option<Media>, audio: Option<Media>) -> Muxer {
    let mut muxer = Muxer::default();
    muxer.begin(video, audio).unwrap();
    muxer
}

/// Start, end and moment of showing of each sample of a viewer's bytes, by track.
type Samples = Vec<(i64, i64, i64)>;

fn read(mut bytes: &[u8]) -> [Samples; 2] {
    let mut tracks = [Vec::new(), Vec::new()];
    while !bytes.is_empty() {
        let moof = Moof::decode(&mut bytes).unwrap();
        let traf = &moof.traf[0];
        let mut at = traf.tfdt.as_ref().unwrap().base_media_decode_time as i64;
        let samples = &mut tracks[traf.tfhd.track_id as usize - 1];
        for entry in &traf.trun[0].samples {
            let end = at + i64::from(entry.duration.unwrap());
            samples.push((at, end, at + entry.cts.unwrap_or(0)));
            at = end;
        }
        let size = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        bytes = &bytes[size..];
    }
    tracks
}

fn viewed(retimer: &mut Retimer, fragments: &[Fragment]) -> [Samples; 2] {
    let mut bytes = Vec::new();
    for fragment in fragments {
        retimer.write(fragment, &mut bytes);
    }
    read(&bytes)
}

fn assert_gapless(samples: &[(i64, i64, i64)]) {
    assert!(samples.iter().all(|(start, end, _)| end > start));
    for pair in samples.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{pair:?}");
    }
}

#[test]
fn every_picture_is_a_fragment_at_once_and_is_shown_when_it_was() {
    let mut muxer = muxer(Some(video()), Some(sound(Codec::Aac, 16_000)));
    let mut fragments = Vec::new();
    for at in (10_000..12_000).step_by(40) {
        let before = fragments.len();
        muxer.push(Kind::Video, nanos(at), at % 1000 == 0, Bytes::from_static(b"p"), &mut fragments);
        assert_eq!(fragments.len(), before + 1);
    }
    let [pictures, _] = viewed(&mut Retimer::default(), &fragments);
    assert_eq!(pictures.len(), 50);
    assert_gapless(&pictures);
    assert_eq!(pictures[0].0, 0, "a viewer's time begins at zero");
    assert!(pictures.windows(2).all(|pair| pair[1].2 - pair[0].2 == FRAME));
    assert!(pictures.iter().all(|(start, _, shown)| shown - start == FRAME), "one picture late, no more");
}

#[test]
fn sound_and_pictures_stay_in_sync_for_whoever_joins_when() {
    let mut muxer = muxer(Some(video()), Some(sound(Codec::Aac, 16_000)));
    let mut fragments = Vec::new();
    play(&mut muxer, 7_000..17_000, &mut fragments);
    let keyframes: Vec<usize> = (0..fragments.len()).filter(|at| fragments[*at].keyframe).collect();
    assert_eq!(keyframes.len(), 10);
    for from in keyframes {
        let first = &fragments[from];
        let [pictures, sound] = viewed(&mut Retimer::default(), &fragments[from..]);
        assert_gapless(&pictures);
        assert_gapless(&sound);
        // The first unit may begin early to fill the time before it; all others are where they were.
        let shift = pictures[0].2 - first.shown;
        let second = sound[1].0 * 90_000 / 16_000 - shift;
        assert_eq!(second * 16_000 / 90_000 % 1024, 0, "a multiple of the camera's 64 ms");
    }
}

#[test]
fn the_past_is_shown_in_fast_motion_and_live_at_its_own_pace() {
    let mut muxer = muxer(Some(video()), Some(sound(Codec::Aac, 16_000)));
    let mut fragments = Vec::new();
    play(&mut muxer, 10_000..11_300, &mut fragments);
    let live = 10_800 * 90;
    let mut retimer = Retimer::default();
    retimer.rejoin(Some(live));
    let [pictures, sound] = viewed(&mut retimer, &fragments);
    assert_gapless(&pictures);
    assert!(pictures.windows(2).all(|pair| pair[1].2 > pair[0].2), "each is shown after the one before");
    let at_live = pictures[20];
    assert!(at_live.2 < 90 * 70, "20 pictures in {} ms", at_live.2 / 90);
    assert_eq!(pictures[22].2 - pictures[21].2, FRAME);
    assert!(sound[0].0 * 90_000 / 16_000 <= pictures[20].2 + FRAME * 4, "sound begins with live");
}

#[test]
fn a_pause_of_the_source_leaves_no_hole() {
    let mut muxer = muxer(Some(video()), Some(sound(Codec::Aac, 16_000)));
    let mut fragments = Vec::new();
    play(&mut muxer, 10_000..12_000, &mut fragments);
    play(&mut muxer, 95_000..97_000, &mut fragments);
    let [pictures, sound] = viewed(&mut Retimer::default(), &fragments);
    assert_eq!(pictures.len(), 100);
    assert_gapless(&pictures);
    assert_gapless(&sound);
    let (video_end, audio_end) =
        (pictures[99].1 as f64 / 90_000.0, sound[sound.len() - 1].1 as f64 / 16_000.0);
    assert!((video_end - 4.0).abs() < 0.1 && (audio_end - 4.0).abs() < 0.2, "{video_end} {audio_end}");
}

#[test]
fn a_viewer_that_skipped_or_paused_goes_on_where_its_picture_ended() {
    let mut muxer = muxer(Some(video()), Some(sound(Codec::Opus, 48_000)));
    let mut fragments = Vec::new();
    play(&mut muxer, 10_000..30_000, &mut fragments);
    let mut retimer = Retimer::default();
    let mut bytes = Vec::new();
    let middle = fragments.len() / 2;
    for fragment in &fragments[..middle / 2] {
        retimer.write(fragment, &mut bytes);
    }
    let length = retimer.length();
    retimer.rejoin(None);
    for fragment in &fragments[middle..] {
        retimer.write(fragment, &mut bytes);
    }
    let [pictures, _] = read(&bytes);
    assert_gapless(&pictures);
    assert!(length > 4.0 && retimer.length() - length < 11.0);
}

#[test]
fn b_frames_keep_their_moment_and_leading_pictures_are_left_out() {
    let mut muxer = muxer(Some(video()), None);
    let mut fragments = Vec::new();
    // I P B B, shown in the order I B B P; then an open GOP: its first pictures are shown before its keyframe.
    let order = [0, 3, 1, 2, 6, 4, 5, 9, 7, 8];
    for (at, place) in order.iter().enumerate() {
        muxer.push(
            Kind::Video,
            nanos(10_000 + place * 40),
            at == 0 || *place == 6,
            Bytes::from_static(b"p"),
            &mut fragments,
        );
    }
    let [pictures, _] = viewed(&mut Retimer::default(), &fragments);
    assert_gapless(&pictures);
    let shown: Vec<i64> = pictures.iter().map(|picture| (picture.2 - pictures[0].2) / FRAME).collect();
    assert_eq!(shown, order);
    let [joined, _] = viewed(&mut Retimer::default(), &fragments[4..]);
    assert_gapless(&joined);
    let shown: Vec<i64> = joined.iter().map(|picture| (picture.2 - joined[0].2) / FRAME).collect();
    assert_eq!(shown, [0, 3, 1, 2], "those that refer to what this viewer never got are left out");
}

#[test]
fn other_parameters_are_another_init_segment() {
    let mut muxer = muxer(Some(video()), Some(sound(Codec::Pcma, 8_000)));
    let mut fragments = Vec::new();
    play(&mut muxer, 10_000..11_000, &mut fragments);
    assert_eq!(fragments[0].init.mime, "video/mp4; codecs=\"avc1.42c01e,flac\"");
    muxer.begin(Some(video()), None).unwrap();
    muxer.push(Kind::Video, nanos(11_000), false, Bytes::from_static(b"p"), &mut fragments);
    let before = fragments.len();
    play(&mut muxer, 12_000..13_000, &mut fragments);
    assert_eq!(fragments[before].init.mime, "video/mp4; codecs=\"avc1.42c01e\"");
    let only_keyframes_begin = fragments.iter().find(|f| !f.init.codecs.contains(&Codec::Pcma)).unwrap();
    assert!(only_keyframes_begin.keyframe);
}

#[test]
fn sound_alone_is_played() {
    let mut muxer = muxer(None, Some(sound(Codec::Opus, 48_000)));
    let mut fragments = Vec::new();
    for at in (60_000..63_000).step_by(20) {
        muxer.push(Kind::Audio, nanos(at), false, Bytes::from_static(&[0x78, 0]), &mut fragments);
    }
    assert!((30..=40).contains(&fragments.len()), "{} fragments in 3 s", fragments.len());
    assert!(fragments.iter().all(|fragment| fragment.keyframe));
    let [sound, _] = viewed(&mut Retimer::default(), &fragments[5..]);
    assert_eq!(sound[0].0, 0);
    assert_gapless(&sound);
}

proptest! {
    #[test]
    fn whatever_comes_no_viewer_sees_a_gap(
        steps in proptest::collection::vec((0u8..10, -200i64..3_000, 0u8..40), 1..120),
        live in proptest::option::of(0i64..20_000_000),
    ) {
        let mut muxer = muxer(Some(video()), Some(sound(Codec::Aac, 16_000)));
        let mut fragments = Vec::new();
        let mut at = 100_000;
        for (what, step, size) in steps {
            at += step.min(i64::from(what) * 60);
            let kind = if what % 3 == 0 { Kind::Audio } else { Kind::Video };
            if what == 9 {
                muxer.begin(Some(video()), Some(sound(Codec::Aac, 16_000))).unwrap();
            }
            muxer.push(kind, nanos(at), what % 4 == 1, Bytes::from(vec![0; usize::from(size)]), &mut fragments);
        }
        let mut retimer = Retimer::default();
        retimer.rejoin(live);
        let tracks = viewed(&mut retimer, &fragments);
        for samples in tracks {
            for pair in samples.windows(2) {
                prop_assert!(pair[0].1 == pair[1].0 && pair[0].1 > pair[0].0, "{:?}", pair);
            }
        }
    }
}
