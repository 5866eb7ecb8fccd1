//! Time: 32-bit RTP timestamps to one 64-bit stream timeline.
//!
//! Each track keeps its own RTP clock, widened to 64 bits ([`Stamp::rtp_time`], exact), and is placed on a timeline
//! that all tracks of the source share ([`Stamp::time`]): by arrival at first, by RTCP sender reports once they come.
//!
//! # Drift
//!
//! `time` is `rtp_time` plus an offset. The offset is left alone while `time` is within 500 ms of arrival, so a sane
//! camera's pacing is kept to the nanosecond. Beyond that it is slewed: by 5 % of the media time that passes up
//! to 2 s, by 25 % up to 10 s. More than 10 s behind arrival the track is anchored anew (a step forward); more than 10 s
//! ahead `time` all but stands still until arrival has caught up. So a clock that runs 2 % wrong stays within
//! about half a second, any other within about ten, and `time` never runs backwards on the way.

use std::time::{Duration, Instant};

/// Time since a source's timeline began. All its tracks share it; it goes on over reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamTime(pub Duration);

/// Where a packet is in time, see [`Timeline::map`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The RTP timestamp, 64 bits wide, in ticks of the track's clock.
    pub rtp_time: u64,
    /// The same instant on the timeline that all tracks share.
    pub time: StreamTime,
}

const SECOND: i64 = 1_000_000_000;
/// RTP and arrival may disagree by this much, in nanoseconds, before the track is anchored anew.
const JUMP: i64 = 10 * SECOND;
/// B-frames may lie this far behind the latest picture, in nanoseconds.
const REORDER: i64 = 2 * SECOND;
/// `time` may differ from arrival by this much, in nanoseconds, without being corrected.
const TOLERANCE: i64 = SECOND / 2;
/// Beyond this difference, in nanoseconds, the correction is a fast one.
const FAR: i64 = 2 * SECOND;
/// RTP and NTP may disagree by this much, in nanoseconds, between two sender reports.
const NTP_TOLERANCE: i64 = SECOND;
/// NTP seconds (since 1900) of 1980: an earlier clock was never set.
const NTP_1980: u64 = 2_524_521_600;
/// What a track's clock is taken for when the description gives none.
const DEFAULT_RATE: u32 = 90_000;

/// One source's timeline: persistent over reconnects.
#[derive(Debug)]
pub struct Timeline {
    origin: Instant,
    tracks: Vec<TrackClock>,
    /// The latest time handed out on any track, in nanoseconds. Never reset.
    latest: i64,
    /// Added to arrival when a track is anchored: what keeps a new connection behind everything of the old one.
    lead: Option<i64>,
    /// `time − NTP time` in nanoseconds, common to all tracks that have sender reports.
    ntp_base: Option<i64>,
}

#[derive(Debug)]
struct TrackClock {
    rate: u32,
    /// The highest time and RTP time handed out, over all connections. In nanoseconds and ticks.
    latest: i64,
    latest_rtp: u64,
    /// When the last packet arrived, in nanoseconds after the origin.
    arrived: i64,
    running: Option<Running>,
    /// A report that came before the first packet.
    early_report: Option<(u64, u32)>,
}

/// A track's state from one anchor to the next.
#[derive(Debug)]
struct Running {
    /// The last packet's timestamp, as received and widened.
    rtp: u32,
    wide: u64,
    /// The highest widened timestamp since the anchor.
    highest: u64,
    /// `time − widened RTP time`, in nanoseconds.
    offset: i64,
    report: Option<Report>,
    /// A report that contradicts the last good one. A second one that agrees with it proves that the clock was set.
    suspect: Option<Report>,
    /// The first report asked for an earlier `time`: get there quickly.
    hurry: bool,
}

/// A sender report, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Report {
    ntp: i64,
    media: i64,
}

impl Report {
    fn agrees(&self, earlier: &Report) -> bool {
        (self.ntp - self.media).saturating_sub(earlier.ntp - earlier.media).abs() <= NTP_TOLERANCE
    }
}

