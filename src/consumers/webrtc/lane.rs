//! One viewer's audio or video: payload type, sequence numbers and timestamps of its own. Pure: no I/O, no clock.

use super::sender::{Again, Sender};
use super::worker::SourceKey;
use crate::graph::{Epoch, Lease, Ring};
use crate::media::{Codec, Kind, Packet};
use std::time::Duration;

/// Timestamps of a GOP that is sent at once are this far apart: a millisecond at 90 kHz…
const STEP: u64 = 90;
/// …or less, so that the whole GOP takes no longer than this.
const MAX_COMPRESSED: u64 = 22_500;

/// What a lane is made of.
pub struct LaneSetup {
    /// Audio or video.
    pub kind: Kind,
    /// The m-line's name, and the number of the header extension that it goes with packets in.
    pub mid: Option<(u8, String)>,
    /// Of media.
    pub ssrc: u32,
    /// Of retransmissions.
    pub rtx: Option<u32>,
    /// What was negotiated.
    pub codecs: Vec<Encoding>,
    /// Keeps the source running.
    pub lease: Lease,
}

/// A negotiated codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// The codec.
    pub codec: Codec,
    /// Its payload type.
    pub payload_type: u8,
    /// The payload type of its retransmissions.
    pub rtx_type: Option<u8>,
}

/// Why a lane holds packets back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It does not.
    No,
    /// For the first keyframe.
    Start,
    /// For a keyframe, because the viewer could not keep up.
    Behind,
}

/// One viewer's audio or video.
pub struct Lane {
    /// What it was made of.
    pub setup: LaneSetup,
    /// Names the ring it reads.
    pub source: SourceKey,
    /// Packets are held back until a keyframe comes. Audio never waits.
    pub waiting: Waiting,
    /// Puts its packets on the wire.
    pub sender: Sender,
    /// The present epoch's id.
    epoch: Option<u64>,
    track: Option<u8>,
    encoding: Encoding,
    /// Of the present codec.
    pub clock_rate: u32,
    sequence: u64,
    offset: u64,
    step: u64,
    last_in: Option<u64>,
    last_out: Option<u64>,
    /// The offset belongs to another clock.
    realign: bool,
}

/// What goes into the RTP header of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Codec and payload types.
    pub encoding: Encoding,
    /// 64-bit sequence number; the low 16 bits are sent.
    pub sequence: u64,
    /// RTP timestamp.
    pub rtp_time: u32,
    /// How much later the timestamp is than the packet's own.
    pub shift: Duration,
}

impl Lane {
    /// A lane that has sent nothing. `sequence` is the first sequence number, below 32768 so that SRTP's rollover
    /// counter begins at zero (RFC 3711 §3.3.1); `offset` is added to timestamps.
    pub fn new(setup: LaneSetup, sequence: u16, offset: u32) -> Lane {
        let unknown = Encoding { codec: Codec::H264, payload_type: 0, rtx_type: None };
        let mid = setup.mid.as_ref().map(|(id, name)| (*id, name.as_str()));
        Lane {
            source: SourceKey::of(setup.lease.producer()),
            waiting: if setup.kind == Kind::Video { Waiting::Start } else { Waiting::No },
            sender: Sender::new(setup.ssrc, setup.rtx, mid),
            epoch: None,
            track: None,
            encoding: setup.codecs.first().copied().unwrap_or(unknown),
            clock_rate: 90_000,
            sequence: u64::from(sequence & 0x7fff),
            offset: u64::from(offset),
            step: 1,
            last_in: None,
            last_out: None,
            realign: false,
            setup,
        }
    }

    /// What comes next belongs to this epoch. False if it has nothing that this viewer negotiated.
    pub fn enter(&mut self, epoch: &Epoch) -> bool {
        if self.epoch == Some(epoch.id) {
            return self.track.is_some();
        }
        self.epoch = Some(epoch.id);
        self.sender.forget();
        let found = epoch.tracks.iter().enumerate().find_map(|(index, track)| {
            let encoding = self.setup.codecs.iter().find(|encoding| encoding.codec == track.codec)?;
            Some((u8::try_from(index).ok()?, track, *encoding))
        });
        let Some((index, track, encoding)) = found else {
            self.track = None;
            return false;
        };
        if self.clock_rate != track.clock_rate {
            // Another clock: the viewer's timestamps go on from where they are.
            (self.clock_rate, self.last_in) = (track.clock_rate.max(1), None);
            self.realign = true;
        }
        (self.track, self.encoding) = (Some(index), encoding);
        if self.setup.kind == Kind::Video && self.waiting == Waiting::No {
            self.waiting = Waiting::Start;
        }
        true
    }

