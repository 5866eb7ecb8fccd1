//! The UDP half of the one port, and every trick with it: batches, GRO, GSO, source addresses, moderated wake-ups.

use super::rate::Rate;
use arc_swap::ArcSwap;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Socket buffer that is asked for, in bytes; the system may give less.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Bytes of one receive buffer: GRO gives up to 64 KiB at once.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Buffers that one system call may fill.
const RECEIVE_BATCH: usize = if BATCH_SIZE < 16 { BATCH_SIZE } else { 16 };
/// Most bytes of one GSO run: the UDP length field has 16 bits.
const MAX_RUN: usize = 65_000;
/// Pause after an error of the socket itself, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// Once nothing urgent comes, datagrams are left to gather for this long. Hundreds of viewers report every second, each at
/// another moment; a wake-up for each costs more than all their reports.
const MODERATION: Duration = Duration::from_millis(20);
/// After something urgent every datagram is taken at once for this long: more of the kind is to be expected.
const ALERT: Duration = Duration::from_secs(1);
/// Longest time that a datagram may have waited to be taken.
const MAX_AGE: Duration = Duration::from_secs(1);
/// What a poll says has happened.
const DATAGRAMS: Token = Token(0);
const STOPPED: Token = Token(1);

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Who sent it. IPv4 is IPv4 here, also on a dual-stack socket.
    pub source: SocketAddr,
    /// The address of this machine that it was sent to, where the system tells. To be given to
    /// [`UdpPort::try_send`] as `source_ip` of the answer.
    pub local_ip: Option<IpAddr>,
    /// When it came: at the system, where that tells, however long it has been left to gather.
    pub at: Instant,
    /// The payload.
    pub contents: &'a [u8],
}

/// What is called with the datagrams that one system call brought; it must not block. It says whether somebody waits for
/// an answer to one of them; else what follows may be some milliseconds late.
pub type OnDatagrams = Box<dyn FnMut(&mut dyn Iterator<Item = Datagram<'_>>) -> bool + Send>;

/// The UDP socket on the one port.
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    /// Waits for datagrams only. One that waited for room to send, as tokio's socket does, would be woken after every
    /// system call that sends.
    poll: Mutex<Poll>,
    waker: Waker,
    stopped: AtomicBool,
    /// Replaced only by [`UdpPort::restore`]. No lock: all workers send.
    state: ArcSwap<UdpSocketState>,
    local: SocketAddr,
    /// A single datagram went where a run was refused: this system has no GSO.
    gso_refused: AtomicBool,
}