impl Timeline {
    /// A timeline whose zero is at `origin`.
    pub fn new(origin: Instant) -> Self {
        Timeline { origin, tracks: Vec::new(), latest: -1, lead: None, ntp_base: None }
    }

    /// A new connection begins, with one track for each clock rate (in Hz): RTP phases and sender reports of the old
    /// one are forgotten, the timeline goes on. Times of the new connection are later than all of the old one's,
    /// `rtp_time` is higher than all that was handed out on the same track.
    pub fn restart(&mut self, clock_rates: &[u32]) {
        for (index, &rate) in clock_rates.iter().enumerate() {
            let rate = if rate == 0 { DEFAULT_RATE } else { rate };
            match self.tracks.get_mut(index) {
                Some(track) => {
                    if track.rate != rate {
                        track.latest_rtp =
                            to_ticks(to_nanos(track.latest_rtp, track.rate), rate).max(track.latest_rtp);
                    }
                    track.rate = rate;
                }
                None => self.tracks.push(TrackClock::new(rate)),
            }
        }
        for track in &mut self.tracks {
            track.running = None;
            track.early_report = None;
        }
        self.lead = None;
        self.ntp_base = None;
    }

    /// Maps a packet that arrived at `arrival`.
    ///
    /// Differences of RTP timestamps are kept exactly in `rtp_time` within a connection, so pacing and the order of
    /// B-frames survive; wrap-around is handled. A timestamp that disagrees with arrival by more than 10 s, or runs back
    /// by more than 2 s, anchors the track anew at its arrival: then `time` and `rtp_time` are later than all handed
    /// out before on that track.
    pub fn map(&mut self, track: usize, rtp: u32, arrival: Instant) -> Stamp {
        let now =
            i64::try_from(arrival.saturating_duration_since(self.origin).as_nanos()).unwrap_or(i64::MAX / 4);
        let lead = *self.lead.get_or_insert_with(|| (self.latest.saturating_add(1) - now).max(0));
        let Some(clock) = self.tracks.get_mut(track) else {
            // An index that was never announced: nothing is known but its arrival.
            return Stamp { rtp_time: to_ticks(now, DEFAULT_RATE), time: stream_time(now) };
        };
        let continued = clock.continue_with(rtp, now, &mut self.ntp_base);
        let (wide, time) = continued.unwrap_or_else(|| clock.anchor(rtp, now, lead));
        clock.arrived = now;
        clock.latest = clock.latest.max(time);
        clock.latest_rtp = clock.latest_rtp.max(wide);
        self.latest = self.latest.max(time);
        if let Some((ntp, rtp)) = clock.early_report.take() {
            self.sender_report(track, ntp, rtp);
        }
        Stamp { rtp_time: wide, time: stream_time(time) }
    }

