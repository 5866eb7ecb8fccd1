//! Whatever is sent arrives whole or not at all.

use super::*;
use crate::media::rtp::packetize::Packetizer;
use crate::media::rtp::sequence::{Ordered, Sequencer};
use proptest::prelude::*;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
struct Unit {
    keyframe: bool,
    /// Sizes of its slices.
    slices: Vec<usize>,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 1usize..200, 4 => 1000usize..5000, 1 => 5000usize..200_000]
}

fn units() -> impl Strategy<Value = Vec<Unit>> {
    let unit = (prop::bool::weighted(0.3), prop::collection::vec(size(), 1..4))
        .prop_map(|(keyframe, slices)| Unit { keyframe, slices });
    prop::collection::vec(unit, 1..16)
}

fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::H264), Just(Codec::H265)]
}

fn frames_of(nals: &Nals, units: &[Unit], in_band: bool, sei: bool, first: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        let mut list = Vec::new();
        if sei {
            list.push(nals.delimiter());
        }
        if unit.keyframe && in_band {
            list.extend(nals.sets());
        }
        if sei {
            list.push(nals.sei());
        }
        for (at, &size) in unit.slices.iter().enumerate() {
            list.push(filled(if unit.keyframe { nals.key(at == 0) } else { nals.inter(at == 0) }, size));
        }
        frames.push(frame(&list, first + index as u64 * 3600, unit.keyframe));
    }
    frames
}

/// From the first keyframe on, what must come out of an undisturbed stream: sets that the source doesn't send are put
/// in behind the delimiter.
fn expected(nals: &Nals, frames: &[Frame], in_band: bool) -> Vec<(u32, bool, Vec<Vec<u8>>)> {
    let mut expected = Vec::new();
    for frame in frames.iter().skip_while(|frame| !frame.keyframe) {
        let mut list = nals_of(frame);
        if frame.keyframe && !in_band {
            let at = usize::from(list[0] == nals.delimiter());
            list.splice(at..at, nals.sets());
        }
        expected.push((frame.rtp_time as u32, frame.keyframe, list));
    }
    expected
}

fn got(receiver: &Receiver) -> Vec<(u32, bool, Vec<Vec<u8>>)> {
    receiver.frames.iter().map(|frame| (frame.rtp_time as u32, frame.keyframe, nals_of(frame))).collect()
}

/// Without delimiters and SEI.
fn needed(codec: Codec, list: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let nals = Nals(codec);
    list.iter().filter(|nal| **nal != nals.delimiter() && **nal != nals.sei()).cloned().collect()
}

