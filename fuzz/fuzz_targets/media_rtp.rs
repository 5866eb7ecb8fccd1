//! Received payloads of any bytes through the normalizer and the depacketizer, for all codecs that look inside.
//!
//! The input is a row of packets: flags, timestamp step, length (two bytes), payload.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::media::rtp::depacketize::Depacketizer;
use streamgate::media::rtp::normalize::{Incoming, Normalizer};
use streamgate::media::{Codec, Packet, Params, StreamTime, Track};

const MAX_PAYLOAD: usize = 100;

fuzz_target!(|input: &[u8]| {
    for codec in [Codec::H264, Codec::H265, Codec::Aac, Codec::Jpeg] {
        let track = Track { codec, clock_rate: 90_000, channels: 1, params: Params::None };
        let mut normalizer = Normalizer::new(&track, MAX_PAYLOAD);
        let mut depacketizer = Depacketizer::new(&track);
        let (mut rest, mut timestamp) = (input, 0u32);
        let (mut pieces, mut frames) = (Vec::new(), Vec::new());
        while let [flags, step, high, low, tail @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(tail.len());
            let (payload, tail) = tail.split_at(length);
            rest = tail;
            timestamp = timestamp.wrapping_add(u32::from(*step) * 900);
            normalizer.push(
                Incoming { payload, timestamp, marker: flags & 1 != 0, loss: flags & 0xe0 == 0xe0 },
                &mut pieces,
            );
            for piece in pieces.drain(..) {
                assert!(matches!(codec, Codec::Aac | Codec::Jpeg) || piece.payload.len() <= MAX_PAYLOAD);
                let packet = Packet {
                    track: 0,
                    rtp_time: u64::from(piece.timestamp),
                    time: StreamTime::default(),
                    starts_unit: piece.starts_unit,
                    ends_unit: piece.ends_unit,
                    keyframe: piece.keyframe,
                    payload: piece.payload,
                };
                depacketizer.push(&packet, &mut frames);
            }
            frames.clear();
        }
    }
});
