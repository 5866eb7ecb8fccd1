//! What one camera's packets cost, once for each stream and once for each reader. `cargo bench --bench packet_path`.

#[path = "fixtures/packets.rs"]
mod fixtures;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fixtures::{GOP, frame, packets, track};
use std::hint::black_box;
use streamgate::graph::Ring;
use streamgate::graph::ring::Limits;
use streamgate::media::Frame;
use streamgate::media::rtp::depacketize::Depacketizer;
use streamgate::media::rtp::normalize::{Incoming, Normalizer};
use streamgate::media::rtp::packetize::Packetizer;

fn packet_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet_path");

    for (name, max_payload) in [("normalize/fits", 1200), ("normalize/recut_1388", 1388)] {
        let input = packets(max_payload);
        group.throughput(Throughput::Elements(input.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || (Normalizer::new(&track(), 1200), Vec::with_capacity(1024)),
                |(normalizer, out)| {
                    for packet in &input {
                        let timestamp = packet.rtp_time as u32;
                        let (payload, marker) = (&packet.payload[..], packet.ends_unit);
                        normalizer.push(Incoming { payload, timestamp, marker, loss: false }, out);
                    }
                    assert!(out.len() >= input.len());
                },
                BatchSize::SmallInput,
            );
        });
    }

    let input = packets(1200);
    group.throughput(Throughput::Elements(input.len() as u64));
    group.bench_function("depacketize", |bencher| {
        bencher.iter_batched_ref(
            || (Depacketizer::new(&track()), Vec::with_capacity(64)),
            |(depacketizer, out)| {
                input.iter().for_each(|packet| depacketizer.push(packet, out));
                assert_eq!(out.len() as u64, GOP);
            },
            BatchSize::SmallInput,
        );
    });

    let frames: Vec<Frame> = (0..GOP).map(frame).collect();
    group.bench_function("packetize", |bencher| {
        bencher.iter_batched_ref(
            || (Packetizer::new(&track(), 1200), Vec::with_capacity(1024)),
            |(packetizer, out)| {
                frames.iter().for_each(|frame| packetizer.packetize(frame, out));
                black_box(out.len())
            },
            BatchSize::SmallInput,
        );
    });

    group.bench_function("ring/write_and_read_by_8", |bencher| {
        let ring = Ring::new(Limits::default());
        ring.begin_epoch(vec![track()]);
        let mut cursors: Vec<_> = (0..8).map(|_| ring.live()).collect();
        let (mut batch, mut out) = (Vec::new(), Vec::new());
        bencher.iter(|| {
            for chunk in input.chunks(8) {
                batch.extend_from_slice(chunk);
                ring.push_all(&mut batch);
                for cursor in &mut cursors {
                    out.clear();
                    black_box(cursor.read(usize::MAX, &mut out));
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, packet_path);
criterion_main!(benches);
