//! What one stream's HLS costs: frames to parts, and rendering a playlist.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use streamgate::consumers::hls::segmenter::{Input, Segmenter, Settings};
use streamgate::consumers::hls::{Window, WindowBounds};
use streamgate::media::mp4::Media;
use streamgate::media::{Codec, Kind, Params, Track};

const SECONDS: u32 = 60;

fn video() -> Media {
    let hex = "6764001facd9405005bb011000000300100000030320f1831960";
    let sps: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let params = Params::H264 { sps: sps.into(), pps: vec![0x68, 0xeb, 0xe3, 0xcb].into() };
    Media::of(&Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params }).unwrap()
}

fn sound() -> Media {
    Media::of(&Track { codec: Codec::Pcma, clock_rate: 8000, channels: 1, params: Params::None }).unwrap()
}

/// A minute at 25 frames a second and 4 Mbit/s, with G.711 in packets of 20 ms.
fn inputs() -> Vec<Input> {
    let picture = Bytes::from(vec![7; 20_000]);
    let samples = Bytes::from((0..160).map(|n| (n * 7) as u8 ^ 0x55).collect::<Vec<u8>>());
    let input = |kind, millis: u32, keyframe, data: &Bytes| Input {
        kind,
        time: Duration::from_millis(u64::from(millis)),
        keyframe,
        data: data.clone(),
        now_ms: 0,
    };
    let mut all: Vec<Input> =
        (0..SECONDS * 25).map(|n| input(Kind::Video, n * 40, n % 50 == 0, &picture)).collect();
    all.extend((0..SECONDS * 50).map(|n| input(Kind::Audio, n * 20, false, &samples)));
    all.sort_by_key(|input| input.time);
    all
}

fn run(inputs: &[Input]) -> Window {
    let (part, segment) = (Duration::from_millis(200), Duration::from_secs(2));
    let mut segmenter = Segmenter::new(Settings { part, segment, target: 4 });
    let mut window = Window::new(WindowBounds { segments: 16, bytes: 64 << 20, target: 4 });
    let mut events = Vec::new();
    segmenter.begin(Some(video()), Some(sound()), &mut events);
    for input in inputs {
        segmenter.push(input.clone(), &mut events);
        events.drain(..).for_each(|event| window.apply(event));
    }
    window
}

fn hls(criterion: &mut Criterion) {
    let inputs = inputs();
    let mut group = criterion.benchmark_group("hls");
    group.throughput(Throughput::Elements(u64::from(SECONDS)));
    group.bench_function("segment_a_minute", |bencher| bencher.iter(|| black_box(run(&inputs))));
    group.finish();
    let window = run(&inputs);
    criterion.bench_function("hls/render_playlist", |bencher| {
        bencher.iter(|| streamgate::consumers::hls::playlist::media(black_box(&window), false));
    });
}

criterion_group!(benches, hls);
criterion_main!(benches);
