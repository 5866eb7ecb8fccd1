//! The ring: fan-out, GOP cache and drop policy in one.
//!
//! One writer appends units in arrival order; any number of [`Cursor`]s read at their own pace without copying media
//! and without slowing the writer. The ring keeps the last complete GOP and the one being written, bounded in bytes
//! and items. A cursor that falls behind what is kept is moved to the newest entry point (keyframe), and the skip is
//! counted: its viewer sees a jump, never a corrupt picture.

use crate::media::{Frame, Packet, Track};
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// What a ring holds. Cloning must be cheap (shared payloads).
pub trait Unit: Clone + Send + Sync + 'static {
    /// Bytes counted against the ring's bound.
    fn size(&self) -> usize;
    /// A reader may start with this unit: first unit of a video keyframe.
    fn is_keyframe_start(&self) -> bool;
}

impl Unit for Packet {
    fn size(&self) -> usize {
        self.payload.len()
    }
    fn is_keyframe_start(&self) -> bool {
        self.keyframe && self.starts_unit
    }
}

impl Unit for Frame {
    fn size(&self) -> usize {
        self.data.len()
    }
    fn is_keyframe_start(&self) -> bool {
        self.keyframe
    }
}

/// What all units between two codec or parameter-set changes have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Counts from 1 within a ring; 0 is the empty epoch before the first tracks.
    pub id: u64,
    /// The tracks, by the index that units carry.
    pub tracks: Vec<Track>,
}

/// Bounds of a ring.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Payload bytes at most.
    pub bytes: usize,
    /// Units at most.
    pub units: usize,
    /// Units that are kept even when no GOP needs them, so that a reader may pause briefly.
    pub slack: usize,
}

impl Default for Limits {
    /// 48 MiB, 65 536 units: a 10 s GOP of a 4K camera at 20 Mbit/s, and its predecessor while it fits.
    fn default() -> Self {
        Limits { bytes: 48 << 20, units: 65_536, slack: 512 }
    }
}

/// Is told that a ring has something new. Called from the writer: must not block.
pub trait Wake: Send + Sync {
    /// There is something to read.
    fn wake(&self);
}

impl Wake for Notify {
    fn wake(&self) {
        self.notify_one();
    }
}

/// One writer, many readers; see the module's page.
pub struct Ring<T> {
    inner: Mutex<Inner<T>>,
    wakers: RwLock<Vec<(u64, Arc<dyn Wake>)>>,
    next_waker: AtomicU64,
    limits: Limits,
}

struct Inner<T> {
    units: VecDeque<T>,
    /// Index of `units[0]`; indices count from 0 for the ring's whole life.
    head: u64,
    bytes: usize,
    /// Index of the newest entry point still held.
    entry: Option<u64>,
    /// Index of the one before it.
    previous_entry: Option<u64>,
    /// Every unit is an entry point: there is no video.
    audio_only: bool,
    /// First index of each epoch that units are held of, oldest first; never empty.
    epochs: VecDeque<(u64, Arc<Epoch>)>,
}

impl<T: Unit> Inner<T> {
    fn end(&self) -> u64 {
        self.head + self.units.len() as u64
    }

    fn epoch_at(&self, index: u64) -> usize {
        self.epochs.iter().rposition(|(start, _)| *start <= index).unwrap_or(0)
    }

    fn evict(&mut self, limits: &Limits) {
        let keep_from = self.previous_entry.or(self.entry).unwrap_or(self.head);
        while let Some(oldest) = self.units.front() {
            let over = self.bytes > limits.bytes || self.units.len() > limits.units;
            let spare = self.units.len() > limits.slack && (self.audio_only || self.head < keep_from);
            if !over && !spare {
                break;
            }
            self.bytes -= oldest.size();
            self.units.pop_front();
            self.head += 1;
        }
        self.previous_entry = self.previous_entry.filter(|&i| i >= self.head);
        self.entry = self.entry.filter(|&i| i >= self.head);
        while self.epochs.len() > 1 && self.epochs[1].0 <= self.head {
            self.epochs.pop_front();
        }
    }
}

