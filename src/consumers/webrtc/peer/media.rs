//! What one viewer is sent: the GOP to begin with, live media, pictures that are too large to be sent at once.

use super::super::answer::STREAM_LABEL;
use super::super::end::End;
use super::super::lane::{Lane, Waiting};
use super::super::pacing;
use super::super::send::{Runs, Way};
use super::super::sender::Outgoing;
use super::super::worker::SourceKey;
use super::Peer;
use crate::graph::{Batch, Epoch};
use crate::media::{Kind, Packet, StreamTime};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A connection that is behind is looked at again after this time.
const CONGESTED_INTERVAL: Duration = Duration::from_millis(10);
/// What waits for longer is given up; the next keyframe is a better start.
const QUEUE_DEADLINE: Duration = Duration::from_secs(3);
/// GOPs larger than this are not sent at once: the viewer waits for the next keyframe.
const MAX_START: usize = 16 << 20;
/// The same for a viewer that lost its picture.
const MAX_REPLAY: usize = 4 << 20;
/// A lost picture is healed at most so often.
const REPLAY_INTERVAL: Duration = Duration::from_secs(1);
/// A keyframe that is due within this time heals by itself.
const KEYFRAME_NEAR: Duration = Duration::from_millis(300);
/// The API's counters are shared memory: they are written this often, not for each picture.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);
/// Sender reports tie timestamps to instants of the past; compressed timestamps run ahead by less than this.
const CLOCK_MARGIN: Duration = Duration::from_secs(1);

impl Peer {
    /// Stops the media, or goes on with the cached GOP. The session itself stays up.
    pub fn set_paused(&mut self, paused: bool) {
        if std::mem::replace(&mut self.paused, paused) == paused {
            return;
        }
        self.forget_queue();
        for lane in self.lanes.iter_mut().filter(|lane| lane.setup.kind == Kind::Video) {
            lane.waiting = Waiting::Start;
        }
        self.needs.media |= !paused && self.connected;
    }

    /// Sends the GOP that the source has cached, so that the picture appears at once. The backlog ends where the
    /// source's cursor is.
    pub fn begin(
        &mut self,
        source: SourceKey,
        backlog: &Batch,
        packets: &[Packet],
        now: Instant,
        runs: &mut Runs,
    ) {
        if self.enter(source, &backlog.epoch) && !self.paused {
            self.queue_gop(source, backlog, packets, MAX_START, now);
            self.pump_if_due(now, runs);
            self.settle(now, runs);
        }
    }

    /// Sends the newest GOP again, to a viewer that lost its picture.
    pub fn replay(
        &mut self,
        source: SourceKey,
        backlog: &Batch,
        packets: &[Packet],
        now: Instant,
        runs: &mut Runs,
    ) {
        if self.queue_gop(source, backlog, packets, MAX_REPLAY, now) {
            self.replayed = Some(now);
            self.pump_if_due(now, runs);
            self.settle(now, runs);
        }
    }

