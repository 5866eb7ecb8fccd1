//! RTP and RTCP by UDP, to one player each: one pair of ports for each of this machine's addresses, shared by all
//! sessions that came to it.
//!
//! What lies behind is not sent as fast as the network takes it: players' sockets hold little. A player gets it at four
//! times its own pace and in small bursts, until it is at the live edge.

use super::playback::Sink;
use crate::media::StreamTime;
use crate::media::rtp::header::{ntp_timestamp, report_blocks, says_goodbye};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use quinn_udp::{Transmit, UdpSocketState};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Datagrams that are handed to the system at once, and the pause then.
const BURST: usize = 16;
const PAUSE: Duration = Duration::from_millis(2);
/// How much faster than it was made media is sent that lies behind.
const SPEED: u32 = 4;
/// A player's place in time that is further off than this is found anew.
const LOST: Duration = Duration::from_secs(1);
/// What is asked of the system for a socket's buffer, in bytes.
const SEND_BUFFER: usize = 1024 * 1024;
/// Attempts to find a free pair where the system chooses.
const ATTEMPTS: usize = 64;

/// The ports of all of this machine's addresses, opened when the first player wants them.
pub struct Udp {
    range: Option<(u16, u16)>,
    ports: Mutex<HashMap<IpAddr, Arc<Ports>>>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

struct Ports {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    state: UdpSocketState,
    numbers: (u16, u16),
    /// By the address that a session's reports come from.
    heard: DashMap<SocketAddr, Arc<Heard>>,
}

/// What a player's reports say.
struct Heard {
    last: Mutex<Instant>,
    loss_permille: AtomicU32,
    rtt_us: AtomicU32,
    end: CancellationToken,
}

/// One session's half.
pub struct UdpSession {
    ports: Arc<Ports>,
    heard: Arc<Heard>,
    /// Where the tracks go: RTP and RTCP.
    to: Vec<(usize, SocketAddr, SocketAddr)>,
    queue: VecDeque<Datagram>,
    reports: Vec<(SocketAddr, Vec<u8>)>,
    /// Where the pace is counted from.
    pace: Option<(Instant, StreamTime)>,
    pause: Option<Instant>,
    run: Vec<u8>,
}

struct Datagram {
    to: SocketAddr,
    header: [u8; 12],
    payload: Arc<[u8]>,
    time: StreamTime,
}

impl Udp {
    /// Nothing is opened. `range`: the first and the last port that may be used.
    pub fn new(range: Option<(u16, u16)>, cancel: CancellationToken) -> Udp {
        Udp { range, ports: Mutex::default(), tasks: TaskTracker::new(), cancel }
    }

    /// A session that sends from this address of ours; `end` is cancelled when the player says goodbye.
    ///
    /// # Errors
    /// In words, when there are no ports.
    pub fn session(&self, local: IpAddr, end: &CancellationToken) -> Result<UdpSession, String> {
        let ports = self.ports(local).map_err(|error| {
            let range = self.range.map_or_else(String::new, |(a, b)| format!(" among {a}-{b}"));
            tracing::warn!(%local, %error, "no pair of UDP ports for RTSP{range}");
            format!("no pair of UDP ports is free here{range}")
        })?;
        let heard = Arc::new(Heard {
            last: Mutex::new(Instant::now()),
            loss_permille: AtomicU32::new(0),
            rtt_us: AtomicU32::new(0),
            end: end.clone(),
        });
        Ok(UdpSession {
            ports,
            heard,
            to: Vec::new(),
            queue: VecDeque::new(),
            reports: Vec::new(),
            pace: None,
            pause: None,
            run: Vec::new(),
        })
    }

