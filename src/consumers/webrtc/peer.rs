//! One viewer: the way to it (str0m's ICE and DTLS), what it says, when it is gone.

mod media;

use super::demux::{Counters, Demux, Registration};
use super::dtls::Keys;
use super::end::End;
use super::lane::Lane;
use super::letters::Inbound;
use super::pacing::{Pacer, Pacing};
use super::paths::{INSIDE, Paths};
use super::rtcp::{self, Feedback};
use super::send::Runs;
use super::sender::ntp;
use super::srtp::Srtp;
use super::worker::{SourceKey, coarse};
use crate::graph::ConsumerGuard;
use crate::media::rtp::header::is_rtcp;
use crate::media::{Kind, Packet};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use str0m::crypto::CryptoProvider;
use str0m::net::{Protocol, Receive};
use str0m::{Event, IceCreds, Input, Output, Rtc};
use tokio::sync::OwnedSemaphorePermit;

/// A viewer that is not heard of for so long is gone. Browsers check connectivity every 2.5 to 6 s and report
/// reception every second or so.
const SILENCE: Duration = Duration::from_secs(8);
/// A session that has not connected by then never will.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// In 65536ths of a second: what takes longer is a mistake.
const MAX_ROUND_TRIP: u32 = 60 << 16;
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
    /// For ICE and DTLS.
    pub rtc: Rtc,
    /// Where the handshake leaves the keys.
    pub keys: Keys,
    /// The ciphers.
    pub crypto: Arc<CryptoProvider>,
    /// How fast it is sent to.
    pub pacing: Pacing,
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
    /// Elsewhere in memory: what is touched for each packet should be close together.
    rtc: Box<Rtc>,
    keys: Keys,
    crypto: Arc<CryptoProvider>,
    /// Since it has connected.
    srtp: Option<Box<Srtp>>,
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
    /// The viewer wants no media for now.
    paused: bool,
    pacer: Pacer,
    /// Video that waits for its turn, with its index in the ring.
    queue: VecDeque<(u64, Packet)>,
    queued_bytes: usize,
    queue_began: Instant,
    queue_next: Option<Instant>,
    replayed: Option<Instant>,
    keyframe_at: Option<Instant>,
    gop: Option<Duration>,
    /// The instant that stream time zero is for this viewer's sender reports.
    origin: Option<Instant>,
    /// Bytes, packets, drops that are not counted yet.
    sent: (u64, u64, u64),
    count_next: Instant,
}