impl UdpPort {
    /// Takes over a bound, non-blocking socket.
    ///
    /// # Errors
    /// The system refuses what is needed to use the socket at all.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<UdpPort> {
        let state = UdpSocketState::new((&socket).into())?;
        let enlarge = |name, key, set: io::Result<()>, got: io::Result<usize>| match set.and(got) {
            Ok(bytes) if bytes < SOCKET_BUFFER => tracing::info!(
                "the system limits the UDP {name} buffer to {} KiB: for many viewers, set {key} to {SOCKET_BUFFER}",
                bytes / 1024
            ),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "cannot enlarge the UDP {name} buffer"),
        };
        let set = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
        enlarge("receive", "net.core.rmem_max", set, state.recv_buffer_size((&socket).into()));
        let set = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);
        enlarge("send", "net.core.wmem_max", set, state.send_buffer_size((&socket).into()));
        let local = socket.local_addr()?;
        let gso = state.max_gso_segments();
        tracing::debug!(%local, gso, gro = state.gro_segments(), "UDP socket ready");
        let poll = Poll::new()?;
        let mut socket = UdpSocket::from_std(socket);
        poll.registry().register(&mut socket, DATAGRAMS, Interest::READABLE)?;
        Ok(UdpPort {
            waker: Waker::new(poll.registry(), STOPPED)?,
            poll: Mutex::new(poll),
            stopped: AtomicBool::new(false),
            socket,
            state: ArcSwap::from_pointee(state),
            local,
            gso_refused: AtomicBool::new(false),
        })
    }

    /// The port number.
    pub fn local_port(&self) -> u16 {
        self.local.port()
    }

    /// Datagrams that one call of [`UdpPort::try_send`] can hand to the system at once: 1 without GSO.
    pub fn max_segments(&self) -> usize {
        self.state.load().max_gso_segments()
    }

    /// Sends a run of datagrams to one destination, without waiting. `contents` is cut into datagrams of
    /// `segment_size` bytes, the last may be shorter. `source_ip` is the address of this machine to send from.
    ///
    /// # Errors
    /// `WouldBlock`: the system's buffer is full, the rest of the run was not sent. `InvalidInput`: no such
    /// destination is possible. Anything else is what the system says of this destination; the socket goes on.
    pub fn try_send(
        &self,
        destination: SocketAddr,
        source_ip: Option<IpAddr>,
        contents: &[u8],
        segment_size: usize,
    ) -> io::Result<()> {
        if segment_size == 0 || contents.is_empty() {
            return Err(invalid("nothing to send"));
        }
        let destination = self.in_socket_family(destination)?;
        let source_ip = source_ip
            .map(|ip| ip.to_canonical())
            .filter(|ip| !ip.is_unspecified() && ip.is_ipv4() == destination.ip().to_canonical().is_ipv4());
        let segments = self.max_segments().min(MAX_RUN / segment_size).max(1);
        let run_size = segments.saturating_mul(segment_size);
        for run in contents.chunks(run_size) {
            match self.send(destination, source_ip, run, segment_size) {
                Err(error) if run.len() > segment_size && error.kind() != io::ErrorKind::WouldBlock => {
                    self.send_one_by_one(destination, source_ip, run, segment_size)?;
                }
                sent => sent?,
            }
        }
        Ok(())
    }

    /// After a run was refused: by a kernel or driver that cannot do GSO after all, or because of this destination.
    fn send_one_by_one(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        run: &[u8],
        size: usize,
    ) -> io::Result<()> {
        for datagram in run.chunks(size) {
            if let Err(error) = self.send(to, source, datagram, size) {
                self.restore();
                return Err(error);
            }
        }
        if self.max_segments() == 1 && !self.gso_refused.swap(true, Ordering::Relaxed) {
            tracing::info!("the system refuses UDP segmentation offload: datagrams are sent one by one");
        }
        Ok(())
    }

    /// Straight to the system: nobody waits for this socket to become writable.
    fn send(
        &self,
        destination: SocketAddr,
        src_ip: Option<IpAddr>,
        run: &[u8],
        size: usize,
    ) -> io::Result<()> {
        let segment_size = (run.len() > size).then_some(size);
        let transmit = Transmit { destination, ecn: None, contents: run, segment_size, src_ip };
        let state = self.state.load();
        let segments = state.max_gso_segments();
        let sent = state.try_send((&self.socket).into(), &transmit);
        if sent.is_err() && segment_size.is_none() && segments > self.max_segments() {
            self.restore();
        }
        sent
    }

    /// quinn-udp takes every EINVAL and EIO for a lack of GSO and never tries it again. When a single datagram fails
    /// as well it was the destination's fault (e.g. its `source_ip` is no address of this machine any more): one
    /// viewer must not slow down all others.
    fn restore(&self) {
        if self.gso_refused.load(Ordering::Relaxed) {
            return;
        }
        match UdpSocketState::new((&self.socket).into()) {
            Ok(state) => self.state.store(Arc::new(state)),
            Err(error) => tracing::debug!(%error, "cannot set up the UDP socket again"),
        }
    }

    /// The address as this socket's family writes it. What the system would answer with EINVAL is refused here.
    fn in_socket_family(&self, destination: SocketAddr) -> io::Result<SocketAddr> {
        let ip = destination.ip().to_canonical();
        if destination.port() == 0 || ip.is_unspecified() {
            return Err(invalid("no address to send to"));
        }
        match (self.local, ip) {
            (SocketAddr::V4(_), IpAddr::V4(_)) => Ok(SocketAddr::new(ip, destination.port())),
            (SocketAddr::V4(_), IpAddr::V6(_)) => Err(invalid("the socket has no IPv6")),
            (SocketAddr::V6(local), IpAddr::V4(v4)) => {
                let both = local.ip().is_unspecified() || local.ip().to_ipv4_mapped().is_some();
                if !both {
                    return Err(invalid("the socket has no IPv4"));
                }
                Ok(SocketAddr::new(v4.to_ipv6_mapped().into(), destination.port()))
            }
            (SocketAddr::V6(_), IpAddr::V6(v6)) => {
                let scope = match destination {
                    SocketAddr::V6(v6) => v6.scope_id(),
                    SocketAddr::V4(_) => 0,
                };
                if scope == 0 && is_link_local(v6) {
                    return Err(invalid("a link-local address needs its interface"));
                }
                Ok(SocketAddrV6::new(v6, destination.port(), 0, scope).into())
            }
        }
    }

    /// Receives and calls `on_datagrams` with what has come, until [`UdpPort::stop`]. Blocks its thread.
    pub fn receive(&self, mut on_datagrams: OnDatagrams) {
        let mut memory = vec![0; RECEIVE_BUFFER * RECEIVE_BATCH];
        let mut buffers: Vec<_> = memory.chunks_mut(RECEIVE_BUFFER).map(IoSliceMut::new).collect();
        let mut metas = [RecvMeta::default(); RECEIVE_BATCH];
        let errors = Rate::every(Duration::from_secs(60));
        let failed = |error: io::Error| {
            if errors.allow() {
                tracing::warn!(%error, "receiving UDP failed, going on");
            }
            rest(ERROR_PAUSE);
        };
        let (mut poll, mut events) = (self.poll.lock(), Events::with_capacity(2));
        let (mut any, mut urgent, mut moderation) = (false, false, Moderation::default());
        while !self.stopped.load(Ordering::Relaxed) {
            let receive = || self.state.load().recv((&self.socket).into(), &mut buffers, &mut metas);
            let received = self.socket.try_io(receive);
            match received {
                Ok(count) => {
                    urgent |= on_datagrams(&mut buffers.iter().zip(&metas).take(count).flat_map(datagrams));
                    any = true;
                    if count == RECEIVE_BATCH {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // E.g. an ICMP error for something sent earlier: never a reason to stop.
                Err(error) => {
                    failed(error);
                    continue;
                }
            }
            let came = std::mem::take(&mut any);
            let pause = moderation.pause(std::mem::take(&mut urgent), Instant::now());
            if let Some(pause) = pause.filter(|_| came) {
                rest(pause);
            } else if let Err(error) = poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                failed(error);
            }
        }
    }

    /// Ends [`UdpPort::receive`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "the UDP thread can't be told to stop");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the UDP thread is one of its own: nobody else is held up")]
fn rest(pause: Duration) {
    std::thread::sleep(pause);
}

/// How long datagrams are left to gather.
#[derive(Debug, Default)]
struct Moderation {
    alert_until: Option<Instant>,
}

impl Moderation {
    /// After some were taken at `now`.
    fn pause(&mut self, urgent: bool, now: Instant) -> Option<Duration> {
        if urgent {
            self.alert_until = now.checked_add(ALERT);
        }
        self.alert_until.is_none_or(|until| now >= until).then_some(MODERATION)
    }
}

/// The datagrams in a buffer: several of one sender where the system has put them together.
fn datagrams<'a>((buffer, meta): (&'a IoSliceMut<'_>, &RecvMeta)) -> impl Iterator<Item = Datagram<'a>> {
    let source = canonical(meta.addr);
    let local_ip = meta.dst_ip.map(|ip| ip.to_canonical());
    // Nobody can be answered at port 0.
    let length = if source.port() == 0 { 0 } else { meta.len };
    let received = buffer.get(..length).unwrap_or_default();
    let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    // A clock that was set in between says nothing.
    let age = meta.timestamp.and_then(|at| wall.checked_sub(at)).filter(|age| *age < MAX_AGE);
    let at = now.checked_sub(age.unwrap_or_default()).unwrap_or(now);
    received.chunks(meta.stride.max(1)).map(move |contents| Datagram { source, local_ip, at, contents })
}

/// IPv4-mapped IPv6 addresses become IPv4; the scope of others is kept.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_as_old_as_the_system_says_and_no_clock_that_was_set_makes_it_older() {
        let age = |timestamp: Option<Duration>| {
            let mut meta = RecvMeta::default();
            (meta.addr, meta.len, meta.stride) = (([192, 0, 2, 1], 9).into(), 1, 1);
            meta.timestamp = timestamp;
            let mut bytes = [0];
            let at = datagrams((&IoSliceMut::new(&mut bytes), &meta)).next().unwrap().at;
            Instant::now().duration_since(at)
        };
        let wall = || SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let half = MAX_AGE / 2;
        assert!(age(Some(wall() - half)) >= half);
        for unknown in [None, Some(wall() + half), Some(wall() - MAX_AGE * 2)] {
            assert!(age(unknown) < half, "{unknown:?}");
        }
    }

    #[test]
    fn what_nobody_waits_for_gathers_unless_something_urgent_came_lately() {
        let (mut moderation, start) = (Moderation::default(), Instant::now());
        let mut pauses = |urgent, at| moderation.pause(urgent, start + at).is_some();
        let moment = Duration::from_millis(1);
        assert!(pauses(false, moment));
        assert!(!pauses(true, moment));
        assert!(!pauses(false, ALERT));
        assert!(!pauses(true, ALERT), "and once more from here");
        assert!(!pauses(false, ALERT * 2 - moment));
        assert!(pauses(false, ALERT * 2));
    }
}
