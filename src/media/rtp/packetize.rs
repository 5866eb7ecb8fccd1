//! Frames to packets, for sources that have no RTP and for servers that speak it.

use super::payload::Format;
use super::sets::whole_nal;
use crate::media::clock::StreamTime;
use crate::media::codec::Codec;
use crate::media::frame::Frame;
use crate::media::nal::length_prefixed_nals;
use crate::media::packet::Packet;
use crate::media::track::Track;
use std::sync::Arc;
use std::time::Duration;

/// Largest access unit that AAC-hbr's 13-bit size can tell, in bytes.
const MAX_AAC: usize = 0x1fff;

/// Turns one track's frames into packets.
#[derive(Debug)]
pub struct Packetizer {
    codec: Codec,
    clock_rate: u32,
    /// Bytes of one G.711 sample on all channels.
    sample: usize,
    max_payload: usize,
}

impl Packetizer {
    /// For frames of `track`. Payloads will have at most `max_payload` bytes (at least 64), but Opus, which can't be
    /// split.
    pub fn new(track: &Track, max_payload: usize) -> Self {
        Packetizer {
            codec: track.codec,
            clock_rate: track.clock_rate.max(1),
            sample: usize::from(track.channels.max(1)),
            max_payload: max_payload.max(64),
        }
    }

    /// Appends the frame's packets to `out`. Nothing comes of an empty or malformed one (video: lengths that don't add up
    /// or something that is no NAL unit; AAC: more than 8191 bytes).
    ///
    /// H.264 and H.265: a NAL unit goes into a packet of its own, or into FU-A (FU) fragments of exactly the largest size.
    /// AAC: RFC 3640 AAC-hbr, one access unit in a packet (`sizelength=13; indexlength=3; indexdeltalength=3`).
    pub fn packetize(&mut self, frame: &Frame, out: &mut Vec<Packet>) {
        let before = out.len();
        let mut emit = |ticks: u64, payload: Arc<[u8]>| {
            let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(self.clock_rate);
            out.push(Packet {
                track: frame.track,
                rtp_time: frame.rtp_time.saturating_add(ticks),
                time: StreamTime(frame.time.0.saturating_add(Duration::from_nanos(nanos as u64))),
                starts_unit: self.codec.kind() == crate::media::Kind::Audio,
                ends_unit: true,
                keyframe: false,
                payload,
            });
        };
        match (Format::of(self.codec), self.codec) {
            (Some(format), _) => {
                let size: usize = length_prefixed_nals(&frame.data).map(|nal| 4 + nal.len()).sum();
                if size != frame.data.len()
                    || length_prefixed_nals(&frame.data).any(|n| format.header(n).is_none())
                {
                    return;
                }
                for nal in length_prefixed_nals(&frame.data) {
                    whole_nal(format, nal, self.max_payload, |payload| emit(0, payload));
                }
                let packets = out.get_mut(before..).unwrap_or_default();
                for packet in &mut *packets {
                    packet.ends_unit = false;
                }
                if let Some(first) = packets.first_mut() {
                    first.starts_unit = true;
                    first.keyframe = frame.keyframe;
                }
                if let Some(last) = packets.last_mut() {
                    last.ends_unit = true;
                }
            }
            (None, Codec::Aac) if frame.data.len() <= MAX_AAC => {
                // One header of 16 bits: the size in 13, the index in 3. A fragment has the whole unit's size.
                let [high, low] = ((frame.data.len() as u16) << 3).to_be_bytes();
                for part in frame.data.chunks(self.max_payload - 4) {
                    emit(0, [&[0, 16, high, low], part].concat().into());
                }
                // RTP's marker: the last fragment (RFC 3640 §3.1).
                let packets = out.get_mut(before..).unwrap_or_default();
                if let [fragments @ .., _] = packets {
                    fragments.iter_mut().for_each(|packet| packet.ends_unit = false);
                }
            }
            (None, Codec::Pcma | Codec::Pcmu) => {
                let mut ticks = 0;
                for part in frame.data.chunks((self.max_payload / self.sample).max(1) * self.sample) {
                    emit(ticks, part.into());
                    ticks += (part.len() / self.sample) as u64;
                }
            }
            (None, Codec::Opus) if !frame.data.is_empty() => emit(0, frame.data.as_ref().into()),
            (None, _) => {}
        }
    }
}
