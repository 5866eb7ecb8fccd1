//! Worker threads: each owns its peers, their timers, and one cursor for each source that they watch.

use super::DatagramSocket;
use super::demux::{Demux, Route};
use super::end::End;
use super::letters::Letters;
use super::peer::Peer;
use super::send::Runs;
use crate::graph::ring::Subscription;
use crate::graph::{Cursor, Producer, Wake};
use crate::media::{Packet, Reordering};
use parking_lot::{Condvar, Mutex};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use str0m::IceCreds;

/// ICE restarts and pauses that wait for a worker, at most; other commands are bounded by the number of sessions.
const MAX_RESTARTS: usize = 256;
/// Packets that are read from a source at once.
const BATCH: usize = 256;
/// How often a source is looked at for B-frames.
const REORDERING_INTERVAL: Duration = Duration::from_millis(500);
/// Timers of connected viewers go off together at multiples of this.
const TICK: Duration = Duration::from_millis(100);
/// A thread without timers looks round after this time.
const IDLE: Duration = Duration::from_secs(60);

/// Names a source's ring within the process, for as long as anybody holds the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceKey(usize);

impl SourceKey {
    /// The key of a producer's packets.
    pub fn of(producer: &Producer) -> SourceKey {
        SourceKey(Arc::as_ptr(producer.packets()) as usize)
    }
}

/// Spreads peers' numbers, which nobody outside chooses: looked up for each viewer and frame.
#[derive(Debug, Default, Clone, Copy)]
struct Spreader(u64);

type Spread = BuildHasherDefault<Spreader>;

impl Hasher for Spreader {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: neighbours come to lie far apart, in the high bits too.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The next moment at which timers go off that need not be exact.
pub fn coarse(at: Instant) -> Instant {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = at.saturating_duration_since(*EPOCH).as_nanos() as u64;
    let ticks = since.div_ceil(TICK.as_nanos() as u64);
    u32::try_from(ticks).ok().and_then(|ticks| EPOCH.checked_add(TICK * ticks)).unwrap_or(at)
}

/// What a worker is told.
pub enum Command {
    /// A new session.
    Add(Box<Peer>),
    /// A session ends.
    End(u64, End),
    /// A session's media stops, or goes on.
    Pause(u64, bool),
    /// The viewer restarts ICE: our new credentials and the viewer's.
    Restart(u64, IceCreds, IceCreds),
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    letters: Letters,
    ready: Vec<SourceKey>,
    stop: bool,
    /// When the worker, which waits, looks by itself.
    looks_at: Option<Instant>,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.letters.is_empty() && self.ready.is_empty() && !self.stop
    }
}

/// How a worker is reached. Nobody waits for it.
#[derive(Default)]
pub struct Mailbox {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    peers: AtomicUsize,
}

impl Mailbox {
    /// Tells the worker something. False if it is full or has stopped.
    pub fn command(&self, command: Command) -> bool {
        if matches!(command, Command::Add(_)) {
            // Counted before it is taken, so that many offers at once are spread.
            self.peers.fetch_add(1, Ordering::Relaxed);
        }
        let mut inbox = self.inbox.lock();
        let as_often_as_wished = matches!(command, Command::Restart(..) | Command::Pause(..));
        if inbox.stop || (as_often_as_wished && inbox.commands.len() >= MAX_RESTARTS) {
            return false;
        }
        inbox.commands.push(command);
        drop(inbox);
        self.changed.notify_one();
        true
    }

    /// Takes datagrams, all under one lock, and says how many did not fit.
    pub fn datagrams(&self, letters: &mut Letters) -> usize {
        let mut inbox = self.inbox.lock();
        if inbox.stop {
            return Letters::default().append(letters);
        }
        let urgent = letters.is_urgent();
        let lost = inbox.letters.append(letters);
        // Nobody waits for what a report says: it need not cost a wake-up of its own.
        let soon = inbox.looks_at.is_some_and(|at| at < Instant::now() + TICK);
        drop(inbox);
        if urgent || !soon {
            self.changed.notify_one();
        }
        lost
    }

    fn ready(&self, source: SourceKey) {
        self.inbox.lock().ready.push(source);
        self.changed.notify_one();
    }

    fn stop(&self) {
        self.inbox.lock().stop = true;
        self.changed.notify_one();
    }

    /// Takes all there is, waiting for something until `deadline`. `spare` must be empty; its memory is used again.
    /// True when the worker is to stop.
    fn take(&self, deadline: Instant, spare: &mut Inbox) -> bool {
        let mut inbox = self.inbox.lock();
        if inbox.is_empty() {
            inbox.looks_at = Some(deadline);
            self.changed.wait_until(&mut inbox, deadline);
            inbox.looks_at = None;
        }
        std::mem::swap(&mut *inbox, spare);
        inbox.stop = spare.stop;
        spare.stop
    }
}