impl<T: Unit> Ring<T> {
    /// An empty ring.
    pub fn new(limits: Limits) -> Arc<Ring<T>> {
        let empty = Arc::new(Epoch { id: 0, tracks: Vec::new() });
        Arc::new(Ring {
            inner: Mutex::new(Inner {
                units: VecDeque::new(),
                head: 0,
                bytes: 0,
                entry: None,
                previous_entry: None,
                audio_only: false,
                epochs: VecDeque::from([(0, empty)]),
            }),
            wakers: RwLock::new(Vec::new()),
            next_waker: AtomicU64::new(0),
            limits,
        })
    }

    /// Appends units and wakes the readers once. `units` is left empty, with its capacity.
    pub fn push_all(&self, units: &mut Vec<T>) {
        if units.is_empty() {
            return;
        }
        {
            let mut inner = self.inner.lock();
            for unit in units.drain(..) {
                if inner.audio_only || unit.is_keyframe_start() {
                    inner.previous_entry = inner.entry;
                    inner.entry = Some(inner.end());
                }
                inner.bytes += unit.size();
                inner.units.push_back(unit);
            }
            inner.evict(&self.limits);
        }
        for (_, waker) in self.wakers.read().iter() {
            waker.wake();
        }
    }

    /// What is pushed from here on belongs to a new epoch. Returns it.
    ///
    /// Units of the old epoch stay readable for cursors that are behind, but nobody joins there any more.
    pub fn begin_epoch(&self, tracks: Vec<Track>) -> Arc<Epoch> {
        let mut inner = self.inner.lock();
        let id = inner.epochs.back().map_or(0, |(_, epoch)| epoch.id) + 1;
        inner.audio_only = !tracks.iter().any(|track| track.kind() == crate::media::Kind::Video);
        let epoch = Arc::new(Epoch { id, tracks });
        let end = inner.end();
        inner.entry = None;
        inner.previous_entry = None;
        inner.epochs.push_back((end, epoch.clone()));
        epoch
    }

    /// The epoch that units are being written in.
    pub fn epoch(&self) -> Arc<Epoch> {
        let inner = self.inner.lock();
        inner.epochs[inner.epochs.len() - 1].1.clone()
    }

    /// Nobody joins at what is held now: the source has gone, the cached GOP is the past.
    pub fn forget_entry(&self) {
        let mut inner = self.inner.lock();
        inner.entry = None;
        inner.previous_entry = None;
    }

    /// Frees all units. Cursors go on with what comes next.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.head = inner.end();
        inner.units = VecDeque::new();
        inner.bytes = 0;
        inner.entry = None;
        inner.previous_entry = None;
        let last = inner.epochs.len() - 1;
        inner.epochs.drain(..last);
    }

    /// The unit that was written last, if it is still held.
    pub fn newest(&self) -> Option<T> {
        self.inner.lock().units.back().cloned()
    }

    /// A unit by its index, which counts from 0 for the ring's whole life ([`Batch::first`]), while it is held.
    pub fn get(&self, index: u64) -> Option<T> {
        let inner = self.inner.lock();
        let at = index.checked_sub(inner.head)?;
        inner.units.get(usize::try_from(at).ok()?).cloned()
    }

    /// A cursor that reads what is written from now on.
    pub fn live(self: &Arc<Self>) -> Cursor<T> {
        let next = self.inner.lock().end();
        Cursor { ring: self.clone(), next, skipped: 0, needs_entry: false }
    }

    /// A cursor at the newest entry point; where none is held, at the next one.
    pub fn from_entry(self: &Arc<Self>) -> Cursor<T> {
        let inner = self.inner.lock();
        let entry = inner.entry.filter(|_| !inner.audio_only);
        let next = entry.unwrap_or_else(|| inner.end());
        let needs_entry = entry.is_none() && !inner.audio_only;
        drop(inner);
        Cursor { ring: self.clone(), next, skipped: 0, needs_entry }
    }

    /// Registers a waker until the subscription is dropped.
    pub fn subscribe(self: &Arc<Self>, waker: Arc<dyn Wake>) -> Subscription<T> {
        let id = self.next_waker.fetch_add(1, Ordering::Relaxed);
        self.wakers.write().push((id, waker));
        Subscription { ring: self.clone(), id }
    }

    /// Bytes and units held now.
    pub fn usage(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.bytes, inner.units.len())
    }
}