    /// What sends packets again, if that was negotiated: the sender, where the packets are, and how they are sent.
    pub fn retransmits(&mut self) -> Option<(&mut Sender, &Ring<Packet>, Again)> {
        let rtx_type = self.encoding.rtx_type?;
        let again = Again { sequence: 0, rtx_type, has_marker: self.setup.kind == Kind::Video };
        Some((&mut self.sender, self.setup.lease.producer().packets(), again))
    }

    /// The present epoch's id.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Whether a packet of the present epoch is this lane's.
    pub fn carries(&self, packet: &Packet) -> bool {
        self.track == Some(packet.track)
    }

    /// Prepares for a GOP of `units` access units that is sent at once and ends at `newest`, where live packets go on.
    /// Timestamps already sent are never used again.
    pub fn compress(&mut self, units: u64, newest: u64) {
        self.step = (MAX_COMPRESSED / units.max(1)).clamp(1, STEP);
        self.last_in = None;
        let live = newest.wrapping_add(self.offset);
        let begin = live.wrapping_sub(units.saturating_mul(self.step));
        // As a difference, because an offset may have wrapped.
        if self.last_out.is_none_or(|last| (begin.wrapping_sub(last) as i64) > 0) {
            self.last_out = Some(begin);
        }
    }

    /// Numbers a packet. Timestamps of new units grow, by a small step where the source's own are behind what
    /// the viewer has been sent; so a compressed GOP runs into the live stream by itself.
    pub fn stamp(&mut self, packet: &Packet) -> Stamp {
        if std::mem::take(&mut self.realign)
            && let Some(last) = self.last_out
        {
            self.offset = last.wrapping_add(u64::from(self.clock_rate) / 50).wrapping_sub(packet.rtp_time);
        }
        let live = packet.rtp_time.wrapping_add(self.offset);
        let mut out = self.last_out.unwrap_or(live);
        if self.last_in != Some(packet.rtp_time) {
            out = match self.last_out {
                // As differences, because an offset may have wrapped.
                Some(last) if (live.wrapping_sub(last) as i64) < self.step as i64 => {
                    last.wrapping_add(self.step)
                }
                _ => live,
            };
            (self.last_in, self.last_out) = (Some(packet.rtp_time), Some(out));
        }
        let sequence = self.sequence;
        self.sequence += 1;
        let ahead = (out.wrapping_sub(live) as i64).max(0) as u64;
        Stamp {
            encoding: self.encoding,
            sequence,
            rtp_time: out as u32,
            shift: if ahead == 0 {
                Duration::ZERO
            } else {
                Duration::from_secs_f64(ahead as f64 / f64::from(self.clock_rate))
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Producer;
    use crate::graph::source::Silent;
    use crate::media::{Params, StreamTime, Track};
    use std::sync::Arc;

    fn lane(kind: Kind, codecs: &[(Codec, u8)], offset: u32) -> Lane {
        let setup = LaneSetup {
            kind,
            mid: None,
            ssrc: 1,
            rtx: None,
            codecs: codecs
                .iter()
                .map(|&(codec, payload_type)| Encoding { codec, payload_type, rtx_type: None })
                .collect(),
            lease: Producer::new(Arc::new(Silent)).lease(),
        };
        Lane::new(setup, 0xffff, offset)
    }

    fn epoch(id: u64, tracks: &[(Codec, u32)]) -> Epoch {
        let track = |&(codec, clock_rate)| Track { codec, clock_rate, channels: 1, params: Params::None };
        Epoch { id, tracks: tracks.iter().map(track).collect() }
    }

    fn packet(track: u8, rtp_time: u64) -> Packet {
        Packet {
            track,
            rtp_time,
            time: StreamTime::default(),
            starts_unit: true,
            ends_unit: true,
            keyframe: false,
            payload: Arc::from([]),
        }
    }

    fn stamps(lane: &mut Lane, times: impl IntoIterator<Item = u64>) -> Vec<u32> {
        times.into_iter().map(|time| lane.stamp(&packet(0, time)).rtp_time).collect()
    }

    #[test]
    fn sequence_numbers_begin_below_32768_and_grow_by_one() {
        let mut lane = lane(Kind::Audio, &[(Codec::Pcma, 8)], 0);
        let first = lane.stamp(&packet(0, 0)).sequence;
        assert_eq!(first, 0x7fff);
        assert_eq!(
            (1..=3).map(|n| lane.stamp(&packet(0, n)).sequence - first).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }

    #[test]
    fn packets_of_one_unit_share_a_timestamp() {
        let mut lane = lane(Kind::Video, &[(Codec::H264, 96)], 7);
        assert_eq!(stamps(&mut lane, [100, 100, 3100]), [107, 107, 3107]);
    }

    #[test]
    fn a_compressed_gop_ends_where_live_goes_on() {
        let mut lane = lane(Kind::Video, &[(Codec::H264, 96)], u32::MAX);
        let gop: Vec<u64> = (0..60).map(|n| 900_000 + n * 3000).collect();
        lane.compress(60, *gop.last().unwrap());
        let out = stamps(&mut lane, gop);
        let live = (900_000u64 + 59 * 3000 + u64::from(u32::MAX)) as u32;
        assert_eq!(*out.last().unwrap(), live);
        assert!(out.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == 90));
        assert_eq!(lane.stamp(&packet(0, 900_000 + 60 * 3000)).rtp_time, live.wrapping_add(3000));
    }

    #[test]
    fn a_gop_sent_again_has_new_timestamps_and_live_is_caught_up_with() {
        let mut lane = lane(Kind::Video, &[(Codec::H264, 96)], 0);
        let mut last = *stamps(&mut lane, (0..100).map(|n| n * 3000)).last().unwrap();
        lane.compress(100, 99 * 3000);
        let mut shifted = 0;
        for time in (0..140).map(|n| n * 3000) {
            let stamp = lane.stamp(&packet(0, time));
            assert!(stamp.rtp_time > last, "{} after {last}", stamp.rtp_time);
            assert!(stamp.shift < Duration::from_secs(5));
            shifted += u32::from(time >= 100 * 3000 && !stamp.shift.is_zero());
            last = stamp.rtp_time;
        }
        assert_eq!(last, 139 * 3000, "aligned with the source again");
        assert!(shifted < 10, "within a few pictures: {shifted}");
    }

    #[test]
    fn the_longest_gop_takes_a_quarter_of_a_second() {
        let mut lane = lane(Kind::Video, &[(Codec::H264, 96)], 0);
        lane.compress(10_000, 90_000_000);
        let out = stamps(&mut lane, (0..10_000u64).map(|n| 90_000_000 - (9_999 - n) * 3000));
        assert!(out[9_999] - out[0] <= 22_500, "{}", out[9_999] - out[0]);
        assert!(out.windows(2).all(|pair| pair[1] > pair[0]));
    }

    #[test]
    fn a_codec_with_another_clock_goes_on_from_the_last_timestamp() {
        let mut lane = lane(Kind::Audio, &[(Codec::Pcma, 8), (Codec::Opus, 111)], 0);
        assert!(lane.enter(&epoch(1, &[(Codec::Pcma, 8_000)])));
        let before = lane.stamp(&packet(0, 8_000_000));
        assert!(lane.enter(&epoch(2, &[(Codec::H264, 90_000), (Codec::Opus, 48_000)])));
        let after = lane.stamp(&packet(1, 48_000_960));
        assert_eq!((before.encoding.payload_type, after.encoding.payload_type), (8, 111));
        assert_eq!(after.rtp_time - before.rtp_time, 960);
        assert!(lane.carries(&packet(1, 0)) && !lane.carries(&packet(0, 0)));
    }

    #[test]
    fn an_epoch_without_a_negotiated_codec_is_not_entered() {
        let mut lane = lane(Kind::Video, &[(Codec::H264, 96)], 0);
        assert!(!lane.enter(&epoch(1, &[(Codec::H265, 90_000)])));
        assert!(!lane.carries(&packet(0, 0)));
        assert!(!lane.enter(&epoch(1, &[(Codec::H265, 90_000)])), "nor at the second look");
        assert!(lane.enter(&epoch(2, &[(Codec::Pcma, 8_000), (Codec::H264, 90_000)])));
    }
}