/// All workers.
pub struct Workers {
    demux: Arc<Demux>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts `count` threads.
    pub fn start(count: usize, socket: &Arc<dyn DatagramSocket>) -> Result<Workers, String> {
        let demux = Arc::new(Demux::default());
        let workers = Workers {
            demux,
            mailboxes: (0..count).map(|_| Arc::default()).collect(),
            threads: Mutex::default(),
        };
        for (index, mailbox) in workers.mailboxes.iter().enumerate() {
            let worker = Worker {
                mailbox: mailbox.clone(),
                demux: workers.demux.clone(),
                runs: Runs::new(socket.clone()),
                peers: HashMap::default(),
                sources: HashMap::new(),
                timers: BinaryHeap::new(),
                packets: Vec::new(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("webrtc-{index}"))
                .spawn(move || worker.run())
                .map_err(|error| format!("a WebRTC worker thread can't be started: {error}"))?;
            workers.threads.lock().push(thread);
        }
        Ok(workers)
    }

    /// The maps that datagrams are routed by.
    pub fn demux(&self) -> &Arc<Demux> {
        &self.demux
    }

    /// The worker with the fewest peers.
    pub fn least_busy(&self) -> usize {
        let load = |mailbox: &Arc<Mailbox>| mailbox.peers.load(Ordering::Relaxed);
        self.mailboxes
            .iter()
            .enumerate()
            .min_by_key(|(_, mailbox)| load(mailbox))
            .map_or(0, |(index, _)| index)
    }

    /// A worker's mailbox.
    pub fn mailbox(&self, worker: usize) -> Option<&Arc<Mailbox>> {
        self.mailboxes.get(worker)
    }

    /// Tells a session's worker something. False if it can't take it.
    pub fn command(&self, route: Route, command: Command) -> bool {
        self.mailbox(route.worker).is_some_and(|mailbox| mailbox.command(command))
    }

    /// Hands datagrams to a worker. None is left in `letters`.
    pub fn deliver(&self, worker: usize, letters: &mut Letters) {
        if letters.is_empty() {
            return;
        }
        let lost = self.mailbox(worker).map_or(0, |mailbox| mailbox.datagrams(letters));
        self.demux.counters.overflow.fetch_add(lost as u64, Ordering::Relaxed);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Tells all workers to end their sessions and stop.
    pub fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
    }

    /// Waits for the threads. Blocks.
    pub fn join(&self) {
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // Panics of a peer are caught; one of the loop itself has been logged by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Wakes a worker for a source, once until it has looked.
struct SourceWake {
    mailbox: Arc<Mailbox>,
    key: SourceKey,
    woken: AtomicBool,
}

impl Wake for SourceWake {
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.mailbox.ready(self.key);
        }
    }
}

/// A source that peers of this worker watch.
struct Source {
    cursor: Cursor<Packet>,
    wake: Arc<SourceWake>,
    _subscription: Subscription<Packet>,
    producer: Arc<Producer>,
    peers: Vec<u64>,
    looked_at: Instant,
}

impl Source {
    fn open(producer: &Arc<Producer>, mailbox: &Arc<Mailbox>, now: Instant) -> Source {
        let key = SourceKey::of(producer);
        let wake = Arc::new(SourceWake { mailbox: mailbox.clone(), key, woken: AtomicBool::new(false) });
        let subscription = producer.packets().subscribe(wake.clone());
        Source {
            cursor: producer.packets().live(),
            wake,
            _subscription: subscription,
            producer: producer.clone(),
            peers: Vec::new(),
            looked_at: now,
        }
    }

    /// Whether the source has shown B-frames; asked now and then.
    fn has_b_frames(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.looked_at) < REORDERING_INTERVAL {
            return false;
        }
        self.looked_at = now;
        self.producer.observed().reordering == Reordering::Yes
    }
}

struct Worker {
    mailbox: Arc<Mailbox>,
    demux: Arc<Demux>,
    runs: Runs,
    peers: HashMap<u64, Box<Peer>, Spread>,
    sources: HashMap<SourceKey, Source>,
    /// Earliest first. Entries that a peer's `scheduled` does not name are of the past.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    packets: Vec<Packet>,
}

