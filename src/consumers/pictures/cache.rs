//! The last picture of each stream and size, so that nothing is decoded twice.

use super::decode::Size;
use super::shot::Shot;
use crate::graph::Stream;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Pictures that are kept at most.
const MAX_PICTURES: usize = 128;
/// Their bytes together.
const MAX_BYTES: usize = 64 << 20;

type Key = (String, Size);

/// All last pictures.
#[derive(Default)]
pub struct Cache(Mutex<HashMap<Key, Arc<Slot>>>);

/// The last picture of one stream in one size.
pub struct Slot {
    /// A stream that took the place of this one has pictures of its own.
    stream: Weak<Stream>,
    made: Mutex<Option<Made>>,
    /// Held by whoever makes the next one.
    pub making: tokio::sync::Mutex<()>,
}

struct Made {
    /// The keyframe it was made of: epoch and RTP time.
    of: (u64, u64),
    jpeg: Bytes,
    at: Instant,
}

impl Cache {
    /// The place of a stream's picture.
    pub fn slot(&self, stream: &Arc<Stream>, size: Size) -> Arc<Slot> {
        let mut slots = self.0.lock();
        if slots.len() >= 2 * MAX_PICTURES {
            // Places of requests that came to nothing: a client may ask for a new size each time.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.made.lock().is_some());
        }
        let slot =
            slots.entry((stream.name().to_owned(), size)).or_insert_with(|| Arc::new(Slot::new(stream)));
        if !std::ptr::eq(slot.stream.as_ptr(), Arc::as_ptr(stream)) {
            *slot = Arc::new(Slot::new(stream));
        }
        slot.clone()
    }

    /// Lets go of the oldest pictures, of those without a stream, and of places that have none and that nobody waits at.
    pub fn trim(&self) {
        let mut slots = self.0.lock();
        slots.retain(|_, slot| slot.stream.strong_count() > 0);
        let mut ages: Vec<(Key, Instant, usize)> = Vec::new();
        slots.retain(|key, slot| match &*slot.made.lock() {
            Some(made) => {
                ages.push((key.clone(), made.at, made.jpeg.len()));
                true
            }
            None => Arc::strong_count(slot) > 1,
        });
        ages.sort_by_key(|(_, at, _)| *at);
        let (mut count, mut bytes) = (ages.len(), ages.iter().map(|(_, _, bytes)| bytes).sum::<usize>());
        for (key, _, size) in ages {
            if count <= MAX_PICTURES && bytes <= MAX_BYTES {
                break;
            }
            slots.remove(&key);
            (count, bytes) = (count - 1, bytes - size);
        }
    }
}

impl Slot {
    fn new(stream: &Arc<Stream>) -> Slot {
        Slot { stream: Arc::downgrade(stream), made: Mutex::default(), making: tokio::sync::Mutex::default() }
    }

    /// The picture, if it was made no longer ago.
    pub fn younger_than(&self, age: Duration) -> Option<Bytes> {
        self.made.lock().as_ref().filter(|made| made.at.elapsed() <= age).map(|made| made.jpeg.clone())
    }

    /// The picture, if it is that of this keyframe.
    pub fn of(&self, shot: &Shot) -> Option<Bytes> {
        let of = (shot.epoch, shot.frame.rtp_time);
        self.made.lock().as_ref().filter(|made| made.of == of).map(|made| made.jpeg.clone())
    }

    /// Keeps a keyframe's picture in the place of the one before.
    pub fn keep(&self, shot: &Shot, jpeg: Bytes) {
        let of = (shot.epoch, shot.frame.rtp_time);
        *self.made.lock() = Some(Made { of, jpeg, at: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StreamConfig;
    use crate::graph::Registry;
    use crate::graph::source::Silent;

    #[tokio::test]
    async fn requests_that_come_to_nothing_leave_no_places_without_end() {
        let registry = Registry::new(Arc::new(|_: &str| Ok(Arc::new(Silent))));
        registry.set("front", StreamConfig::new(vec!["test:".into()])).unwrap();
        let stream = registry.get("front").unwrap();
        let cache = Cache::default();
        for width in 16..4000 {
            drop(cache.slot(&stream, Size { width: Some(width), height: None }));
        }
        assert!(cache.0.lock().len() <= 2 * MAX_PICTURES);
    }
}
