//! One viewer: a str0m instance, what it is sent and in which order.

use super::demux::{Counters, Demux, Registration};
use super::end::End;
use super::lane::{Lane, Waiting};
use super::paths::{INSIDE, Paths};
use super::send::Runs;
use super::worker::{Inbound, SourceKey};
use crate::graph::{Batch, ConsumerGuard, Epoch};
use crate::media::{Kind, Packet};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Event, IceCreds, Input, Output, Rtc};
use tokio::sync::OwnedSemaphorePermit;

/// A viewer that is not heard of for so long is gone. Browsers check connectivity every 2.5 to 6 s and report
/// reception every second or so.
const SILENCE: Duration = Duration::from_secs(8);
/// A session that has not connected by then never will.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// A GOP is sent in bursts that a receiver's socket buffer survives: 64 packets every 2 ms, some 300 Mbit/s.
const BURST_PACKETS: usize = 64;
const BURST_INTERVAL: Duration = Duration::from_millis(2);
/// A connection that is behind is looked at again after this time.
const CONGESTED_INTERVAL: Duration = Duration::from_millis(10);
/// A burst that is not through by then is given up; the next keyframe is a better start.
const BURST_DEADLINE: Duration = Duration::from_secs(3);
/// GOPs larger than this are not sent at once: the viewer waits for the next keyframe.
const MAX_START: usize = 16 << 20;
/// The same for a viewer that lost its picture.
const MAX_REPLAY: usize = 4 << 20;
/// A lost picture is healed at most so often.
const REPLAY_INTERVAL: Duration = Duration::from_secs(1);
/// A keyframe that is due within this time heals by itself.
const KEYFRAME_NEAR: Duration = Duration::from_millis(300);
/// Sender reports tie timestamps to instants of the past; compressed timestamps run ahead by less than this.
const CLOCK_MARGIN: Duration = Duration::from_secs(1);
/// Packets that are kept for retransmission: a second, or a burst.
const RTX_PACKETS: usize = 1024;
const RTX_AGE: Duration = Duration::from_secs(1);
/// More retransmissions than this share of all bytes help nobody.
const RTX_RATIO: f32 = 0.5;
/// Errors in a row that a connected peer survives.
const MAX_ERRORS: u32 = 16;

/// What a peer needs its worker for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// It has connected: media may flow.
    pub media: bool,
    /// It lost its picture: the newest GOP again.
    pub replay: bool,
}

/// What a peer is made of.
pub struct PeerSetup {
    /// Its number, unique in the process.
    pub id: u64,
    /// The stream's name, for the log.
    pub stream: String,
    /// Negotiated, no candidates yet.
    pub rtc: Rtc,
    /// Keeps it listed as a consumer.
    pub consumer: ConsumerGuard,
    /// Keeps it routed.
    pub registration: Registration,
    /// Counts it against the limit.
    pub permit: OwnedSemaphorePermit,
    /// What it is sent.
    pub lanes: Vec<Lane>,
}

/// One viewer.
pub struct Peer {
    /// Its number, unique in the process.
    pub id: u64,
    /// When the worker's timer heap has it next.
    pub scheduled: Option<Instant>,
    stream: String,
    rtc: Rtc,
    consumer: ConsumerGuard,
    registration: Registration,
    _permit: OwnedSemaphorePermit,
    lanes: Vec<Lane>,
    paths: Paths,
    connected: bool,
    created: Instant,
    heard: Instant,
    timeout: Instant,
    errors: u32,
    end: Option<End>,
    needs: Needs,
    burst: VecDeque<Packet>,
    burst_began: Instant,
    burst_next: Option<Instant>,
    replayed: Option<Instant>,
    keyframe_at: Option<Instant>,
    gop: Option<Duration>,
    /// The instant that stream time zero is for this viewer's sender reports.
    origin: Option<Instant>,
    sent: (u64, u64, u64),
}

impl Peer {
    /// A peer that waits for the viewer's first check.
    pub fn new(setup: PeerSetup, now: Instant) -> Peer {
        let PeerSetup { id, stream, rtc, consumer, registration, permit, lanes } = setup;
        Peer {
            id,
            scheduled: None,
            stream,
            rtc,
            consumer,
            registration,
            _permit: permit,
            lanes,
            paths: Paths::default(),
            connected: false,
            created: now,
            heard: now,
            timeout: now,
            errors: 0,
            end: None,
            needs: Needs::default(),
            burst: VecDeque::new(),
            burst_began: now,
            burst_next: None,
            replayed: None,
            keyframe_at: None,
            gop: None,
            origin: None,
            sent: (0, 0, 0),
        }
    }