/// Keeps a waker registered; dropping it ends that.
pub struct Subscription<T> {
    ring: Arc<Ring<T>>,
    id: u64,
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        self.ring.wakers.write().retain(|(id, _)| *id != self.id);
    }
}

/// What one read of a cursor gave.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The epoch of all units of the batch; a batch never crosses an epoch's border.
    pub epoch: Arc<Epoch>,
    /// The reader had fallen behind: units are missing before this batch, which starts at an entry point.
    pub skipped: bool,
    /// What [`Ring::get`] knows its first unit by; the others follow.
    pub first: u64,
}

/// A reader's place in a ring.
pub struct Cursor<T> {
    ring: Arc<Ring<T>>,
    next: u64,
    skipped: u64,
    /// Units are passed over until an entry point comes: a decoder can't start in the middle of a GOP.
    needs_entry: bool,
}

impl<T: Unit> Cursor<T> {
    /// Appends what is there to `out`, at most `max` units of one epoch. `None` when there is nothing new.
    pub fn read(&mut self, max: usize, out: &mut Vec<T>) -> Option<Batch> {
        let inner = self.ring.inner.lock();
        self.needs_entry |= self.next < inner.head;
        let skipped = self.needs_entry;
        if skipped {
            // A GOP's start that has been passed already is no place to go on at.
            let entry = inner.entry.filter(|&entry| entry >= self.next);
            let target = entry.unwrap_or_else(|| inner.end());
            self.skipped += target - self.next;
            self.next = target;
            self.needs_entry = entry.is_none() && !inner.audio_only;
        }
        if self.next >= inner.end() {
            return None;
        }
        let at = inner.epoch_at(self.next);
        let epoch_end = inner.epochs.get(at + 1).map_or(u64::MAX, |(start, _)| *start);
        let to = inner.end().min(epoch_end).min(self.next.saturating_add(max as u64));
        let first = self.next;
        let range = (first - inner.head) as usize..(to - inner.head) as usize;
        out.extend(inner.units.range(range).cloned());
        self.next = to;
        Some(Batch { epoch: inner.epochs[at].1.clone(), skipped, first })
    }

    /// Appends the units from the newest entry point that this cursor has passed up to its place: what a viewer who
    /// joins a group that shares this cursor needs first. `None` (and nothing appended) when no entry point is held.
    pub fn backlog(&self, out: &mut Vec<T>) -> Option<Batch> {
        let inner = self.ring.inner.lock();
        if inner.audio_only {
            return None;
        }
        let from = [inner.entry, inner.previous_entry].into_iter().flatten().find(|&i| i < self.next)?;
        let to = self.next.min(inner.end());
        let range = (from - inner.head) as usize..(to - inner.head) as usize;
        out.extend(inner.units.range(range).cloned());
        Some(Batch { epoch: inner.epochs[inner.epoch_at(from)].1.clone(), skipped: false, first: from })
    }

    /// Units that this cursor never saw because it fell behind.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The ring it reads.
    pub fn ring(&self) -> &Arc<Ring<T>> {
        &self.ring
    }
}

/// A cursor that can be awaited.
pub struct Reader<T: Unit> {
    cursor: Cursor<T>,
    notify: Arc<Notify>,
    _subscription: Subscription<T>,
}

