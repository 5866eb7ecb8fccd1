//! What one stream's HLS costs: frames to parts, and rendering a playlist.

#[path = "fixtures/hls.rs"]
mod fixtures;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fixtures::{SECONDS, inputs, run};
use std::hint::black_box;

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
