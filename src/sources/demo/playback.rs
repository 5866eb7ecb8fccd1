//! One client's playing of the clip: which bytes are due when. Pure code: the clocks are handed in.

use super::clip::Clip;
use super::lineup::Running;
use crate::media::rtp::header::{
    Header, SenderReport, ntp_timestamp, write_description, write_sender_report,
};
use crate::media::stamp;
use crate::rtsp::framing::interleave;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// How often a sender report tells how the tracks' clocks go together (RFC 3550 §6.2: at least 5 s apart).
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Interleaved channels (RFC 2326 §10.12) of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// For RTP.
    pub rtp: u8,
    /// For RTCP.
    pub rtcp: u8,
}

/// A position in the clip, and what RTP must remember of each track.
#[derive(Debug)]
pub struct Playback {
    clip: Arc<Clip>,
    /// One for each track of the clip; `None` is not played.
    tracks: Vec<Option<Outgoing>>,
    started: Instant,
    started_wall: SystemTime,
    /// How often the clip has been played to its end.
    turns: u32,
    /// Index of the next unit.
    next: usize,
    next_report: Duration,
    /// When the camera falls silent.
    until: Option<Instant>,
}

/// One track's RTP stream.
#[derive(Debug)]
struct Outgoing {
    channels: Channels,
    payload_type: u8,
    clock_rate: u32,
    ssrc: u32,
    sequence: u16,
    /// Timestamp of the clip's beginning; random, as RFC 3550 §5.1 wants it.
    first_timestamp: u32,
    packets: u32,
    octets: u32,
}

/// The payload type of a track.
pub fn payload_type(track: usize) -> u8 {
    96 + (track as u8 & 31)
}

impl Playback {
    /// Begins where the camera is: at the clip's first unit, if it runs since now. `channels` has one entry for each
    /// track.
    pub fn start(
        clip: Arc<Clip>,
        channels: &[Option<Channels>],
        running: Running,
        now: Instant,
        wall: SystemTime,
    ) -> Playback {
        let outgoing = |track: usize, channels: Channels| Outgoing {
            channels,
            payload_type: payload_type(track),
            clock_rate: clip.tracks.get(track).map_or(1, |track| track.clock_rate),
            ssrc: rand::random(),
            sequence: rand::random(),
            first_timestamp: rand::random(),
            packets: 0,
            octets: 0,
        };
        let tracks =
            channels.iter().enumerate().map(|(n, channels)| channels.map(|c| outgoing(n, c))).collect();
        let ran = now.saturating_duration_since(running.since);
        let turns = ran.as_nanos().checked_div(clip.period.as_nanos()).unwrap_or_default() as u32;
        let within = ran.saturating_sub(clip.period.saturating_mul(turns));
        let next = clip.units.partition_point(|unit| unit.at < within);
        let (turns, next) = if next < clip.units.len() { (turns, next) } else { (turns + 1, 0) };
        let started_wall = wall.checked_sub(ran).unwrap_or(wall);
        let (started, until) = (running.since, running.until);
        let next_report = Duration::ZERO;
        let mut playback = Playback { clip, tracks, started, started_wall, turns, next, next_report, until };
        playback.next_report = playback.position();
        playback
    }

    /// When the next unit is to be sent: counted from the start, so that late wake-ups don't add up. `None`: never.
    pub fn due(&self) -> Option<Instant> {
        let due = self.started + self.position();
        self.until.is_none_or(|until| due < until).then_some(due)
    }

    /// Appends what is due next: an access unit's packets, and the sender reports when it is time for them. `now` is
    /// what is stamped into frames.
    pub fn write_next(&mut self, now: SystemTime, out: &mut Vec<u8>) {
        let position = self.position();
        if position >= self.next_report {
            self.next_report += REPORT_EVERY;
            self.write_reports(position, out);
        }
        let Some(unit) = self.clip.units.get(self.next) else { return };
        if let Some(Some(track)) = self.tracks.get_mut(unit.track) {
            // Whole turns in ticks, so that nothing is lost by rounding however long it plays.
            let turns = ticks(self.clip.period, track.clock_rate).wrapping_mul(self.turns);
            for (index, packet) in unit.packets.iter().enumerate() {
                let header = Header {
                    payload_type: track.payload_type,
                    sequence: track.sequence,
                    timestamp: track.first_timestamp.wrapping_add(turns).wrapping_add(packet.rtp_time as u32),
                    ssrc: track.ssrc,
                    marker: packet.ends_unit,
                };
                interleave(track.channels.rtp, out, |out| {
                    header.write(out);
                    if unit.stamp == Some(index) {
                        out.extend_from_slice(&stamp::sei(now));
                    } else {
                        out.extend_from_slice(&packet.payload);
                    }
                });
                track.sequence = track.sequence.wrapping_add(1);
                track.packets = track.packets.wrapping_add(1);
                track.octets = track.octets.wrapping_add(packet.payload.len() as u32);
            }
        }
        self.next += 1;
        if self.next >= self.clip.units.len() {
            self.next = 0;
            self.turns = self.turns.wrapping_add(1);
        }
    }