impl Worker {
    fn run(mut self) {
        let mut inbox = Inbox::default();
        loop {
            let deadline = self.timers.peek().map_or_else(|| Instant::now() + IDLE, |Reverse((at, _))| *at);
            let stop = self.mailbox.take(deadline, &mut inbox);
            for command in inbox.commands.drain(..) {
                self.command(command);
            }
            let demux = self.demux.clone();
            inbox.letters.open(|peer, inbound| {
                self.touch(peer, |peer, runs| peer.receive(inbound, runs, &demux.counters));
            });
            for source in inbox.ready.drain(..) {
                self.drain(source);
            }
            self.run_timers(Instant::now());
            let unsent = self.runs.take_unsent();
            self.demux.counters.unsent.fetch_add(unsent, Ordering::Relaxed);
            self.mailbox.peers.store(self.peers.len(), Ordering::Relaxed);
            if stop {
                let all: Vec<u64> = self.peers.keys().copied().collect();
                all.into_iter().for_each(|peer| self.command(Command::End(peer, End::Shutdown)));
                return;
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Add(peer) => {
                let id = peer.id;
                self.peers.insert(id, peer);
                self.look_after(id);
            }
            Command::End(peer, end) => self.touch(peer, |peer, _| peer.set_ended(end)),
            Command::Pause(peer, paused) => self.touch(peer, |peer, _| peer.set_paused(paused)),
            Command::Restart(peer, local, remote) => {
                self.touch(peer, |peer, runs| peer.restart_ice(local, remote, Instant::now(), runs));
            }
        }
    }

    /// Does something with a peer. A panic ends that peer only.
    fn touch(&mut self, id: u64, action: impl FnOnce(&mut Peer, &mut Runs)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let runs = &mut self.runs;
        if catch_unwind(AssertUnwindSafe(|| action(peer, runs))).is_err() {
            return self.drop_peer(id);
        }
        self.look_after(id);
    }

    /// After anything was done with a peer: what it needs, whether it has ended, when it is due.
    fn look_after(&mut self, id: u64) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let needs = peer.take_needs();
        if needs.media || needs.replay {
            self.serve(id, needs.media);
        }
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.ended().is_some() {
            let runs = &mut self.runs;
            if catch_unwind(AssertUnwindSafe(|| peer.farewell(runs))).is_err() {
                tracing::error!(peer = id, "internal error while ending a viewer");
            }
            return self.drop_peer(id);
        }
        let at = peer.wake_at();
        if peer.scheduled.is_none_or(|scheduled| at < scheduled) {
            peer.scheduled = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    /// Gives a peer the cached GOPs of its sources: to begin with, or again.
    fn serve(&mut self, id: u64, begin: bool) {
        let now = Instant::now();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut producers: Vec<Arc<Producer>> = Vec::new();
        for lane in peer.lanes() {
            if !producers.iter().any(|known| Arc::ptr_eq(known, lane.setup.lease.producer())) {
                producers.push(lane.setup.lease.producer().clone());
            }
        }
        for producer in producers {
            let key = SourceKey::of(&producer);
            let mailbox = &self.mailbox;
            let source = self.sources.entry(key).or_insert_with(|| Source::open(&producer, mailbox, now));
            self.packets.clear();
            let backlog = source.cursor.backlog(&mut self.packets);
            if begin && !source.peers.contains(&id) {
                source.peers.push(id);
            }
            if let Some(backlog) = backlog {
                let (packets, runs) = (&self.packets, &mut self.runs);
                let action = AssertUnwindSafe(|| {
                    if begin {
                        peer.begin(key, &backlog, packets, now, runs);
                    } else {
                        peer.replay(key, &backlog, packets, now, runs);
                    }
                });
                if catch_unwind(action).is_err() {
                    return self.drop_peer(id);
                }
            }
        }
        self.packets.clear();
    }

    /// Sends what a source has brought to all who watch it.
    fn drain(&mut self, key: SourceKey) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.wake.woken.store(false, Ordering::Release);
        let viewers = std::mem::take(&mut source.peers);
        let (mut panicked, mut needy) = (Vec::new(), Vec::new());
        let now = Instant::now();
        let b_frames = source.has_b_frames(now);
        loop {
            self.packets.clear();
            let Some(batch) = source.cursor.read(BATCH, &mut self.packets) else { break };
            let now = Instant::now();
            for id in &viewers {
                let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.ended().is_none()) else {
                    continue;
                };
                let (packets, runs) = (&self.packets, &mut self.runs);
                if catch_unwind(AssertUnwindSafe(|| peer.deliver(key, &batch, packets, now, runs))).is_err() {
                    panicked.push(*id);
                    peer.set_ended(End::Failed);
                }
                if b_frames {
                    peer.end_for_b_frames(key);
                }
                if peer.is_needy() {
                    needy.push(*id);
                }
            }
        }
        self.packets.clear();
        source.peers.extend(&viewers);
        panicked.into_iter().for_each(|id| self.drop_peer(id));
        for id in needy {
            self.look_after(id);
        }
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.scheduled == Some(at)) else {
                continue;
            };
            peer.scheduled = None;
            if peer.wake_at() > now {
                self.look_after(id);
            } else {
                self.touch(id, |peer, runs| peer.on_timer(now, runs));
            }
        }
    }

    /// Forgets a peer, and sources that nobody watches any more.
    fn drop_peer(&mut self, id: u64) {
        self.runs.flush();
        self.peers.remove(&id);
        self.sources.retain(|_, source| {
            source.peers.retain(|peer| *peer != id);
            !source.peers.is_empty()
        });
    }
}
