//! What one lane puts on the wire: headers, sealed packets, packets once more, sender reports. No clock of its own.

use super::rtcp::Report;
use super::send::{Runs, Way};
use super::srtp::Srtp;
use crate::graph::Ring;
use crate::media::{Packet, StreamTime};
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Packets that can be sent again: half a second of 20 Mbit/s, or the GOP that a viewer starts with. They are taken from
/// the ring, so that nothing is kept for one viewer but where they are: 8 bytes.
const HISTORY: usize = 1024;
/// A viewer is told how its clock and ours go together this often while media flows.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What is sent again is bounded by what was sent in this time, so that a viewer can't have itself flooded.
const RESEND_WINDOW: Duration = Duration::from_secs(1);
/// RTP header, and one header extension of up to 16 bytes.
const MAX_HEADER: usize = 12 + 4 + 20;
/// Between 1900 and 1970, in seconds.
const NTP_OFFSET: u64 = 2_208_988_800;

/// Puts one lane's packets on the wire.
pub struct Sender {
    /// Of media.
    pub ssrc: u32,
    rtx: Option<u32>,
    rtx_sequence: u64,
    /// RTP header without what differs from packet to packet, and its length.
    template: ([u8; MAX_HEADER], usize),
    history: VecDeque<Sent>,
    /// Sequence number after the newest of `history`.
    next: u64,
    /// The ring's index of the newest of `history`.
    unit: u64,
    packets: u32,
    bytes: u32,
    /// The newest timestamp, and the time on the stream's timeline that it stands for.
    newest: Option<(u32, StreamTime)>,
    reported: Option<Instant>,
    /// Something was sent since the last report.
    news: bool,
    window: Window,
}

/// A packet that was sent, to be sent again.
struct Sent {
    /// The low bits of the ring's index.
    unit: u32,
    rtp_time: u32,
}

/// Bytes sent and sent again, lately.
#[derive(Default)]
struct Window {
    began: Option<Instant>,
    sent: usize,
    before: usize,
    again: usize,
}

impl Window {
    fn roll(&mut self, now: Instant) {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) > RESEND_WINDOW) {
            *self = Window { began: Some(now), before: self.sent, ..Window::default() };
        }
    }
}

/// A packet as it is sent.
pub struct Outgoing<'a> {
    /// RTP payload type.
    pub payload_type: u8,
    /// The packet index (RFC 3711 §3.3.1): one more than the last one's.
    pub index: u64,
    /// RTP timestamp.
    pub rtp_time: u32,
    /// RTP marker.
    pub marker: bool,
    /// Where the timestamp lies on the stream's timeline.
    pub at: StreamTime,
    /// The ring's index of the packet.
    pub unit: u64,
    /// Shared with all viewers.
    pub payload: &'a [u8],
}

/// A packet that a viewer asks for once more.
pub struct Again {
    /// The sequence number that it was sent with.
    pub sequence: u16,
    /// RTP payload type of retransmissions.
    pub rtx_type: u8,
    /// RTP's marker goes with the last packet of a unit.
    pub has_marker: bool,
}

impl Sender {
    /// A sender that has sent nothing. `mid` is the m-line's name and the number of the header extension that
    /// carries it (RFC 8843 §15), 1 to 14.
    pub fn new(ssrc: u32, rtx: Option<u32>, mid: Option<(u8, &str)>) -> Sender {
        let (mut template, mut length) = ([0; MAX_HEADER], 12);
        template[0] = 0x80;
        if let Some((id, name)) = mid.filter(|(_, name)| (1..=16).contains(&name.len())) {
            let words = (1 + name.len()).div_ceil(4);
            let front = [0xbe, 0xde, 0, words as u8, id << 4 | (name.len() - 1) as u8];
            let extension = front.into_iter().chain(name.bytes());
            template[12..].iter_mut().zip(extension).for_each(|(to, from)| *to = from);
            (template[0], length) = (0x90, 12 + 4 + words * 4);
        }
        Sender {
            ssrc,
            rtx,
            rtx_sequence: u64::from(rand::random::<u16>() & 0x7fff),
            template: (template, length),
            history: VecDeque::new(),
            next: 0,
            unit: 0,
            packets: 0,
            bytes: 0,
            newest: None,
            reported: None,
            news: false,
            window: Window::default(),
        }
    }

    /// Whether anything was sent.
    pub fn has_sent(&self) -> bool {
        self.newest.is_some()
    }

