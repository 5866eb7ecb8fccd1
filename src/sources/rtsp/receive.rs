//! From RTP and RTCP packets (RFC 3550) to [`Output`]: order, loss, sender reports, receiver reports.

use super::Output;
use super::session::Setup;
use crate::graph::RtpIn;
use crate::media::Kind;
use crate::media::rtp::header::{self, Header, ReportBlock};
use crate::media::rtp::sequence::{Ordered, Sequencer};
use std::time::{Duration, Instant};

/// How long a packet that came early over UDP waits for the missing ones, and how many may wait.
const MAX_REORDER_DELAY: Duration = Duration::from_millis(100);
const MAX_REORDERED_PACKETS: usize = 256;
/// After that many packets of another payload type than described, and none of the right one, the camera means it.
const STRANGE_PACKETS: u32 = 20;

/// Receives the tracks of one session.
pub struct Receiver {
    tracks: Vec<TrackIn>,
    /// Which track's silence means that the camera has stalled: the video's if there is one.
    watched: usize,
    last_media: Instant,
    ssrc: u32,
}

struct TrackIn {
    payload_type: u8,
    channels: Option<(u8, u8)>,
    clock_rate: u32,
    order: Order,
    /// Packets of other payload types before the first of the right one.
    strange: u32,
    ssrc: Option<u32>,
    said_goodbye: bool,
    statistics: Statistics,
}

enum Order {
    /// TCP keeps it; only gaps are told.
    Kept { sequencer: Sequencer<()>, ready: Vec<Ordered<()>> },
    /// UDP doesn't.
    Restored { sequencer: Sequencer<Held>, ready: Vec<Ordered<Held>>, spare: Vec<Vec<u8>> },
}

/// A packet that may have to wait.
struct Held {
    header: Header,
    payload: Vec<u8>,
    arrival: Instant,
}

impl Receiver {
    /// For what was set up, in the same order.
    pub fn new(setups: &[Setup], now: Instant) -> Receiver {
        let track = |setup: &Setup| TrackIn {
            payload_type: setup.payload_type,
            channels: setup.channels,
            clock_rate: setup.track.clock_rate,
            order: match setup.udp {
                None => Order::Kept { sequencer: Sequencer::in_order(), ready: Vec::new() },
                Some(_) => Order::Restored {
                    sequencer: Sequencer::reordering(MAX_REORDERED_PACKETS, MAX_REORDER_DELAY),
                    ready: Vec::new(),
                    spare: Vec::new(),
                },
            },
            strange: 0,
            ssrc: None,
            said_goodbye: false,
            statistics: Statistics::default(),
        };
        Receiver {
            tracks: setups.iter().map(track).collect(),
            watched: setups.iter().position(|s| s.track.kind() == Kind::Video).unwrap_or(0),
            last_media: now,
            ssrc: rand::random(),
        }
    }

    /// When the last packet of the watched track came.
    pub fn last_media(&self) -> Instant {
        self.last_media
    }

    /// Whether the camera has said goodbye on all tracks.
    pub fn is_over(&self) -> bool {
        self.tracks.iter().all(|t| t.said_goodbye)
    }

    /// Takes an interleaved packet. Channels that nobody has are ignored. Two tracks on one channel, as some cameras
    /// answer, are told apart by payload type.
    pub fn interleaved(&mut self, channel: u8, packet: &[u8], arrival: Instant, out: &mut impl Output) {
        let on = |rtp: bool| {
            move |t: &TrackIn| t.channels.is_some_and(|(a, b)| channel == if rtp { a } else { b })
        };
        let payload_type = packet.get(1).map(|b| b & 0x7f);
        let rtp = |t: &TrackIn| on(true)(t);
        let exact = self.tracks.iter().position(|t| rtp(t) && Some(t.payload_type) == payload_type);
        if let Some(track) = exact.or_else(|| self.tracks.iter().position(rtp)) {
            self.rtp(track, packet, arrival, out);
        } else if let Some(track) = self.tracks.iter().position(on(false)) {
            self.rtcp(track, packet, arrival, out);
        }
    }

    /// Takes an RTP packet of a track.
    pub fn rtp(&mut self, track: usize, packet: &[u8], arrival: Instant, out: &mut impl Output) {
        let Some(t) = self.tracks.get_mut(track) else { return };
        if header::is_rtcp(packet) {
            // RFC 5761: both on one port.
            return self.rtcp(track, packet, arrival, out);
        }
        let Some((header, payload)) = header::parse(packet) else { return };
        if header.payload_type != t.payload_type {
            t.strange = t.strange.saturating_add(1);
            if t.ssrc.is_some() || t.strange < STRANGE_PACKETS || header.payload_type < 96 {
                return;
            }
            t.payload_type = header.payload_type;
        }
        if t.ssrc != Some(header.ssrc) {
            t.ssrc = Some(header.ssrc);
            t.said_goodbye = false;
            t.statistics = Statistics::default();
        }
        if track == self.watched {
            self.last_media = arrival;
        }
        t.statistics.received(&header, t.clock_rate, arrival);
        let (timestamp, marker) = (header.timestamp, header.marker);
        match &mut t.order {
            Order::Kept { sequencer, ready } => {
                sequencer.push(header.sequence, arrival, (), ready);
                for Ordered { loss, .. } in ready.drain(..) {
                    out.write_rtp(RtpIn { track, payload, timestamp, marker, loss, arrival });
                }
            }
            Order::Restored { sequencer, ready, spare } => {
                let mut held = spare.pop().unwrap_or_default();
                held.clear();
                held.extend_from_slice(payload);
                sequencer.push(header.sequence, arrival, Held { header, payload: held, arrival }, ready);
                write_ready(track, ready, spare, out);
            }
        }
    }