/// Payloads are within the limit; where fragments had to be cut anew, all but the first and the last have one size.
fn check_pieces(codec: Codec, pieces: &[Piece], max: usize, sent_max: usize) {
    for piece in pieces {
        assert!(piece.payload.len() <= max, "{} bytes", piece.payload.len());
        assert!(!piece.keyframe || piece.starts_unit);
        let middle = match Format::of(codec).expect("video").read(&piece.payload) {
            Payload::Fragment(fragment) => !fragment.start && !fragment.end,
            _ => false,
        };
        if middle && sent_max > max {
            assert_eq!(piece.payload.len(), max, "a middle fragment");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn undisturbed_streams_arrive_exactly(
        codec in codec(),
        units in units(),
        in_band: bool,
        sei: bool,
        sent_max in 64usize..3000,
        max in 64usize..3000,
        first in prop_oneof![Just(0u64), Just((1 << 32) - 7200), any::<u32>().prop_map(u64::from)],
    ) {
        let nals = Nals(codec);
        let frames = frames_of(&nals, &units, in_band, sei, first);
        let track = track(codec, if in_band { Params::None } else { nals.params() });
        let mut packetizer = Packetizer::new(&track, sent_max);
        let mut receiver = Receiver::new(&track, max);
        let mut packets = Vec::new();
        for frame in &frames {
            packetizer.packetize(frame, &mut packets);
        }
        for packet in &packets {
            prop_assert!(packet.payload.len() <= sent_max);
            receiver.send(&packet.payload, packet.rtp_time as u32, packet.ends_unit);
        }
        prop_assert_eq!(got(&receiver), expected(&nals, &frames, in_band));
        prop_assert_eq!(receiver.noted.iter().map(|noted| noted.access_units).sum::<u32>(), units.len() as u32);
        prop_assert!(receiver.noted.iter().all(|noted| !noted.dropped && !noted.reordered));
        let epochs = receiver.noted.iter().filter(|noted| noted.params.is_some()).count();
        prop_assert_eq!(epochs, usize::from(in_band && units.iter().any(|unit| unit.keyframe)));
        check_pieces(codec, &receiver.pieces, max, sent_max);
        // What fits passes untouched.
        if max >= sent_max && in_band {
            let from = frames.iter().find(|frame| frame.keyframe).map(|frame| frame.rtp_time);
            let sent: Vec<_> = packets.iter().filter(|packet| Some(packet.rtp_time) >= from).map(|p| &p.payload).collect();
            if from.is_some() {
                prop_assert_eq!(receiver.pieces.iter().map(|piece| &piece.payload).collect::<Vec<_>>(), sent);
            }
        }
    }

    #[test]
    fn disturbed_streams_give_whole_units_or_nothing(
        codec in codec(),
        units in units(),
        in_band: bool,
        sei: bool,
        sent_max in 300usize..3000,
        max in 64usize..3000,
        first_sequence: u16,
        fates in prop::collection::vec((0u8..100, 0u64..8), 1..400),
        trouble in 0u8..30,
        udp: bool,
    ) {
        let nals = Nals(codec);
        let mut units = units;
        units[0].keyframe = true;
        let frames = frames_of(&nals, &units, in_band, sei, (1 << 32) - 9000);
        let track = track(codec, if in_band { Params::None } else { nals.params() });
        let mut packetizer = Packetizer::new(&track, sent_max);
        let mut packets = Vec::new();
        for frame in &frames {
            packetizer.packetize(frame, &mut packets);
        }
        // Who is lost, who comes twice, who is late by how many packets.
        let mut wire: Vec<(u64, usize)> = Vec::new();
        for at in 0..packets.len() {
            let (fate, delay) = fates[at % fates.len()];
            // Sources begin where a unit begins.
            let delay = if fate < trouble && at > 0 { delay } else { 0 };
            if fate >= trouble / 3 || at == 0 {
                wire.push((at as u64 + delay, at));
            }
            if fate % 10 == 3 && trouble > 0 {
                wire.push((at as u64 + delay + 2, at));
            }
        }
        wire.sort();
        let mut sequencer = if udp {
            Sequencer::reordering(64, Duration::from_millis(100))
        } else {
            Sequencer::in_order()
        };
        let mut receiver = Receiver::new(&track, max);
        let start = Instant::now();
        let mut ready: Vec<Ordered<usize>> = Vec::new();
        for (time, at) in wire {
            let sequence = first_sequence.wrapping_add(at as u16);
            sequencer.push(sequence, start + Duration::from_millis(time), at, &mut ready);
        }
        sequencer.flush(start + Duration::from_secs(100_000), &mut ready);
        for Ordered { item, loss } in ready {
            let packet = &packets[item];
            receiver.push(Incoming {
                payload: &packet.payload,
                timestamp: packet.rtp_time as u32,
                marker: packet.ends_unit,
                loss,
            });
        }

        let expected = expected(&nals, &frames, in_band);
        let mut last = None;
        let mut learned = false;
        for (timestamp, keyframe, list) in got(&receiver) {
            let at = expected.iter().position(|unit| unit.0 == timestamp).expect("a unit that was sent");
            if learned || list == expected[at].2 {
                prop_assert_eq!(&list, &expected[at].2, "unit {} is not what was sent", at);
                learned = true;
            } else {
                // As long as no keyframe has come whole it isn't known what they begin with: what a decoder doesn't need
                // may be missing in front.
                prop_assert_eq!(needed(codec, &list), needed(codec, &expected[at].2));
                prop_assert!(keyframe || list == expected[at].2);
            }
            prop_assert_eq!(keyframe, expected[at].1);
            // Between keyframes nothing may be missing.
            prop_assert!(keyframe || last == at.checked_sub(1) && at > 0, "unit {} without the one before", at);
            prop_assert!(last.is_none_or(|last| last < at));
            last = Some(at);
        }
        for piece in &receiver.pieces {
            prop_assert!(piece.payload.len() <= max);
        }
    }

    #[test]
    fn any_packets_are_survived(
        codec in codec(),
        known: bool,
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..300), 0u8..32, 0u32..4, any::<bool>(), prop::bool::weighted(0.05)),
            0..60,
        ),
        max in 0usize..200,
    ) {
        let nals = Nals(codec);
        let track = track(codec, if known { nals.params() } else { Params::None });
        let mut receiver = Receiver::new(&track, max);
        for (mut payload, kind, timestamp, marker, loss) in packets {
            // Make most of them something that is looked into.
            match (codec, payload.as_mut_slice()) {
                (Codec::H264, [first, ..]) => *first = kind,
                (_, [first, second, ..]) => {
                    *first = [0, 2, 32, 38, 40, 42, 64, 66, 68, 70, 76, 78, 80, 96, 98, 98][usize::from(kind) % 16];
                    *second = 1;
                }
                _ => {}
            }
            receiver.push(Incoming { payload: &payload, timestamp, marker, loss });
        }
        for piece in &receiver.pieces {
            prop_assert!(piece.payload.len() <= max.max(64));
            let _ = begun_nals(codec, &piece.payload);
        }
    }

    #[test]
    fn sound_arrives_exactly(
        codec in prop_oneof![Just(Codec::Aac), Just(Codec::Opus), Just(Codec::Pcma)],
        sizes in prop::collection::vec(1usize..4000, 1..20),
        max in 64usize..1500,
    ) {
        let track = Track { codec, clock_rate: 8000, channels: 1, params: Params::None };
        let mut packetizer = Packetizer::new(&track, max);
        let mut receiver = Receiver::new(&track, max);
        let mut sent = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let data: Vec<u8> = (0..*size).map(|at| (at * 7 + index) as u8).collect();
            let frame = Frame { data: data.into(), ..frame(&[], index as u64 * 10_000, false) };
            let mut packets = Vec::new();
            packetizer.packetize(&frame, &mut packets);
            for packet in packets {
                receiver.send(&packet.payload, packet.rtp_time as u32, packet.ends_unit);
            }
            sent.push(frame);
        }
        if codec == Codec::Pcma {
            // Split by samples: joined again it is the same sound without a gap.
            let mut at = 0;
            for frame in &sent {
                let mut data = Vec::new();
                while data.len() < frame.data.len() {
                    let part = &receiver.frames[at];
                    prop_assert_eq!(part.rtp_time, frame.rtp_time + data.len() as u64);
                    prop_assert!(part.data.len() <= max);
                    data.extend_from_slice(&part.data);
                    at += 1;
                }
                prop_assert_eq!(&data, &frame.data);
            }
            prop_assert_eq!(at, receiver.frames.len());
        } else {
            prop_assert_eq!(receiver.frames, sent);
        }
    }
}