    fn header(
        &self,
        marker: bool,
        payload_type: u8,
        index: u64,
        rtp_time: u32,
        ssrc: u32,
    ) -> ([u8; MAX_HEADER], usize) {
        let (mut header, length) = self.template;
        header[1] = u8::from(marker) << 7 | payload_type & 0x7f;
        header[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        header[4..8].copy_from_slice(&rtp_time.to_be_bytes());
        header[8..12].copy_from_slice(&ssrc.to_be_bytes());
        (header, length)
    }

    /// Seals a packet into the run and remembers where it is.
    pub fn send(&mut self, packet: &Outgoing<'_>, srtp: &mut Srtp, way: &Way, runs: &mut Runs) {
        let &Outgoing { payload_type, index, rtp_time, marker, payload, unit, .. } = packet;
        let (header, length) = self.header(marker, payload_type, index, rtp_time, self.ssrc);
        let header = header.get(..length).unwrap_or_default();
        let size = length + payload.len() + srtp.overhead();
        if !runs.put(way, size, |slot| srtp.seal_rtp(header, payload, self.ssrc, index, slot)) {
            return;
        }
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(payload.len() as u32);
        self.window.sent += payload.len();
        (self.newest, self.news) = (Some((rtp_time, packet.at)), true);
        if self.rtx.is_some() {
            // Nor after a pause of so many packets that the low bits would no longer tell which.
            if self.next != index || unit.abs_diff(self.unit) > u64::from(u32::MAX >> 1) {
                self.history.clear();
            }
            if self.history.len() >= HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(Sent { unit: unit as u32, rtp_time });
            (self.next, self.unit) = (index + 1, unit);
        }
    }

    /// What was sent is of the past: it will not be sent again.
    pub fn forget(&mut self) {
        self.history.clear();
    }

    /// Sends a packet again (RFC 4588), if it is still in the ring and not too much was sent again lately.
    pub fn send_again(
        &mut self,
        again: &Again,
        ring: &Ring<Packet>,
        now: Instant,
        srtp: &mut Srtp,
        way: &Way,
        runs: &mut Runs,
    ) {
        let behind = usize::from((self.next as u16).wrapping_sub(again.sequence));
        let known = self.history.len().checked_sub(behind).and_then(|at| self.history.get(at));
        let (Some(&Sent { unit, rtp_time }), Some(ssrc)) = (known, self.rtx) else { return };
        self.window.roll(now);
        if self.window.again > self.window.sent + self.window.before {
            return;
        }
        let distance = unit.wrapping_sub(self.unit as u32) as i32;
        let packet = self.unit.checked_add_signed(distance.into()).and_then(|unit| ring.get(unit));
        let Some(packet) = packet else { return };
        let index = self.rtx_sequence;
        let marker = again.has_marker && packet.ends_unit;
        let (header, length) = self.header(marker, again.rtx_type, index, rtp_time, ssrc);
        let header = header.get(..length).unwrap_or_default();
        let mut payload = Vec::with_capacity(2 + packet.payload.len());
        payload.extend_from_slice(&again.sequence.to_be_bytes());
        payload.extend_from_slice(&packet.payload);
        let size = length + payload.len() + srtp.overhead();
        if runs.put(way, size, |slot| srtp.seal_rtp(header, &payload, ssrc, index, slot)) {
            self.rtx_sequence += 1;
            self.window.again += payload.len();
        }
    }

    /// Appends a report to `out` if one is due: never of a sender that has sent nothing since the last one. `origin` is
    /// the instant that the timeline's zero is.
    pub fn report(&mut self, now: Instant, origin: Instant, clock_rate: u32, name: &str, out: &mut Vec<u8>) {
        let rested = self.reported.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_INTERVAL);
        let Some((rtp_time, at)) = self.newest.filter(|_| self.news && rested) else { return };
        (self.reported, self.news) = (Some(now), false);
        self.window.roll(now);
        let at = origin.checked_add(at.0).unwrap_or(now);
        let since = now.saturating_duration_since(at).as_nanos();
        let ticks = (since * u128::from(clock_rate) / 1_000_000_000) as u32;
        let rtp_time = rtp_time.wrapping_add(ticks);
        Report { ssrc: self.ssrc, ntp: ntp(now), rtp_time, packets: self.packets, bytes: self.bytes }
            .write(name, out);
    }
}

/// An instant as an NTP timestamp, on the wall clock as it was when the program asked first: it never jumps.
pub fn ntp(at: Instant) -> u64 {
    static BASE: OnceLock<(Instant, Duration)> = OnceLock::new();
    let (base, wall) = BASE
        .get_or_init(|| (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()));
    let since = match at.checked_duration_since(*base) {
        Some(later) => wall.saturating_add(later),
        None => wall.saturating_sub(base.saturating_duration_since(at)),
    };
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs() + NTP_OFFSET) << 32 | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mid_goes_into_a_one_byte_extension() {
        let sender = Sender::new(9, None, Some((3, "0")));
        let (header, length) = sender.header(true, 96, 0x1_0002, 5, 9);
        assert_eq!(
            header[..length],
            [0x90, 0xe0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9, 0xbe, 0xde, 0, 1, 0x30, b'0', 0, 0]
        );
        for length in 1..=16 {
            let sender = Sender::new(9, None, Some((14, &"abcdefghijklmnop"[..length])));
            let (header, total) = sender.header(false, 8, 0, 0, 9);
            assert_eq!((total % 4, usize::from(header[15]) * 4), (0, total - 16));
            assert_eq!(usize::from(header[16] & 0xf) + 1, length);
        }
        assert_eq!(Sender::new(9, None, None).header(false, 8, 0, 0, 9).0[0], 0x80);
    }

    #[test]
    fn ntp_time_is_the_wall_clock() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let ours = ntp(Instant::now()) as f64 / (1u64 << 32) as f64 - NTP_OFFSET as f64;
        assert!((now - ours).abs() < 5.0, "{now} {ours}");
        let at = Instant::now();
        assert_eq!(ntp(at + Duration::from_millis(500)) - ntp(at), 1 << 31);
    }
}
