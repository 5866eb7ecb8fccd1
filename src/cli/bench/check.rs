//! Decrypted video, put together to frames and checked.

use super::shared::{Shared, micros};
use crate::media::rtp::depacketize::Depacketizer;
use crate::media::rtp::normalize::{Incoming, Normalizer, Piece};
use crate::media::{Codec, Frame, Packet, Params, StreamTime, Track, stamp};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use str0m::rtp::RtpHeader;

/// Larger than what WebRTC carries: nothing is to be cut anew.
const MAX_PAYLOAD: usize = 2000;

/// One viewer's video. It must begin with a keyframe that brings its parameter sets, and each marker must end a frame.
#[derive(Debug, Default)]
pub struct Checker {
    parts: Option<(Normalizer, Depacketizer)>,
    newest: Option<u64>,
    first_timestamp: Option<u32>,
    had_frame: bool,
    /// Markers that were not counted yet.
    ended: u64,
    pieces: Vec<Piece>,
    frames: Vec<Frame>,
}

impl Checker {
    pub fn push(&mut self, codec: Codec, sequence: u64, header: &RtpHeader, payload: &[u8]) {
        let late = self.newest.is_some_and(|newest| sequence <= newest);
        if late || payload.is_empty() {
            // Empty ones are padding. Those out of order were missed when their place came.
            return;
        }
        let loss = self.newest.is_some_and(|newest| sequence != newest + 1);
        self.newest = Some(sequence);
        self.first_timestamp.get_or_insert(header.timestamp);
        let (normalizer, depacketizer) = self.parts.get_or_insert_with(|| {
            let track = Track { codec, clock_rate: 90_000, channels: 0, params: Params::None };
            (Normalizer::new(&track, MAX_PAYLOAD), Depacketizer::new(&track))
        });
        let (timestamp, marker) = (header.timestamp, header.marker);
        self.ended += u64::from(marker);
        normalizer.push(Incoming { payload, timestamp, marker, loss }, &mut self.pieces);
        for piece in self.pieces.drain(..) {
            let packet = Packet {
                track: 0,
                rtp_time: piece.timestamp.into(),
                time: StreamTime::default(),
                starts_unit: piece.starts_unit,
                ends_unit: piece.ends_unit,
                keyframe: piece.keyframe,
                payload: piece.payload,
            };
            depacketizer.push(&packet, &mut self.frames);
        }
    }

    /// Counts what has been put together.
    pub fn tell(&mut self, shared: &Shared, posted: Instant) {
        let counters = &shared.counters;
        for frame in self.frames.drain(..) {
            if !self.had_frame {
                self.had_frame = true;
                shared.samples.lock().first_keyframe.push(micros(posted.elapsed()));
                if self.first_timestamp.map(u64::from) != Some(frame.rtp_time) {
                    counters.late_starts.fetch_add(1, Relaxed);
                }
            }
            counters.checked_frames.fetch_add(1, Relaxed);
            if let Some(stamp) = stamp::of_frame(&frame.data) {
                shared.arrived(stamp);
            }
            self.ended = self.ended.saturating_sub(1);
        }
        // A marker whose frame did not come out with it.
        counters.broken_frames.fetch_add(std::mem::take(&mut self.ended), Relaxed);
    }
}
