//! What one camera's packets cost, once for each stream and once for each reader. `cargo bench --bench packet_path`.

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use streamgate::graph::Ring;
use streamgate::graph::ring::Limits;
use streamgate::media::rtp::depacketize::Depacketizer;
use streamgate::media::rtp::normalize::{Incoming, Normalizer};
use streamgate::media::rtp::packetize::Packetizer;
use streamgate::media::{Codec, Frame, Packet, Params, StreamTime, Track};

/// 720p at 2 Mbit/s and 30 frames a second.
const FRAME_BYTES: usize = 8333;
const GOP: u64 = 60;

fn track() -> Track {
    let sps: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe9, 0xa8, 0x08, 0x08, 0x08, 0x10];
    let params = Params::H264 { sps: Arc::from(sps), pps: Arc::from(&[0x68, 0xce, 0x3c, 0x80][..]) };
    Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params }
}

fn frame(number: u64) -> Frame {
    let keyframe = number.is_multiple_of(GOP);
    let mut data = BytesMut::with_capacity(FRAME_BYTES + 4);
    data.put_u32(FRAME_BYTES as u32);
    // The slice header says: first macroblock 0, slice type P or I.
    data.put_slice(&[if keyframe { 0x65 } else { 0x41 }, if keyframe { 0x88 } else { 0x9a }]);
    data.extend((2..FRAME_BYTES).map(|n| (n * 31) as u8));
    let (rtp_time, time) = (number * 3000, StreamTime::default());
    Frame { track: 0, rtp_time, time, keyframe, data: Bytes::from(data) }
}

/// One GOP as packets of at most `max_payload` bytes.
fn packets(max_payload: usize) -> Vec<Packet> {
    let (mut packetizer, mut out) = (Packetizer::new(&track(), max_payload), Vec::new());
    for number in 0..GOP {
        packetizer.packetize(&frame(number), &mut out);
    }
    out
}

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
