//! Frames with any bytes at any time, of tracks with any parameter sets, never break the segmenter, and what it
//! holds stays bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use streamgate::consumers::hls::segmenter::{Event, Input, Segmenter, Settings};
use streamgate::consumers::hls::{Window, WindowBounds};
use streamgate::media::mp4::Media;
use streamgate::media::{Codec, Kind, Params, Track};

/// A piece of the input: its length in one byte, then its bytes.
fn piece<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, after)) = rest.split_first() else { return &[] };
    let (piece, after) = after.split_at(usize::from(*length).min(after.len()));
    *rest = after;
    piece
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[kind, rate, channels], mut rest)) = bytes.split_first_chunk::<3>() else { return };
    let (vps, sps, pps) = (piece(&mut rest), piece(&mut rest), piece(&mut rest));
    let (codec, params) = match kind & 1 {
        0 => (Codec::H264, Params::H264 { sps: sps.into(), pps: pps.into() }),
        _ => (Codec::H265, Params::H265 { vps: vps.into(), sps: sps.into(), pps: pps.into() }),
    };
    let video = Track { codec, clock_rate: 90_000, channels: 0, params };
    let codec = [Codec::Aac, Codec::Opus, Codec::Pcma, Codec::Pcmu][usize::from(kind >> 1 & 3)];
    let params = match codec {
        Codec::Aac => Params::Aac { config: piece(&mut rest).into() },
        _ => Params::None,
    };
    let audio = Track { codec, clock_rate: u32::from(rate) * 1000, channels, params };

    let (part, segment) = (Duration::from_millis(200), Duration::from_secs(2));
    let mut segmenter = Segmenter::new(Settings { part, segment, target: 4 });
    let mut window = Window::new(WindowBounds { segments: 16, bytes: 1 << 20, target: 4 });
    let mut events: Vec<Event> = Vec::new();
    segmenter.begin(Media::of(&video), Media::of(&audio), &mut events);
    let mut time = Duration::ZERO;
    while let Some((&[flags, step], after)) = rest.split_first_chunk::<2>() {
        rest = after;
        time += Duration::from_millis(u64::from(step) << (flags >> 2 & 7));
        let kind = if flags & 1 == 0 { Kind::Video } else { Kind::Audio };
        let data = piece(&mut rest).to_vec().into();
        segmenter.push(Input { kind, time, keyframe: flags & 2 != 0, data, now_ms: 0 }, &mut events);
    }
    segmenter.finish(&mut events);
    events.into_iter().for_each(|event| window.apply(event));
});