    /// Why it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.end
    }

    /// Ends it with the next look at it.
    pub fn set_ended(&mut self, end: End) {
        self.end.get_or_insert(end);
    }

    /// Ends it if its video comes from this source, which has B-frames.
    pub fn end_for_b_frames(&mut self, source: SourceKey) {
        if self.lanes.iter().any(|lane| lane.source == source && lane.setup.kind == Kind::Video) {
            self.set_ended(End::Reordered);
        }
    }

    /// What it needs, once.
    pub fn take_needs(&mut self) -> Needs {
        std::mem::take(&mut self.needs)
    }

    /// Its audio and video.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// When it wants [`Self::on_timer`] called.
    pub fn wake_at(&self) -> Instant {
        let earliest = self.timeout.min(self.gone_at());
        self.burst_next.map_or(earliest, |burst| earliest.min(burst))
    }

    /// When it counts as gone if nothing more is heard of it.
    fn gone_at(&self) -> Instant {
        if self.connected { self.heard + SILENCE } else { self.created + CONNECT_DEADLINE }
    }

    /// Takes a datagram that was routed here.
    pub fn receive(&mut self, inbound: &Inbound, runs: &mut Runs, counters: &Counters) {
        let protocol = if inbound.tcp.is_some() { Protocol::Tcp } else { Protocol::Udp };
        let Ok(received) = Receive::new(protocol, inbound.source, INSIDE, &inbound.data) else {
            return Demux::count(&counters.refused);
        };
        let input = Input::Receive(inbound.at, received);
        if !self.rtc.accepts(&input) {
            return Demux::count(&counters.refused);
        }
        self.heard = inbound.at.max(self.heard);
        self.paths.learn(protocol, inbound);
        if inbound.data.first().is_some_and(|first| *first < 4) {
            self.registration.learn(protocol, inbound.source);
        }
        let outcome = self.rtc.handle_input(input);
        self.note(outcome.is_ok());
        self.poll(runs);
    }

    /// Gives ICE new credentials: the viewer restarts it (RFC 8445 §9).
    pub fn restart_ice(&mut self, local: IceCreds, remote: IceCreds, now: Instant, runs: &mut Runs) {
        let mut direct = self.rtc.direct_api();
        direct.set_local_ice_credentials(local);
        direct.set_remote_ice_credentials(remote);
        self.heard = now;
        self.flush(now, runs);
    }

    /// Sends the GOP that the source has cached, so that the picture appears at once. `backlog` ends where the
    /// source's cursor is.
    pub fn begin(
        &mut self,
        source: SourceKey,
        epoch: &Epoch,
        backlog: &[Packet],
        now: Instant,
        runs: &mut Runs,
    ) {
        if self.enter(source, epoch) {
            self.queue_gop(source, backlog, MAX_START, now);
            self.flush(now, runs);
        }
    }

    /// Sends the newest GOP again, to a viewer that lost its picture.
    pub fn replay(&mut self, source: SourceKey, backlog: &[Packet], now: Instant, runs: &mut Runs) {
        if self.queue_gop(source, backlog, MAX_REPLAY, now) {
            self.replayed = Some(now);
            self.flush(now, runs);
        }
    }

    /// Queues a GOP's video with compressed timestamps. False if it is too large or not there.
    fn queue_gop(&mut self, source: SourceKey, backlog: &[Packet], limit: usize, now: Instant) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|l| l.setup.kind == Kind::Video && l.source == source)
        else {
            return false;
        };
        let video = || backlog.iter().filter(|packet| lane.carries(packet));
        let bytes: usize = video().map(|packet| packet.payload.len()).sum();
        let (Some(first), Some(newest)) = (video().next(), video().next_back().cloned()) else {
            return false;
        };
        if bytes > limit || !(first.keyframe && first.starts_unit) {
            return false;
        }
        let units = video().filter(|packet| packet.starts_unit).count() as u64;
        self.burst.extend(video().cloned());
        lane.compress(units, newest.rtp_time);
        lane.waiting = Waiting::No;
        self.burst_began = now;
        self.set_origin(&newest, now);
        self.pump(now);
        true
    }

    fn set_origin(&mut self, newest: &Packet, now: Instant) {
        if self.origin.is_none() {
            self.origin = now.checked_sub(newest.time.0.saturating_add(CLOCK_MARGIN)).or(Some(now));
        }
    }

    /// Enters an epoch with all lanes of a source. False if that ended the session.
    fn enter(&mut self, source: SourceKey, epoch: &Epoch) -> bool {
        let mut any = false;
        let mut video_lost = false;
        for lane in &mut self.lanes {
            let (before, video) = (lane.epoch(), lane.setup.kind == Kind::Video);
            let fits = if lane.source == source { lane.enter(epoch) } else { true };
            if video && before != lane.epoch() {
                // What is still to be sent is of a codec or of parameter sets that are past.
                self.burst = VecDeque::new();
                self.burst_next = None;
            }
            any |= fits;
            video_lost |= !fits && video;
        }
        if video_lost || !any {
            self.set_ended(End::CodecChanged);
        }
        self.end.is_none()
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
        if !self.enter(source, &batch.epoch) {
            return;
        }
        for packet in packets {
            let Some(lane) = self.lanes.iter().position(|l| l.source == source && l.carries(packet)) else {
                continue;
            };
            self.send_live(lane, packet, now);
        }
        self.pump_if_due(now);
        self.flush(now, runs);
    }

    fn send_live(&mut self, lane: usize, packet: &Packet, now: Instant) {
        let keyframe = packet.keyframe && packet.starts_unit;
        if keyframe {
            self.gop = self.keyframe_at.map(|last| now.saturating_duration_since(last)).or(self.gop);
            self.keyframe_at = Some(now);
        }
        let congested = packet.starts_unit && self.paths.are_congested();
        let Some(Lane { setup, waiting, .. }) = self.lanes.get_mut(lane) else { return };
        if setup.kind == Kind::Video {
            if *waiting != Waiting::No {
                if !keyframe || congested {
                    self.sent.2 += u64::from(*waiting == Waiting::Behind);
                    return;
                }
                *waiting = Waiting::No;
            }
            if !self.burst.is_empty() {
                if now.saturating_duration_since(self.burst_began) <= BURST_DEADLINE {
                    self.burst.push_back(packet.clone());
                    return;
                }
                if packet.starts_unit {
                    self.give_up_burst(lane);
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
        }
        self.set_origin(packet, now);
        self.write(lane, packet, now);
    }

    /// Drops what waits, up to the end of the unit that is half sent.
    fn give_up_burst(&mut self, lane: usize) {
        let keep = self.burst.iter().position(|packet| packet.starts_unit).unwrap_or(self.burst.len());
        self.sent.2 += (self.burst.len() - keep) as u64;
        let rest: Vec<Packet> = self.burst.drain(..).take(keep).collect();
        for packet in &rest {
            self.write(lane, packet, self.burst_began);
        }
        self.burst_next = None;
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.waiting = Waiting::Behind;
        }
    }

    fn pump_if_due(&mut self, now: Instant) {
        if self.burst_next.is_some_and(|at| at <= now) {
            self.pump(now);
        }
    }

    /// Sends the next part of a burst.
    fn pump(&mut self, now: Instant) {
        let congested = self.paths.are_congested();
        if !congested && let Some(lane) = self.lanes.iter().position(|lane| lane.setup.kind == Kind::Video) {
            for _ in 0..BURST_PACKETS {
                let Some(packet) = self.burst.pop_front() else { break };
                self.write(lane, &packet, now);
            }
        }
        let pause = if congested { CONGESTED_INTERVAL } else { BURST_INTERVAL };
        self.burst_next = (!self.burst.is_empty()).then(|| now + pause);
        if self.burst.is_empty() {
            // A GOP's worth of memory is not kept for the next time.
            self.burst = VecDeque::new();
        }
    }

    fn write(&mut self, lane: usize, packet: &Packet, now: Instant) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        let stamp = lane.stamp(packet);
        let since_origin = packet.time.0.saturating_add(stamp.shift);
        let at = self.origin.and_then(|origin| origin.checked_add(since_origin)).unwrap_or(now);
        let video = lane.setup.kind == Kind::Video;
        let mut direct = self.rtc.direct_api();
        if !lane.declared {
            lane.declared = true;
            let stream = direct.declare_stream_tx(lane.setup.ssrc, lane.setup.rtx, lane.setup.mid, None);
            stream.set_rtx_cache(RTX_PACKETS, RTX_AGE, Some(RTX_RATIO));
        }
        let Some(stream) = direct.stream_tx(&lane.setup.ssrc) else { return };
        let rtp = RtpWrite::new(
            stamp.payload_type,
            stamp.sequence.into(),
            stamp.rtp_time,
            at.min(now),
            packet.payload.clone(),
        );
        stream.write_rtp(rtp.marker(video && packet.ends_unit).nackable(video));
        self.sent.0 += packet.payload.len() as u64;
        self.sent.1 += 1;
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, runs: &mut Runs) {
        if now >= self.gone_at() {
            self.set_ended(if self.connected { End::Silent } else { End::NeverConnected });
            return;
        }
        self.pump_if_due(now);
        self.flush(now, runs);
    }

    fn flush(&mut self, now: Instant, runs: &mut Runs) {
        let outcome = self.rtc.handle_input(Input::Timeout(now));
        self.note(outcome.is_ok());
        self.poll(runs);
        let (bytes, packets, drops) = std::mem::take(&mut self.sent);
        if packets > 0 || drops > 0 {
            self.consumer.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.consumer.packets.fetch_add(packets, Ordering::Relaxed);
            self.consumer.drops.fetch_add(drops, Ordering::Relaxed);
        }
    }

    fn note(&mut self, ok: bool) {
        if ok {
            self.errors = 0;
            return;
        }
        // A connected peer is not ended by one broken datagram, which anybody may have sent.
        self.errors += 1;
        if !self.connected || self.errors > MAX_ERRORS {
            self.set_ended(End::Failed);
        }
    }

    fn poll(&mut self, runs: &mut Runs) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    self.timeout = at;
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    if self.paths.send(&transmit, runs) {
                        let mut info = self.consumer.info.lock();
                        info.protocol = if transmit.proto == Protocol::Udp { "udp" } else { "tcp" };
                        info.remote_addr = transmit.destination.to_string();
                    }
                }
                Ok(Output::Event(event)) => self.on_event(event),
                Err(error) => {
                    tracing::debug!(stream = self.stream, peer = self.id, "WebRTC error: {error}");
                    self.note(false);
                    self.timeout = Instant::now() + Duration::from_millis(50);
                    break;
                }
            }
        }
        if !self.rtc.is_alive() {
            self.set_ended(End::Failed);
        }
        runs.flush();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                tracing::debug!(stream = self.stream, peer = self.id, "WebRTC viewer connected");
                (self.connected, self.needs.media) = (true, true);
            }
            Event::Closed => self.set_ended(End::Left),
            Event::KeyframeRequest(_) => self.needs.replay |= self.replay_helps(Instant::now()),
            Event::MediaEgressStats(stats) => {
                if let Some(rtt) = stats.rtt {
                    let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
                    self.consumer.rtt_us.store(micros, Ordering::Relaxed);
                }
                if let Some(loss) = stats.loss {
                    let permille = (loss.clamp(0.0, 1.0) * 1000.0) as u32;
                    self.consumer.loss_permille.store(permille, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// Whether the cached GOP heals a lost picture sooner than the next keyframe will.
    fn replay_helps(&self, now: Instant) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.setup.kind == Kind::Video);
        let playing = lane.is_some_and(|lane| lane.declared && lane.waiting == Waiting::No);
        let rested = self.replayed.is_none_or(|at| now.saturating_duration_since(at) >= REPLAY_INTERVAL);
        let due = self.keyframe_at.zip(self.gop).map(|(last, gop)| last + gop);
        let near = due.is_some_and(|due| due > now && due - now < KEYFRAME_NEAR);
        playing && rested && !near && self.burst.is_empty()
    }

    /// Says goodbye: RTCP BYE and DTLS close_notify.
    pub fn farewell(&mut self, runs: &mut Runs) {
        let end = self.end.unwrap_or(End::Closed);
        tracing::info!(stream = self.stream, peer = self.id, "WebRTC viewer ended: {end}");
        if self.rtc.close().is_ok() {
            self.poll(runs);
        }
    }
}