    /// Queues a GOP's video with compressed timestamps. False if it is too large or not there.
    fn queue_gop(
        &mut self,
        source: SourceKey,
        backlog: &Batch,
        packets: &[Packet],
        limit: usize,
        now: Instant,
    ) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|l| l.setup.kind == Kind::Video && l.source == source)
        else {
            return false;
        };
        let video = || packets.iter().filter(|packet| lane.carries(packet));
        let bytes: usize = video().map(|packet| packet.payload.len()).sum();
        let (Some(first), Some(newest)) = (video().next(), video().next_back().cloned()) else {
            return false;
        };
        if bytes > limit || !(first.keyframe && first.starts_unit) {
            return false;
        }
        let units = video().filter(|packet| packet.starts_unit).count() as u64;
        let numbered = (backlog.first..).zip(packets).filter(|(_, packet)| lane.carries(packet));
        self.queue.extend(numbered.map(|(unit, packet)| (unit, packet.clone())));
        lane.compress(units, newest.rtp_time);
        lane.waiting = Waiting::No;
        (self.queued_bytes, self.queue_began, self.queue_next) = (self.queued_bytes + bytes, now, Some(now));
        self.set_origin(&newest, now);
        true
    }

    fn set_origin(&mut self, newest: &Packet, now: Instant) {
        if self.origin.is_none() {
            self.origin = now.checked_sub(newest.time.0.saturating_add(CLOCK_MARGIN)).or(Some(now));
        }
    }

    /// Enters an epoch with all lanes of a source. False if that ended the session.
    fn enter(&mut self, source: SourceKey, epoch: &Epoch) -> bool {
        let (mut any, mut video_lost, mut outdated) = (false, false, false);
        for lane in &mut self.lanes {
            let (before, video) = (lane.epoch(), lane.setup.kind == Kind::Video);
            let fits = if lane.source == source { lane.enter(epoch) } else { true };
            outdated |= video && before != lane.epoch();
            any |= fits;
            video_lost |= !fits && video;
        }
        if outdated {
            // What is still to be sent is of a codec or of parameter sets that are past.
            self.forget_queue();
        }
        if video_lost || !any {
            self.set_ended(End::CodecChanged);
        }
        self.end.is_none()
    }

    /// Nothing waits any more. A GOP's worth of memory is not kept for the next time.
    fn forget_queue(&mut self) {
        (self.queue, self.queued_bytes, self.queue_next) = (VecDeque::new(), 0, None);
        self.pacer.waiting(0);
    }

    /// Sends what a source has brought.
    pub fn deliver(
        &mut self,
        source: SourceKey,
        batch: &Batch,
        packets: &[Packet],
        now: Instant,
        runs: &mut Runs,
    ) {
        if !self.enter(source, &batch.epoch) || self.paused {
            return;
        }
        let Some(way) = self.paths.way() else { return };
        for (unit, packet) in (batch.first..).zip(packets) {
            let Some(lane) = self.lanes.iter().position(|l| l.source == source && l.carries(packet)) else {
                continue;
            };
            self.send_live(lane, unit, packet, now, &way, runs);
        }
        self.pump_if_due(now, runs);
        self.settle(now, runs);
    }

    fn send_live(
        &mut self,
        lane: usize,
        unit: u64,
        packet: &Packet,
        now: Instant,
        way: &Way,
        runs: &mut Runs,
    ) {
        let keyframe = packet.keyframe && packet.starts_unit;
        if keyframe {
            self.gop = self.keyframe_at.map(|last| now.saturating_duration_since(last)).or(self.gop);
            self.keyframe_at = Some(now);
        }
        let congested = packet.starts_unit && is_congested(way);
        let Some(Lane { setup, waiting, .. }) = self.lanes.get_mut(lane) else { return };
        if setup.kind == Kind::Video {
            if *waiting != Waiting::No {
                if !keyframe || congested {
                    self.sent.2 += u64::from(*waiting == Waiting::Behind);
                    return;
                }
                *waiting = Waiting::No;
            }
            if !self.queue.is_empty() {
                if now.saturating_duration_since(self.queue_began) <= QUEUE_DEADLINE {
                    return self.enqueue(unit, packet);
                }
                if packet.starts_unit {
                    self.give_up_queue(lane, way, runs);
                }
                if !keyframe {
                    self.sent.2 += 1;
                    return;
                }
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.waiting = Waiting::No;
                }
            } else if congested {
                // Never half a unit: what began is finished, what begins waits for a keyframe.
                *waiting = Waiting::Behind;
                self.sent.2 += 1;
                return;
            }
            if !self.pacer.take(packet.payload.len(), now) {
                (self.queue_began, self.queue_next) = (now, Some(now + pacing::INTERVAL));
                return self.enqueue(unit, packet);
            }
        }
        self.set_origin(packet, now);
        self.write(lane, unit, packet, way, runs);
    }

    fn enqueue(&mut self, unit: u64, packet: &Packet) {
        self.queued_bytes += packet.payload.len();
        self.queue.push_back((unit, packet.clone()));
    }

    /// Drops what waits, up to the end of the unit that is half sent.
    fn give_up_queue(&mut self, lane: usize, way: &Way, runs: &mut Runs) {
        let keep = self.queue.iter().position(|(_, packet)| packet.starts_unit).unwrap_or(self.queue.len());
        self.sent.2 += (self.queue.len() - keep) as u64;
        let rest: Vec<(u64, Packet)> = self.queue.drain(..).take(keep).collect();
        for (unit, packet) in &rest {
            self.write(lane, *unit, packet, way, runs);
        }
        (self.queued_bytes, self.queue_next) = (0, None);
        self.pacer.waiting(0);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.waiting = Waiting::Behind;
        }
    }

    /// Sends of what waits as much as may go now.
    pub(super) fn pump_if_due(&mut self, now: Instant, runs: &mut Runs) {
        if self.queue_next.is_none_or(|at| at > now) {
            return;
        }
        let Some(way) = self.paths.way() else {
            self.queue_next = Some(now + CONGESTED_INTERVAL);
            return;
        };
        let congested = is_congested(&way);
        self.pacer.waiting(self.queued_bytes);
        let lane = self.lanes.iter().position(|lane| lane.setup.kind == Kind::Video);
        if let Some(lane) = lane.filter(|_| !congested) {
            while let Some(size) = self.queue.front().map(|(_, packet)| packet.payload.len()) {
                if !self.pacer.take(size, now) {
                    break;
                }
                let Some((unit, packet)) = self.queue.pop_front() else { break };
                self.queued_bytes = self.queued_bytes.saturating_sub(size);
                self.write(lane, unit, &packet, &way, runs);
            }
        }
        if self.queue.is_empty() {
            return self.forget_queue();
        }
        self.queue_next = Some(now + if congested { CONGESTED_INTERVAL } else { pacing::INTERVAL });
    }

    fn write(&mut self, lane: usize, unit: u64, packet: &Packet, way: &Way, runs: &mut Runs) {
        let (Some(lane), Some(srtp)) = (self.lanes.get_mut(lane), &mut self.srtp) else { return };
        let stamp = lane.stamp(packet);
        let outgoing = Outgoing {
            payload_type: stamp.encoding.payload_type,
            index: stamp.sequence,
            rtp_time: stamp.rtp_time,
            marker: lane.setup.kind == Kind::Video && packet.ends_unit,
            at: StreamTime(packet.time.0.saturating_add(stamp.shift)),
            unit,
            payload: &packet.payload,
        };
        lane.sender.send(&outgoing, srtp, way, runs);
        self.sent.0 += packet.payload.len() as u64;
        self.sent.1 += 1;
    }

    /// After media was sent: the reports that are due, the runs, the counts.
    pub(super) fn settle(&mut self, now: Instant, runs: &mut Runs) {
        let mut report = Vec::new();
        for lane in &mut self.lanes {
            lane.sender.report(now, self.origin.unwrap_or(now), lane.clock_rate, STREAM_LABEL, &mut report);
        }
        if !report.is_empty()
            && let (Some(srtp), Some(way)) = (&mut self.srtp, self.paths.way())
            && let Some(sealed) = srtp.seal_rtcp(&report)
        {
            runs.push(&way, &sealed);
        }
        runs.flush();
        if now >= self.count_next {
            self.count_next = now + COUNT_INTERVAL;
            self.count();
        }
    }

    /// Adds what was sent to what the API tells.
    pub(super) fn count(&mut self) {
        let (bytes, packets, drops) = std::mem::take(&mut self.sent);
        for (counter, more) in
            [(&self.consumer.bytes, bytes), (&self.consumer.packets, packets), (&self.consumer.drops, drops)]
        {
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Whether the cached GOP heals a lost picture sooner than the next keyframe will.
    pub(super) fn replay_helps(&self, now: Instant) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.setup.kind == Kind::Video);
        let playing = lane.is_some_and(|lane| lane.sender.has_sent() && lane.waiting == Waiting::No);
        let rested = self.replayed.is_none_or(|at| now.saturating_duration_since(at) >= REPLAY_INTERVAL);
        let due = self.keyframe_at.zip(self.gop).map(|(last, gop)| last + gop);
        let near = due.is_some_and(|due| due > now && due - now < KEYFRAME_NEAR);
        playing && rested && !near && self.queue.is_empty()
    }
}

fn is_congested(way: &Way) -> bool {
    matches!(way, Way::Tcp(tcp) if tcp.is_congested())
}