impl<T: Unit> Reader<T> {
    /// Makes a cursor awaitable.
    pub fn new(cursor: Cursor<T>) -> Reader<T> {
        let notify = Arc::new(Notify::new());
        let subscription = cursor.ring().subscribe(notify.clone());
        Reader { cursor, notify, _subscription: subscription }
    }

    /// Waits for units and appends them to `out`, at most `max`. Cancel-safe.
    pub async fn read(&mut self, max: usize, out: &mut Vec<T>) -> Batch {
        loop {
            if let Some(batch) = self.cursor.read(max, out) {
                return batch;
            }
            self.notify.notified().await;
        }
    }

    /// Units that were never seen because the reader fell behind.
    pub fn skipped(&self) -> u64 {
        self.cursor.skipped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Codec, Params, StreamTime};

    fn tracks(codec: Codec) -> Vec<Track> {
        vec![Track { codec, clock_rate: 90_000, channels: 0, params: Params::None }]
    }

    fn packet(number: u64, keyframe: bool, size: usize) -> Packet {
        Packet {
            track: 0,
            rtp_time: number,
            time: StreamTime::default(),
            starts_unit: true,
            ends_unit: true,
            keyframe,
            payload: vec![0; size].into(),
        }
    }

    fn ring(limits: Limits) -> Arc<Ring<Packet>> {
        let ring = Ring::new(limits);
        ring.begin_epoch(tracks(Codec::H264));
        ring
    }

    fn push(ring: &Ring<Packet>, numbers: std::ops::Range<u64>, gop: u64) {
        for n in numbers {
            ring.push_all(&mut vec![packet(n, n % gop == 0, 10)]);
        }
    }

    fn numbers(packets: &[Packet]) -> Vec<u64> {
        packets.iter().map(|p| p.rtp_time).collect()
    }

    const NO_SLACK: Limits = Limits { bytes: 1 << 20, units: 1000, slack: 0 };

    #[test]
    fn every_cursor_sees_every_unit_in_order() {
        let ring = ring(NO_SLACK);
        let (mut a, mut b) = (ring.live(), ring.live());
        push(&ring, 0..7, 10);
        let (mut seen_a, mut seen_b) = (Vec::new(), Vec::new());
        a.read(usize::MAX, &mut seen_a).unwrap();
        while b.read(2, &mut seen_b).is_some() {}
        assert_eq!(numbers(&seen_a), (0..7).collect::<Vec<_>>());
        assert_eq!(seen_a, seen_b);
        assert!(a.read(usize::MAX, &mut seen_a).is_none());
    }

    #[test]
    fn a_joiner_starts_at_the_last_keyframe() {
        let ring = ring(NO_SLACK);
        push(&ring, 0..25, 10);
        let mut out = Vec::new();
        ring.from_entry().read(usize::MAX, &mut out).unwrap();
        assert_eq!(numbers(&out), vec![20, 21, 22, 23, 24]);
    }

    #[test]
    fn the_last_complete_gop_is_kept_and_older_ones_are_not() {
        let ring = ring(NO_SLACK);
        push(&ring, 0..35, 10);
        assert_eq!(ring.usage(), (150, 15));
    }

    #[test]
    fn slow_reader_resumes_at_a_keyframe_and_the_skip_is_counted() {
        let ring = ring(NO_SLACK);
        let mut slow = ring.live();
        push(&ring, 0..47, 10);
        let mut out = Vec::new();
        let batch = slow.read(usize::MAX, &mut out).unwrap();
        assert!(batch.skipped);
        assert!(out[0].keyframe);
        assert_eq!(numbers(&out), (40..47).collect::<Vec<_>>());
        assert_eq!(slow.skipped(), 40);
        assert!(slow.read(usize::MAX, &mut out).is_none());
    }