    /// Each played track's number, next sequence number and timestamp, for `RTP-Info` (RFC 2326 §12.33).
    pub fn rtp_info(&self) -> impl Iterator<Item = (usize, u16, u32)> {
        let at = self.position();
        let played = self.tracks.iter().enumerate().filter_map(|(n, track)| Some((n, track.as_ref()?)));
        played.map(move |(n, track)| {
            (n, track.sequence, track.first_timestamp.wrapping_add(ticks(at, track.clock_rate)))
        })
    }

    fn position(&self) -> Duration {
        let at = self.clip.units.get(self.next).map_or(Duration::ZERO, |unit| unit.at);
        self.clip.period.saturating_mul(self.turns).saturating_add(at)
    }

    fn write_reports(&self, position: Duration, out: &mut Vec<u8>) {
        let ntp = ntp_timestamp(self.started_wall + position);
        for track in self.tracks.iter().flatten() {
            let rtp = track.first_timestamp.wrapping_add(ticks(position, track.clock_rate));
            let report = SenderReport { ssrc: track.ssrc, ntp, rtp };
            interleave(track.channels.rtcp, out, |out| {
                write_sender_report(&report, track.packets, track.octets, out);
                write_description(track.ssrc, "demo", out);
            });
        }
    }
}

/// A duration in ticks of a clock, modulo 2³² as RTP counts.
fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    (duration.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::super::CLIP;
    use super::*;
    use crate::media::rtp::header::{parse, sender_reports};
    use std::time::UNIX_EPOCH;

    const NTP_TO_UNIX: u64 = 2_208_988_800;

    const CHANNELS: [Option<Channels>; 2] =
        [Some(Channels { rtp: 0, rtcp: 1 }), Some(Channels { rtp: 6, rtcp: 7 })];

    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(500)
    }

    /// What comes in the given time: channel and packet, with the time it is due after the start.
    fn play(channels: &[Option<Channels>], length: Duration) -> Vec<(Duration, u8, Vec<u8>)> {
        let now = Instant::now();
        let clip = Arc::new(Clip::read(CLIP).expect("reads"));
        let mut playback = Playback::start(clip, channels, Running::since(now), now, wall());
        let mut packets = Vec::new();
        while let Some(due) = playback.due().filter(|due| *due < now + length) {
            let (due, mut bytes) = (due - now, Vec::new());
            playback.write_next(wall(), &mut bytes);
            let mut rest = bytes.as_slice();
            while let [b'$', channel, high, low, after @ ..] = rest {
                let (packet, more) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                packets.push((due, *channel, packet.to_vec()));
                rest = more;
            }
            assert!(rest.is_empty());
        }
        packets
    }

    #[test]
    fn timestamps_and_sequence_numbers_go_on_over_the_seam() {
        let packets = play(&CHANNELS, Duration::from_secs(25));
        for (channel, clock_rate, ticks) in [(0, 90_000_u64, 3000), (6, 48_000, 960)] {
            let rtp: Vec<_> = packets.iter().filter(|p| p.1 == channel).collect();
            let headers: Vec<_> = rtp.iter().map(|p| (p.0, parse(&p.2).expect("RTP").0)).collect();
            let first = headers[0].1;
            for pair in headers.windows(2) {
                assert_eq!(pair[1].1.sequence, pair[0].1.sequence.wrapping_add(1));
                let step = pair[1].1.timestamp.wrapping_sub(pair[0].1.timestamp);
                assert_eq!(step, if pair[0].1.marker { ticks } else { 0 });
            }
            for (due, header) in &headers {
                let media =
                    u64::from(header.timestamp.wrapping_sub(first.timestamp)) * 1_000_000 / clock_rate;
                assert!(u128::from(media).abs_diff(due.as_micros()) <= 1, "{media} {due:?}");
            }
            assert_eq!(
                headers.iter().filter(|h| h.1.marker).count() as u64,
                25 * clock_rate / u64::from(ticks)
            );
        }
    }

    #[test]
    fn sender_reports_tie_the_tracks_to_one_clock_every_five_seconds() {
        let packets = play(&CHANNELS, Duration::from_secs(21));
        for (rtp, rtcp, clock_rate) in [(0, 1, 90_000), (6, 7, 48_000)] {
            let first =
                packets.iter().find(|p| p.1 == rtp).and_then(|p| parse(&p.2)).expect("RTP").0.timestamp;
            let reports: Vec<_> =
                packets.iter().filter(|p| p.1 == rtcp).flat_map(|p| sender_reports(&p.2)).collect();
            assert_eq!(reports.len(), 5);
            for (report, n) in reports.iter().zip(0..) {
                assert_eq!(report.ntp, (NTP_TO_UNIX + u64::from(n) * 5) << 32 | 1 << 31);
                assert_eq!(report.rtp.wrapping_sub(first), n * 5 * clock_rate);
            }
        }
    }

    #[test]
    fn a_track_that_was_not_set_up_is_not_sent() {
        let packets = play(&[None, CHANNELS[1]], Duration::from_secs(1));
        assert!(packets.len() > 49 && packets.iter().all(|p| p.1 == 6 || p.1 == 7));
    }
}