    /// Gives up on packets that others have waited for too long.
    pub fn flush(&mut self, now: Instant, out: &mut impl Output) {
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if let Order::Restored { sequencer, ready, spare } = &mut track.order {
                sequencer.flush(now, ready);
                write_ready(index, ready, spare, out);
            }
        }
    }

    /// When [`Receiver::flush`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let deadline = |t: &TrackIn| match &t.order {
            Order::Kept { .. } => None,
            Order::Restored { sequencer, .. } => sequencer.deadline(),
        };
        self.tracks.iter().filter_map(deadline).min()
    }

    /// Takes an RTCP packet of a track.
    pub fn rtcp(&mut self, track: usize, packet: &[u8], arrival: Instant, out: &mut impl Output) {
        let Some(t) = self.tracks.get_mut(track) else { return };
        for report in header::sender_reports(packet) {
            t.statistics.last_report = Some((report.ntp, arrival));
            out.sender_report(track, report.ntp, report.rtp);
        }
        if let Some(ssrc) = t.ssrc {
            t.said_goodbye |= header::says_goodbye(packet, ssrc);
        }
    }

    /// A receiver report (RFC 3550 §6.4.2) on a track, once something of it has come.
    pub fn report(&mut self, track: usize, now: Instant, out: &mut Vec<u8>) {
        out.clear();
        let Some(t) = self.tracks.get_mut(track) else { return };
        let Some(ssrc) = t.ssrc else { return };
        header::write_receiver_report(self.ssrc, &t.statistics.block(ssrc, now), out);
        header::write_description(self.ssrc, "streamgate", out);
    }
}

fn write_ready(
    track: usize,
    ready: &mut Vec<Ordered<Held>>,
    spare: &mut Vec<Vec<u8>>,
    out: &mut impl Output,
) {
    for Ordered { item, loss } in ready.drain(..) {
        let Header { timestamp, marker, .. } = item.header;
        out.write_rtp(RtpIn {
            track,
            payload: &item.payload,
            timestamp,
            marker,
            loss,
            arrival: item.arrival,
        });
        // One camera's datagrams are small; a big one is not worth keeping.
        if spare.len() < 64 && item.payload.capacity() <= 2048 {
            spare.push(item.payload);
        }
    }
}

/// What a receiver report tells (RFC 3550 §6.4.1, appendices A.1, A.3 and A.8).
#[derive(Debug, Default)]
struct Statistics {
    first: Option<u32>,
    highest: u32,
    received: u32,
    expected_before: u32,
    received_before: u32,
    /// In ticks, times 16.
    jitter: u32,
    last: Option<(Instant, u32)>,
    last_report: Option<(u64, Instant)>,
}

impl Statistics {
    fn received(&mut self, header: &Header, clock_rate: u32, arrival: Instant) {
        let sequence = u32::from(header.sequence);
        if self.first.is_none() {
            // A turn more, so that a straggler from before the first packet doesn't go below zero.
            self.highest = sequence + 0x1_0000;
            self.first = Some(self.highest);
        }
        let ahead = header.sequence.wrapping_sub(self.highest as u16) as i16;
        if ahead > 0 {
            self.highest = self.highest.wrapping_add(u32::from(ahead.unsigned_abs()));
        }
        self.received = self.received.wrapping_add(1);
        if let Some((before, timestamp)) = self.last {
            let waited =
                (arrival.saturating_duration_since(before).as_secs_f64() * f64::from(clock_rate)) as i64;
            let transit =
                (waited - i64::from(header.timestamp.wrapping_sub(timestamp) as i32)).unsigned_abs();
            let transit = u32::try_from(transit).unwrap_or(u32::MAX).min(1 << 24);
            self.jitter = self.jitter.wrapping_add(transit).wrapping_sub((self.jitter + 8) >> 4);
        }
        self.last = Some((arrival, header.timestamp));
    }

    fn block(&mut self, ssrc: u32, now: Instant) -> ReportBlock {
        let expected = self.highest.wrapping_sub(self.first.unwrap_or(0)).wrapping_add(1);
        let lost = expected.wrapping_sub(self.received) as i32;
        let expected_now = expected.wrapping_sub(self.expected_before);
        let received_now = self.received.wrapping_sub(self.received_before);
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (u64::from(lost_now) * 256).checked_div(u64::from(expected_now)).unwrap_or(0);
        let (last_report, delay) = self.last_report.map_or((0, 0), |(ntp, at)| {
            let delay = now.saturating_duration_since(at).as_secs_f64() * 65536.0;
            ((ntp >> 16) as u32, delay as u32)
        });
        ReportBlock {
            ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: lost,
            highest_sequence: self.highest.wrapping_sub(0x1_0000),
            jitter: self.jitter >> 4,
            last_report,
            delay,
        }
    }
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