    #[test]
    fn an_endless_gop_stays_within_the_bounds_and_nobody_joins_in_its_middle() {
        let ring = ring(Limits { bytes: 1000, units: 50, slack: 0 });
        let mut early = ring.live();
        push(&ring, 0..1, 10);
        for n in 1..500 {
            ring.push_all(&mut vec![packet(n, false, 10)]);
        }
        assert!(ring.usage().0 <= 1000 && ring.usage().1 <= 50);
        let mut out = Vec::new();
        assert!(ring.from_entry().read(usize::MAX, &mut out).is_none());
        assert!(early.read(usize::MAX, &mut out).is_none());
        ring.push_all(&mut vec![packet(499, false, 10)]);
        assert!(early.read(usize::MAX, &mut out).is_none(), "nobody goes on in the middle of a GOP");
        ring.push_all(&mut vec![packet(500, true, 10)]);
        assert!(early.read(usize::MAX, &mut out).is_some());
        assert_eq!(numbers(&out), vec![500]);
    }

    #[test]
    fn a_batch_never_crosses_an_epoch() {
        let ring = ring(Limits { slack: 100, ..NO_SLACK });
        let mut cursor = ring.live();
        push(&ring, 0..3, 10);
        ring.begin_epoch(tracks(Codec::H265));
        push(&ring, 10..13, 10);
        let mut out = Vec::new();
        let first = cursor.read(usize::MAX, &mut out).unwrap();
        assert_eq!((first.epoch.tracks[0].codec, out.len()), (Codec::H264, 3));
        let second = cursor.read(usize::MAX, &mut out).unwrap();
        assert_eq!((second.epoch.tracks[0].codec, out.len()), (Codec::H265, 6));
        assert_eq!(second.epoch.id, first.epoch.id + 1);
    }

    #[test]
    fn a_unit_is_found_by_its_index_while_it_is_held() {
        let ring = ring(NO_SLACK);
        let mut cursor = ring.live();
        push(&ring, 0..5, 10);
        let mut out = Vec::new();
        let batch = cursor.read(3, &mut out).unwrap();
        let again: Vec<_> = (batch.first..).take(3).map(|index| ring.get(index).unwrap()).collect();
        assert_eq!(again, out);
        let next = cursor.read(usize::MAX, &mut out).unwrap();
        assert_eq!(numbers(&[ring.get(next.first).unwrap()]), [3]);
        assert_eq!(cursor.backlog(&mut Vec::new()).unwrap().first, batch.first);
        assert!(ring.get(batch.first + 5).is_none(), "not written yet");
        push(&ring, 10..35, 10);
        assert!(ring.get(batch.first).is_none(), "no longer held");
        ring.clear();
        assert!(ring.get(batch.first + 29).is_none());
    }

    #[test]
    fn a_backlog_runs_from_the_keyframe_to_the_shared_cursor() {
        let ring = ring(NO_SLACK);
        let mut shared = ring.live();
        push(&ring, 0..13, 10);
        let mut out = Vec::new();
        while shared.read(usize::MAX, &mut out).is_some() {}
        push(&ring, 13..15, 10);
        let mut backlog = Vec::new();
        shared.backlog(&mut backlog).unwrap();
        assert_eq!(numbers(&backlog), vec![10, 11, 12]);
    }

    #[test]
    fn audio_needs_no_keyframe() {
        let ring = Ring::new(Limits { slack: 4, ..NO_SLACK });
        ring.begin_epoch(tracks(Codec::Pcma));
        let mut slow = ring.live();
        push(&ring, 0..100, 1000);
        let mut out = Vec::new();
        assert!(slow.read(usize::MAX, &mut out).unwrap().skipped);
        assert_eq!(numbers(&out), vec![99]);
        assert_eq!(ring.usage().1, 4);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let ring = ring(NO_SLACK);
        let mut reader = Reader::new(ring.live());
        let writer = tokio::spawn({
            let ring = ring.clone();
            async move { push(&ring, 0..1, 10) }
        });
        let mut out = Vec::new();
        reader.read(usize::MAX, &mut out).await;
        writer.await.unwrap();
        assert_eq!(numbers(&out), vec![0]);
    }
}
