//! One viewer's audio or video: payload type, sequence numbers and timestamps of its own. Pure: no I/O, no clock.

use super::worker::SourceKey;
use crate::graph::{Epoch, Lease};
use crate::media::{Codec, Kind, Packet};
use std::time::Duration;
use str0m::media::{Mid, Pt};
use str0m::rtp::Ssrc;

/// Timestamps of a GOP that is sent at once are this far apart: a millisecond at 90 kHz…
const STEP: u64 = 90;
/// …or less, so that the whole GOP takes no longer than this.
const MAX_COMPRESSED: u64 = 22_500;

/// What a lane is made of.
pub struct LaneSetup {
    /// Audio or video.
    pub kind: Kind,
    /// The m-line.
    pub mid: Mid,
    /// Of media.
    pub ssrc: Ssrc,
    /// Of retransmissions.
    pub rtx: Option<Ssrc>,
    /// The negotiated codecs and their payload types.
    pub codecs: Vec<(Codec, Pt)>,
    /// Keeps the source running.
    pub lease: Lease,
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
    /// str0m knows the SSRCs: only since the first packet, because it would report senders that have sent nothing.
    pub declared: bool,
    /// The present epoch's id.
    epoch: Option<u64>,
    track: Option<u8>,
    payload_type: Pt,
    clock_rate: u32,
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
    /// Payload type.
    pub payload_type: Pt,
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
        let first = setup.codecs.first().map_or(Pt::from(0), |(_, pt)| *pt);
        Lane {
            source: SourceKey::of(setup.lease.producer()),
            waiting: if setup.kind == Kind::Video { Waiting::Start } else { Waiting::No },
            declared: false,
            epoch: None,
            track: None,
            payload_type: first,
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
        let found = epoch.tracks.iter().enumerate().find_map(|(index, track)| {
            let (_, pt) = self.setup.codecs.iter().find(|(codec, _)| *codec == track.codec)?;
            Some((u8::try_from(index).ok()?, track, *pt))
        });
        let Some((index, track, payload_type)) = found else {
            self.track = None;
            return false;
        };
        if self.clock_rate != track.clock_rate {
            // Another clock: the viewer's timestamps go on from where they are.
            (self.clock_rate, self.last_in) = (track.clock_rate.max(1), None);
            self.realign = true;
        }
        (self.track, self.payload_type) = (Some(index), payload_type);
        if self.setup.kind == Kind::Video && self.waiting == Waiting::No {
            self.waiting = Waiting::Start;
        }
        true
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
        self.last_out.get_or_insert(live.wrapping_sub(units.saturating_mul(self.step)));
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
            payload_type: self.payload_type,
            sequence,
            rtp_time: out as u32,
            shift: Duration::from_secs_f64(ahead as f64 / f64::from(self.clock_rate)),
        }
    }
}