impl Peer {
    /// A peer that waits for the viewer's first check.
    pub fn new(setup: PeerSetup, now: Instant) -> Peer {
        let PeerSetup { id, stream, rtc, keys, crypto, pacing, consumer, registration, permit, lanes } =
            setup;
        Peer {
            id,
            scheduled: None,
            stream,
            rtc: Box::new(rtc),
            keys,
            crypto,
            srtp: None,
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
            paused: false,
            pacer: Pacer::new(pacing, now),
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_began: now,
            queue_next: None,
            replayed: None,
            keyframe_at: None,
            gop: None,
            origin: None,
            sent: (0, 0, 0),
            count_next: now,
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

    /// Whether something is to be done after media was sent: it has ended, lost its picture, or has a queue.
    pub fn is_needy(&self) -> bool {
        self.end.is_some() || self.needs != Needs::default() || self.queue_next.is_some()
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
        // A handshake does not wait; what comes after it does for a moment, so that one wake-up serves many viewers.
        let earliest = if self.connected { coarse(earliest) } else { earliest };
        self.queue_next.map_or(earliest, |next| earliest.min(next))
    }

    /// When it counts as gone if nothing more is heard of it.
    fn gone_at(&self) -> Instant {
        if self.connected { self.heard + SILENCE } else { self.created + CONNECT_DEADLINE }
    }

    /// Takes a datagram that was routed here.
    pub fn receive(&mut self, inbound: &Inbound<'_>, runs: &mut Runs, counters: &Counters) {
        // RFC 7983: STUN begins with 0 to 3, DTLS with 20 to 63, RTP and RTCP with 128 to 191.
        if inbound.data.first().is_some_and(|first| *first >= 128) {
            if !self.hear(inbound, runs) {
                Demux::count(&counters.refused);
            }
            return;
        }
        let protocol = if inbound.tcp.is_some() { Protocol::Tcp } else { Protocol::Udp };
        let Ok(received) = Receive::new(protocol, inbound.source, INSIDE, inbound.data) else {
            return Demux::count(&counters.refused);
        };
        let input = Input::Receive(inbound.at, received);
        if !self.rtc.accepts(&input) {
            return Demux::count(&counters.refused);
        }
        self.heard = inbound.at.max(self.heard);
        // Only checks of connectivity say where the viewer is: others need only look as if they came from there.
        if inbound.data.first().is_some_and(|first| *first < 4) {
            self.paths.learn(protocol, inbound);
            self.registration.learn(protocol, inbound.source);
        }
        let outcome = self.rtc.handle_input(input);
        self.note(outcome.is_ok());
        self.poll(runs);
    }

    /// Takes what the viewer says of what it receives. False if it is not this viewer's.
    fn hear(&mut self, inbound: &Inbound<'_>, runs: &mut Runs) -> bool {
        let Some(srtp) = self.srtp.as_mut().filter(|_| is_rtcp(inbound.data)) else { return false };
        let Some(plain) = srtp.open_rtcp(inbound.data) else { return false };
        let now = inbound.at;
        self.heard = now.max(self.heard);
        let (way, lanes, consumer) = (self.paths.way(), &mut self.lanes, &self.consumer);
        let mut picture_lost = false;
        rtcp::read(&plain, |feedback| match feedback {
            Feedback::Report { ssrc, lost, last_report, delay } => {
                if lanes.iter().any(|lane| lane.sender.ssrc == ssrc) {
                    consumer.loss_permille.store(u32::from(lost) * 1000 / 256, Ordering::Relaxed);
                    if let Some(rtt) = round_trip(now, last_report, delay) {
                        consumer.rtt_us.store(rtt, Ordering::Relaxed);
                    }
                }
            }
            Feedback::Nack { ssrc, sequence, more } => {
                let lane = lanes.iter_mut().find(|lane| lane.sender.ssrc == ssrc);
                let way = way.as_ref().zip(lane.and_then(Lane::retransmits));
                if let Some((way, (sender, ring, mut again))) = way {
                    let following = (0..16).filter(|bit| more >> bit & 1 == 1).map(|bit| bit + 1);
                    for ahead in std::iter::once(0).chain(following) {
                        again.sequence = sequence.wrapping_add(ahead);
                        sender.send_again(&again, ring, now, srtp, way, runs);
                    }
                }
            }
            Feedback::Keyframe { ssrc } => {
                picture_lost |= lanes.iter().any(|lane| lane.sender.ssrc == ssrc);
            }
        });
        runs.flush();
        self.needs.replay |= picture_lost && !self.paused && self.replay_helps(now);
        true
    }

    /// Gives ICE new credentials: the viewer restarts it (RFC 8445 §9).
    pub fn restart_ice(&mut self, local: IceCreds, remote: IceCreds, now: Instant, runs: &mut Runs) {
        let mut direct = self.rtc.direct_api();
        direct.set_local_ice_credentials(local);
        direct.set_remote_ice_credentials(remote);
        self.heard = now;
        self.drive(now, runs);
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Instant, runs: &mut Runs) {
        if now >= self.gone_at() {
            self.set_ended(if self.connected { End::Silent } else { End::NeverConnected });
            return;
        }
        self.pump_if_due(now, runs);
        self.settle(now, runs);
        if now >= self.timeout {
            self.drive(now, runs);
        }
    }

    /// Lets str0m do what is due.
    fn drive(&mut self, now: Instant, runs: &mut Runs) {
        let outcome = self.rtc.handle_input(Input::Timeout(now));
        self.note(outcome.is_ok());
        self.poll(runs);
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
                        self.moved(transmit.proto, transmit.destination);
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
                self.srtp = self.keys.take().and_then(|keys| Srtp::new(&self.crypto, &keys)).map(Box::new);
                (self.connected, self.needs.media) = (true, true);
                if self.srtp.is_none() {
                    self.set_ended(End::Failed);
                }
            }
            Event::Closed => self.set_ended(End::Left),
            Event::PeerStats(stats) => {
                if let Some(pair) = stats.selected_candidate_pair
                    && self.paths.select(pair.protocol, pair.remote.addr)
                {
                    self.moved(pair.protocol, pair.remote.addr);
                }
            }
            _ => {}
        }
    }

    /// Media goes to another address.
    fn moved(&self, protocol: Protocol, to: SocketAddr) {
        let mut info = self.consumer.info.lock();
        info.protocol = if protocol == Protocol::Udp { "udp" } else { "tcp" };
        info.remote_addr = to.to_string();
    }

    /// Says goodbye: RTCP BYE and DTLS close_notify.
    pub fn farewell(&mut self, runs: &mut Runs) {
        self.count();
        let end = self.end.unwrap_or(End::Closed);
        tracing::info!(stream = self.stream, peer = self.id, "WebRTC viewer ended: {end}");
        let senders = self.lanes.iter().map(|lane| &lane.sender).filter(|sender| sender.has_sent());
        let ssrcs: Vec<u32> = senders.map(|sender| sender.ssrc).collect();
        let mut goodbye = Vec::new();
        rtcp::write_goodbye(&ssrcs, &mut goodbye);
        if let (Some(srtp), Some(way)) = (&mut self.srtp, self.paths.way())
            && let Some(sealed) = srtp.seal_rtcp(&goodbye)
        {
            runs.push(&way, &sealed);
        }
        if self.rtc.close().is_ok() {
            self.poll(runs);
        }
        runs.flush();
    }
}

/// Microseconds from a report of ours to the viewer's answer and back, without the time that it took to answer
/// (RFC 3550 §6.4.1). `None` if it has had none or says what can't be.
fn round_trip(now: Instant, last_report: u32, delay: u32) -> Option<u32> {
    let since = ((ntp(now) >> 16) as u32).wrapping_sub(last_report);
    let units = since.checked_sub(delay).filter(|units| last_report != 0 && *units < MAX_ROUND_TRIP)?;
    Some(((u64::from(units) * 1_000_000) >> 16).max(1) as u32)
}