    fn ports(&self, local: IpAddr) -> io::Result<Arc<Ports>> {
        let mut all = self.ports.lock();
        if let Some(ports) = all.get(&local) {
            return Ok(ports.clone());
        }
        let ports = Arc::new(bind(local, self.range)?);
        tracing::info!(%local, ports = ?ports.numbers, "RTSP sends by UDP");
        all.insert(local, ports.clone());
        let (reading, cancel) = (ports.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = reading.receive() => {}
            }
        });
        Ok(ports)
    }

    /// Ends what is read from the ports.
    pub async fn shutdown(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn bind(local: IpAddr, range: Option<(u16, u16)>) -> io::Result<Ports> {
    let pair = |first: u16| -> io::Result<Ports> {
        let rtp = open(SocketAddr::new(local, first))?;
        let number = rtp.local_addr()?.port();
        let rtcp = open(SocketAddr::new(local, number ^ 1))?;
        // Even for RTP, odd for RTCP (RFC 3550 §11).
        let (rtp, rtcp) = if number % 2 == 0 { (rtp, rtcp) } else { (rtcp, rtp) };
        let numbers = (number & !1, number | 1);
        Ok(Ports { state: UdpSocketState::new((&rtp).into())?, rtp, rtcp, numbers, heard: DashMap::new() })
    };
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    let firsts: Box<dyn Iterator<Item = u16>> = match range {
        Some((from, to)) => Box::new((from..to).filter(|port| port % 2 == 0)),
        None => Box::new(std::iter::repeat_n(0, ATTEMPTS)),
    };
    for first in firsts {
        match pair(first) {
            Ok(ports) => return Ok(ports),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // The system may give less.
    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER);
    UdpSocket::from_std(socket)
}

impl Ports {
    async fn receive(&self) {
        let (mut report, mut other) = ([0; 2048], [0; 64]);
        loop {
            tokio::select! {
                got = self.rtcp.recv_from(&mut report) => {
                    let Ok((length, from)) = got else { continue };
                    let Some(heard) = self.heard.get(&from).map(|heard| heard.value().clone()) else { continue };
                    heard.take(report.get(..length).unwrap_or_default());
                }
                // What players send to open a firewall on the way.
                _ = self.rtp.recv_from(&mut other) => {}
            }
        }
    }

    fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        let segment_size = (contents.len() > segment).then_some(segment);
        let transmit = Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
        self.rtp.try_io(Interest::WRITABLE, || self.state.try_send((&self.rtp).into(), &transmit))
    }
}

impl Heard {
    fn take(&self, report: &[u8]) {
        *self.last.lock() = Instant::now();
        // Middle 32 bits of the time: units of 1/65 536 s.
        let now = (ntp_timestamp(SystemTime::now()) >> 16) as u32;
        let mut worst = None;
        for block in report_blocks(report) {
            worst = worst.max(Some(block.fraction_lost));
            let round = now.wrapping_sub(block.last_report).wrapping_sub(block.delay);
            if block.last_report != 0 && round < 60 << 16 {
                self.rtt_us.store(((u64::from(round) * 1_000_000) >> 16) as u32, Relaxed);
            }
        }
        if let Some(worst) = worst {
            self.loss_permille.store(u32::from(worst) * 1000 / 256, Relaxed);
        }
        let from = report.get(4..8).and_then(|ssrc| ssrc.try_into().ok()).map(u32::from_be_bytes);
        if from.is_some_and(|ssrc| says_goodbye(report, ssrc)) {
            self.end.cancel();
        }
    }
}

impl UdpSession {
    /// Our ports for RTP and RTCP.
    pub fn ports(&self) -> (u16, u16) {
        self.ports.numbers
    }

    /// Has a track sent there.
    ///
    /// # Errors
    /// Another session is sent there already.
    pub fn send_to(&mut self, track: usize, rtp: SocketAddr, rtcp: SocketAddr) -> Result<(), &'static str> {
        match self.ports.heard.entry(rtcp) {
            Entry::Occupied(other) if !Arc::ptr_eq(other.get(), &self.heard) => {
                return Err("another session uses these client ports");
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => drop(place.insert(self.heard.clone())),
        }
        let replaced = self.to.iter().find(|(other, ..)| *other == track).map(|(_, _, before)| *before);
        self.to.retain(|(other, ..)| *other != track);
        self.to.push((track, rtp, rtcp));
        // A track that is set up again leaves its former ports to others.
        if let Some(before) = replaced.filter(|before| !self.to.iter().any(|(_, _, used)| used == before)) {
            self.ports.heard.remove_if(&before, |_, heard| Arc::ptr_eq(heard, &self.heard));
        }
        Ok(())
    }

    /// When the player reported last.
    pub fn heard(&self) -> Instant {
        *self.heard.last.lock()
    }

    /// The share of packets that the player lost lately, in thousandths.
    pub fn loss_permille(&self) -> u32 {
        self.heard.loss_permille.load(Relaxed)
    }

    /// Round-trip time in microseconds; 0 while unknown.
    pub fn rtt_us(&self) -> u32 {
        self.heard.rtt_us.load(Relaxed)
    }

    /// Drops media that waits: the player has paused. What it gets then is paced anew.
    pub fn forget_media(&mut self) {
        self.queue.clear();
        (self.pace, self.pause) = (None, None);
    }

    /// Whether nothing waits to be sent.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.reports.is_empty()
    }

    /// Sends the reports that wait. One that the system can't take is lost: the next comes soon.
    pub fn send_reports(&mut self) {
        for (to, report) in self.reports.drain(..) {
            let _ = self.ports.rtcp.try_send_to(&report, to);
        }
    }

    /// Sends some of what waits when its time has come, and tells packets and bytes. Cancel-safe.
    pub async fn send_some(&mut self) -> (u64, u64) {
        self.send_reports();
        let Some(time) = self.queue.front().map(|first| first.time) else { return (0, 0) };
        let due = self.due(time).max(self.pause.unwrap_or_else(Instant::now));
        if due > Instant::now() {
            sleep_until(due).await;
        }
        loop {
            let Some((to, count, segment)) = self.gather() else { return (0, 0) };
            let mut sent = self.ports.send(to, &self.run, segment);
            if count > 1 && sent.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                // A system or a path without segmentation offload.
                sent = self.run.chunks(segment).try_for_each(|one| self.ports.send(to, one, segment));
            }
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.ports.rtp.writable().await.is_err() {
                        return (0, 0);
                    }
                }
                sent => {
                    self.queue.drain(..count);
                    self.pause = Some(Instant::now() + PAUSE).filter(|_| !self.queue.is_empty());
                    // Whom the system can't reach misses this; the session ends when it is not heard any more.
                    let bytes = self.run.len() as u64;
                    return if sent.is_ok() { (count as u64, bytes) } else { (0, 0) };
                }
            }
        }
    }

    /// Puts datagrams of one size to one place together: where to, how many, and their size.
    fn gather(&mut self) -> Option<(SocketAddr, usize, usize)> {
        self.run.clear();
        let first = self.queue.front()?;
        let (to, segment) = (first.to, 12 + first.payload.len());
        let most = BURST.min(self.ports.state.max_gso_segments()).min(65_000 / segment).max(1);
        let mut count = 0;
        for datagram in self.queue.iter().take(most) {
            let size = 12 + datagram.payload.len();
            if datagram.to != to || size > segment {
                break;
            }
            self.run.extend_from_slice(&datagram.header);
            self.run.extend_from_slice(&datagram.payload);
            count += 1;
            // Only the last may be shorter.
            if size < segment {
                break;
            }
        }
        Some((to, count, segment))
    }

    /// When media of that time may be sent.
    fn due(&mut self, time: StreamTime) -> Instant {
        let now = Instant::now();
        let (from, first) = *self.pace.get_or_insert((now, time));
        let due = from + time.0.saturating_sub(first.0) / SPEED;
        if due > now + LOST {
            self.pace = Some((now, time));
            return now;
        }
        due
    }
}

impl Drop for UdpSession {
    fn drop(&mut self) {
        for (_, _, rtcp) in &self.to {
            self.ports.heard.remove_if(rtcp, |_, heard| Arc::ptr_eq(heard, &self.heard));
        }
    }
}

/// Packets into a session's queue.
pub struct UdpSink<'s>(pub &'s mut UdpSession);

impl Sink for UdpSink<'_> {
    fn rtp(&mut self, track: usize, header: [u8; 12], payload: Arc<[u8]>, time: StreamTime) {
        let to = self.0.to.iter().find(|(other, ..)| *other == track);
        if let Some(to) = to.map(|(_, rtp, _)| *rtp).filter(|_| payload.len() <= 65_000) {
            self.0.queue.push_back(Datagram { to, header, payload, time });
        }
    }

    fn rtcp(&mut self, track: usize, packet: Vec<u8>) {
        let to = self.0.to.iter().find(|(other, ..)| *other == track);
        if let Some((_, _, rtcp)) = to {
            self.0.reports.push((*rtcp, packet));
        }
    }
}
