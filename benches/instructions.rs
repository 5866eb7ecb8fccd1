//! Instructions that the hot paths take, counted under callgrind by `tests/tools/instructions.py`: unlike times, counts
//! are the same on a busy machine.
//!
//! Without an argument it prints the cases and how many units each works through; with a case's name it runs that case
//! once, the part that counts inside [`measured`].

mod fixtures;

use fixtures::packets::{GOP, frame, packets, track};
use std::hint::black_box;
use streamgate::graph::Ring;
use streamgate::graph::ring::Limits;
use streamgate::media::Frame;
use streamgate::media::rtp::depacketize::Depacketizer;
use streamgate::media::rtp::normalize::{Incoming, Normalizer};
use streamgate::media::rtp::packetize::Packetizer;

/// Readers of the ring.
const READERS: usize = 8;

/// A name, what its units are, how many of them one run works through, and the run.
type Case = (&'static str, &'static str, fn() -> usize);

const CASES: &[Case] = &[
    ("normalize", "packet that fits", || normalize(1200)),
    ("normalize_recut", "packet that is cut again", || normalize(1388)),
    ("packetize", "frame", packetize),
    ("depacketize", "packet", depacketize),
    ("ring", "packet, written once and read by 8", ring),
    ("hls_segment", "second of video and sound", segment),
    ("hls_playlist", "playlist", playlist),
];

/// The only part that is counted: callgrind is told this function's name.
#[inline(never)]
fn measured<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn normalize(max_payload: usize) -> usize {
    let input = packets(max_payload);
    let (mut normalizer, mut out) = (Normalizer::new(&track(), 1200), Vec::with_capacity(1024));
    measured(|| {
        for packet in &input {
            let (timestamp, marker) = (packet.rtp_time as u32, packet.ends_unit);
            let payload = &packet.payload[..];
            normalizer.push(Incoming { payload, timestamp, marker, loss: false }, &mut out);
        }
    });
    assert!(out.len() >= input.len());
    input.len()
}

fn packetize() -> usize {
    let frames: Vec<Frame> = (0..GOP).map(frame).collect();
    let (mut packetizer, mut out) = (Packetizer::new(&track(), 1200), Vec::with_capacity(1024));
    measured(|| frames.iter().for_each(|frame| packetizer.packetize(frame, &mut out)));
    assert!(out.len() > frames.len());
    frames.len()
}

fn depacketize() -> usize {
    let input = packets(1200);
    let (mut depacketizer, mut out) = (Depacketizer::new(&track()), Vec::with_capacity(64));
    measured(|| input.iter().for_each(|packet| depacketizer.push(packet, &mut out)));
    assert_eq!(out.len() as u64, GOP);
    input.len()
}

fn ring() -> usize {
    let input = packets(1200);
    let ring = Ring::new(Limits::default());
    ring.begin_epoch(vec![track()]);
    let mut cursors: Vec<_> = (0..READERS).map(|_| ring.live()).collect();
    let (mut batch, mut out) = (Vec::with_capacity(16), Vec::with_capacity(16));
    measured(|| {
        for chunk in input.chunks(8) {
            batch.extend_from_slice(chunk);
            ring.push_all(&mut batch);
            for cursor in &mut cursors {
                out.clear();
                black_box(cursor.read(usize::MAX, &mut out));
            }
        }
    });
    input.len()
}

fn segment() -> usize {
    let inputs = fixtures::hls::inputs();
    black_box(measured(|| fixtures::hls::run(&inputs)));
    fixtures::hls::SECONDS as usize
}

fn playlist() -> usize {
    let window = fixtures::hls::run(&fixtures::hls::inputs());
    let text = measured(|| streamgate::consumers::hls::playlist::media(black_box(&window), false));
    assert!(text.is_some_and(|text| !text.is_empty()));
    1
}

fn main() {
    let wanted = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    for (name, unit, run) in CASES {
        match &wanted {
            // `cargo bench` passes `--bench`: nothing to time here.
            None => println!("{name}\t{unit}"),
            Some(wanted) if wanted == name => println!("{}", run()),
            Some(_) => {}
        }
    }
}