    /// Takes an RTCP sender report (RFC 3550 §6.4.1): `ntp` is its 64-bit NTP timestamp, `rtp` the same instant in the
    /// track's clock.
    ///
    /// Tracks that have reports are aligned to each other by NTP time. A track's first report steps its `time` (a step
    /// back is made by slowing down, so that `time` never runs backwards), later ones slew it by at most 1 %.
    /// `rtp_time` is never touched. Ignored: a clock that was never set (before 1980), an RTP timestamp far from the
    /// packets', NTP time that jumps (two reports that agree on the jump begin the alignment anew), and an alignment
    /// that would move a track by more than 10 s.
    pub fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32) {
        if ntp >> 32 < NTP_1980 {
            return;
        }
        let Some(clock) = self.tracks.get_mut(track) else { return };
        let rate = clock.rate;
        let Some(running) = &mut clock.running else {
            clock.early_report = Some((ntp, rtp));
            return;
        };
        let media = to_nanos(running.wide, rate).saturating_add(delta_nanos(running.rtp, rtp, rate));
        if media.abs_diff(to_nanos(running.wide, rate)) > JUMP.unsigned_abs() {
            return;
        }
        let report = Report { ntp: ntp_nanos(ntp), media };
        if running.report.as_ref().is_some_and(|last| !report.agrees(last)) {
            if !running.suspect.as_ref().is_some_and(|suspect| report.agrees(suspect)) {
                running.suspect = Some(report);
                return;
            }
            // The sender's clock was set: what it said before is worth nothing, for any track.
            for running in self.tracks.iter_mut().filter_map(|track| track.running.as_mut()) {
                running.report = None;
            }
            self.ntp_base = None;
        }
        let Some(running) = self.tracks.get_mut(track).and_then(|track| track.running.as_mut()) else {
            return;
        };
        running.suspect = None;
        let own_base = media.saturating_add(running.offset).saturating_sub(report.ntp);
        let base = *self.ntp_base.get_or_insert(own_base);
        let correction = base.saturating_sub(own_base);
        if correction.abs() > JUMP {
            return;
        }
        if running.report.replace(report).is_none() {
            running.offset += correction.max(0);
            running.hurry = correction < 0;
        }
    }
}

impl TrackClock {
    fn new(rate: u32) -> Self {
        TrackClock { rate, latest: -1, latest_rtp: 0, arrived: 0, running: None, early_report: None }
    }

    /// The next packet of the same RTP clock: its widened timestamp and its time. `None` if the clock jumped.
    fn continue_with(&mut self, rtp: u32, now: i64, ntp_base: &mut Option<i64>) -> Option<(u64, i64)> {
        let running = self.running.as_mut()?;
        let advance = delta_nanos(running.rtp, rtp, self.rate);
        let elapsed = now.saturating_sub(self.arrived);
        let wide = running.wide.saturating_add_signed(i64::from(rtp.wrapping_sub(running.rtp) as i32));
        let behind = to_nanos(running.highest, self.rate).saturating_sub(to_nanos(wide, self.rate));
        let media = to_nanos(wide, self.rate);
        let late = now.saturating_sub(media.saturating_add(running.offset));
        if advance.saturating_sub(elapsed).abs() > JUMP || behind > REORDER || late > JUMP {
            return None;
        }
        running.rtp = rtp;
        running.wide = wide;
        if wide > running.highest {
            let passed = -behind;
            running.highest = wide;
            let drift = running.follow_arrival(media, passed, now);
            if drift.abs() <= passed / 4 {
                running.follow_reports(passed, *ntp_base);
            }
            if let (Some(base), Some(_)) = (ntp_base, running.report) {
                // The tracks are aligned: they are to drift together.
                *base += drift;
            }
        }
        Some((wide, media.saturating_add(running.offset)))
    }

    /// Starts the clock at `now` (nanoseconds after the origin).
    fn anchor(&mut self, rtp: u32, now: i64, lead: i64) -> (u64, i64) {
        let lead = if self.running.is_none() { lead } else { 0 };
        let time = now.saturating_add(lead).max(self.latest.saturating_add(1));
        let wide = if self.latest < 0 {
            // Room below for pictures that are shown before the first one that is sent.
            to_ticks(now.saturating_add(JUMP), self.rate)
        } else {
            let gap = to_ticks(now.saturating_sub(self.arrived).max(0), self.rate);
            self.latest_rtp.saturating_add(gap.max(1))
        };
        self.running = Some(Running {
            rtp,
            wide,
            highest: wide,
            offset: time.saturating_sub(to_nanos(wide, self.rate)),
            report: None,
            suspect: None,
            hurry: false,
        });
        (wide, time)
    }
}

impl Running {
    /// Moves the offset towards what the last sender report asks for, while `passed` nanoseconds of media pass.
    fn follow_reports(&mut self, passed: i64, ntp_base: Option<i64>) {
        let (Some(report), Some(base)) = (self.report, ntp_base) else { return };
        let target = report.ntp.saturating_add(base).saturating_sub(report.media);
        let error = target.saturating_sub(self.offset);
        if error.abs() > JUMP {
            return;
        }
        let most = if self.hurry { passed / 2 } else { passed / 100 };
        self.offset += error.clamp(-most, most);
        self.hurry &= error < -most;
    }