#[test]
fn several_access_units_in_one_aac_packet() {
    let config = [0x14, 0x08].as_slice().into();
    let track = Track { codec: Codec::Aac, clock_rate: 16_000, channels: 1, params: Params::Aac { config } };
    let mut receiver = Receiver::new(&track, 1200);
    receiver.send(&[0, 48, 0, 2 << 3, 0, 1 << 3, 0, 3 << 3, 1, 2, 3, 4, 5, 6], 5000, true);
    let frames: Vec<_> = receiver.frames.iter().map(|frame| (frame.rtp_time, frame.data.to_vec())).collect();
    assert_eq!(frames, [(5000, vec![1, 2]), (6024, vec![3]), (7048, vec![4, 5, 6])]);
    assert_eq!(receiver.frames[1].time, StreamTime(Duration::from_millis(64)));
}

#[test]
fn aac_headers_that_lie_give_nothing() {
    let track = Track { codec: Codec::Aac, clock_rate: 16_000, channels: 1, params: Params::None };
    let mut receiver = Receiver::new(&track, 1200);
    for payload in
        [&[][..], &[0], &[0, 0], &[0, 15, 0, 8, 1], &[0xff, 0xff, 0, 8], &[0, 16, 0, 9, 1], &[0, 16, 0xff]]
    {
        receiver.send(payload, 0, true);
    }
    // Fragments of two different access units.
    receiver.send(&[0, 16, 0, 4 << 3, 1, 2], 0, true);
    receiver.send(&[0, 16, 0, 4 << 3, 3, 4], 1024, true);
    receiver.send(&[0, 16, 0, 3 << 3, 5], 1024, true);
    assert_eq!(receiver.frames, []);
}