    /// Moves the offset towards arrival, see the module's words on drift. Says by how much.
    fn follow_arrival(&mut self, media: i64, passed: i64, now: i64) -> i64 {
        let error = now.saturating_sub(media.saturating_add(self.offset));
        let most = match error.abs() {
            small if small <= TOLERANCE => return 0,
            moderate if moderate <= FAR => passed / 20,
            large if large <= JUMP => passed / 4,
            // Only ahead of arrival: behind it, the track was anchored anew.
            _ => passed - passed / 1024,
        };
        let drift = error.clamp(-most, most);
        self.offset += drift;
        drift
    }
}

fn stream_time(nanos: i64) -> StreamTime {
    StreamTime(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

fn to_nanos(ticks: u64, rate: u32) -> i64 {
    i64::try_from(u128::from(ticks) * SECOND as u128 / u128::from(rate.max(1))).unwrap_or(i64::MAX / 2)
}

fn to_ticks(nanos: i64, rate: u32) -> u64 {
    u64::try_from(i128::from(nanos.max(0)) * i128::from(rate) / i128::from(SECOND)).unwrap_or(u64::MAX)
}

/// How far `to` is after `from`, in nanoseconds: the shorter way round the 32-bit circle.
fn delta_nanos(from: u32, to: u32, rate: u32) -> i64 {
    i64::from(to.wrapping_sub(from) as i32) * SECOND / i64::from(rate.max(1))
}

/// A 64-bit NTP timestamp (RFC 3550 §4) in nanoseconds since 1900.
fn ntp_nanos(ntp: u64) -> i64 {
    let seconds = (ntp >> 32) as i64;
    let fraction = ((ntp & 0xffff_ffff) * SECOND as u64) >> 32;
    seconds * SECOND + fraction as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: u32 = 90_000;
    const NTP: u64 = 3_900_000_000 << 32;

    fn timeline(rates: &[u32]) -> (Instant, Timeline) {
        let origin = Instant::now();
        let mut timeline = Timeline::new(origin);
        timeline.restart(rates);
        (origin, timeline)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn ntp_at(millis: u64) -> u64 {
        NTP + ((millis << 32) / 1000)
    }

    /// `time − arrival` in milliseconds.
    fn ahead(stamp: Stamp, origin: Instant, arrival: Instant) -> i64 {
        stamp.time.0.as_millis() as i64 - arrival.duration_since(origin).as_millis() as i64
    }

    #[test]
    fn first_packet_is_placed_at_its_arrival() {
        let (origin, mut timeline) = timeline(&[VIDEO]);
        assert_eq!(timeline.map(0, 12345, origin + ms(700)).time, StreamTime(ms(700)));
    }

    #[test]
    fn rtp_differences_survive_jitter_b_frames_and_wrap_around() {
        let (origin, mut timeline) = timeline(&[VIDEO]);
        let first = 0u32.wrapping_sub(4 * 3600);
        let base = timeline.map(0, first, origin + ms(500));
        // Shown 0, 3, 1, 2, 6, 4, 5 …, sent in this order and arriving unevenly.
        for (sent, shown) in [0u32, 3, 1, 2, 6, 4, 5, 9, 7, 8].into_iter().enumerate().skip(1) {
            let jitter = [0, 30, 7, 90, 12][sent % 5];
            let stamp = timeline.map(
                0,
                first.wrapping_add(shown * 3600),
                origin + ms(500 + 40 * sent as u64 + jitter),
            );
            assert_eq!(stamp.rtp_time, base.rtp_time + u64::from(shown) * 3600);
            assert_eq!(stamp.time.0, base.time.0 + ms(40 * u64::from(shown)));
        }
    }

    #[test]
    fn pictures_before_the_first_one_have_room() {
        let (origin, mut timeline) = timeline(&[VIDEO]);
        let base = timeline.map(0, 100, origin);
        let leading = timeline.map(0, 100u32.wrapping_sub(3600), origin + ms(1));
        assert_eq!(leading.rtp_time + 3600, base.rtp_time);
    }

    #[test]
    fn reconnect_continues_later_than_everything_before() {
        let (origin, mut timeline) = timeline(&[VIDEO, 8000]);
        // A cached GOP in a burst: media time runs four seconds ahead of arrival.
        let mut last = timeline.map(0, 0, origin);
        for frame in 1..100 {
            last = timeline.map(0, frame * 3600, origin + ms(10));
        }
        let sound = timeline.map(1, 0, origin + ms(10));
        timeline.restart(&[VIDEO, 8000]);
        let again = timeline.map(0, 77, origin + ms(1000));
        let sound_again = timeline.map(1, 5, origin + ms(1020));
        assert!(again.time > last.time && again.rtp_time > last.rtp_time);
        assert!(sound_again.time > last.time && sound_again.rtp_time > sound.rtp_time);
        assert_eq!(sound_again.time.0 - again.time.0, ms(20), "tracks keep their distance");
    }

    #[test]
    fn timestamp_jumps_are_anchored_at_arrival() {
        for jump in [90_000i32 * 60, -90_000 * 60, -90_000 * 5, i32::MAX] {
            let (origin, mut timeline) = timeline(&[VIDEO]);
            let mut rtp = 1000u32;
            timeline.map(0, rtp, origin);
            rtp += 3600;
            let before = timeline.map(0, rtp, origin + ms(40));
            rtp = rtp.wrapping_add_signed(jump);
            let after = timeline.map(0, rtp, origin + ms(80));
            assert_eq!(after.time, StreamTime(ms(80)), "{jump}");
            assert_eq!(after.rtp_time, before.rtp_time + 3600, "{jump}");
            let next = timeline.map(0, rtp.wrapping_add(3600), origin + ms(120));
            assert_eq!(next.rtp_time, after.rtp_time + 3600);
        }
    }

    #[test]
    fn wrong_clock_rates_do_not_drift_away() {
        for (per_second, bound) in
            [(91_800u32, 700), (88_200, 700), (135_000, 10_100), (45_000, 10_100), (1_800_000, 11_000)]
        {
            let (origin, mut timeline) = timeline(&[VIDEO]);
            let mut last = None;
            for frame in 0..25 * 1200u64 {
                let arrival = origin + ms(frame * 40);
                let rtp = (frame * u64::from(per_second) / 25) as u32;
                let stamp = timeline.map(0, rtp, arrival);
                let off = ahead(stamp, origin, arrival);
                assert!(off.abs() <= bound, "{per_second}: {off} ms at {frame}");
                if let Some(last) = last.replace(stamp) {
                    assert!(stamp.time > last.time && stamp.rtp_time > last.rtp_time);
                }
            }
        }
    }

    #[test]
    fn sender_reports_align_sound_and_picture() {
        for (skew, label) in [(300i64, "sound was late"), (-300, "sound was early")] {
            let (origin, mut timeline) = timeline(&[VIDEO, 8000]);
            let mut last = StreamTime::default();
            let mut offsets = (0, 0);
            for step in 0..100u64 {
                let arrival = origin + ms(1000 + step * 20);
                let picture = timeline.map(0, (step * 1800) as u32, arrival);
                let sound = timeline.map(1, (step * 160) as u32, arrival);
                assert!(sound.time > last, "{label}: time ran backwards");
                last = sound.time;
                offsets = (ahead(picture, origin, arrival), ahead(sound, origin, arrival));
                if step % 10 == 5 {
                    let now = 10_000 + step * 20;
                    timeline.sender_report(0, ntp_at(now), (step * 1800) as u32);
                    timeline.sender_report(1, ntp_at(now.saturating_add_signed(skew)), (step * 160) as u32);
                }
            }
            assert_eq!(offsets.0, 0, "the first track with a report stays");
            assert!((offsets.1 - skew).abs() <= 1, "{label}: {}", offsets.1);
        }
    }

    #[test]
    fn tracks_stay_together_for_hours_though_their_clocks_run_apart() {
        let (origin, mut timeline) = timeline(&[VIDEO, 8000]);
        let ticks = |millis: u64, rate: f64| (millis as f64 * rate / 1000.0) as u64 as u32;
        for step in 0..4 * 3600 * 50u64 {
            let millis = step * 20;
            let arrival = origin + ms(millis + [0, 7, 3, 11][step as usize % 4]);
            let (picture, sound) = (ticks(millis, 90_000.0 * 1.0002), ticks(millis, 8000.0 * 0.99985));
            let times = [timeline.map(0, picture, arrival).time.0, timeline.map(1, sound, arrival).time.0];
            if step % 250 == 0 {
                timeline.sender_report(0, ntp_at(millis), picture);
                timeline.sender_report(1, ntp_at(millis), sound);
            }
            let apart = times[0].abs_diff(times[1]);
            assert!(step < 100 || apart < ms(10), "{apart:?} after {millis} ms");
        }
    }

    #[test]
    fn later_reports_slew_gently() {
        let (origin, mut timeline) = timeline(&[VIDEO, 8000]);
        timeline.map(0, 0, origin);
        timeline.map(1, 0, origin);
        timeline.sender_report(0, ntp_at(0), 0);
        timeline.sender_report(1, ntp_at(0), 0);
        timeline.sender_report(1, ntp_at(100), 0);
        let after = timeline.map(1, 8000, origin + ms(1000));
        assert_eq!(ahead(after, origin, origin + ms(1000)), 10);
    }

    #[test]
    fn nonsense_in_reports_is_ignored() {
        let (origin, mut timeline) = timeline(&[VIDEO, 8000]);
        timeline.sender_report(7, NTP, 0);
        timeline.map(0, 0, origin);
        timeline.map(1, 0, origin);
        timeline.sender_report(0, NTP, 0);
        timeline.sender_report(1, 0, 0);
        timeline.sender_report(1, 2_208_988_800 << 32, 0);
        timeline.sender_report(1, NTP, 0x8000_0000);
        timeline.sender_report(1, ntp_at(3_600_000), 0);
        let sound = timeline.map(1, 160, origin + ms(20));
        assert_eq!(sound.time, StreamTime(ms(20)));
        // One report that jumps, then a good one again.
        timeline.sender_report(0, ntp_at(5000), 0);
        timeline.sender_report(0, NTP, 0);
        timeline.sender_report(1, NTP, 0);
        assert_eq!(timeline.map(1, 320, origin + ms(40)).time, StreamTime(ms(40)));
    }

    #[test]
    fn senders_clock_may_be_set() {
        let (origin, mut timeline) = timeline(&[VIDEO, 8000]);
        timeline.map(0, 0, origin);
        timeline.map(1, 0, origin);
        for offset in [0, 3_600_000, 3_600_000] {
            timeline.sender_report(0, ntp_at(offset), 0);
            timeline.sender_report(1, ntp_at(offset), 0);
        }
        timeline.sender_report(1, ntp_at(3_600_000), 0);
        assert_eq!(timeline.map(1, 160, origin + ms(20)).time, StreamTime(ms(20)));
    }

    #[test]
    fn unannounced_tracks_and_zero_rates_are_survived() {
        let (origin, mut timeline) = timeline(&[0]);
        assert_eq!(timeline.map(9, 5, origin + ms(3)).time, StreamTime(ms(3)));
        let first = timeline.map(0, 0, origin);
        assert_eq!(timeline.map(0, 90, origin).rtp_time, first.rtp_time + 90);
    }
}
