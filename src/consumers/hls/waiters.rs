//! Requests that wait until the playlist reaches a place: one bell for each place, rung once.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A place in the playlist: a segment's number and the index of one of its parts, or the whole segment.
pub type Place = (u64, Option<u64>);

/// The bells. There are as many as places are waited for, so at most one for each waiter.
#[derive(Debug, Default)]
pub struct Waiters {
    bells: Mutex<BTreeMap<Place, Arc<Notify>>>,
}

/// Somebody who waits for a place.
#[derive(Debug)]
pub struct Waiter<'a> {
    waiters: &'a Waiters,
    place: Place,
    bell: Arc<Notify>,
}

impl Waiters {
    /// Waits for a place from now on; see [`Waiter::rung`].
    pub fn at(&self, place: Place) -> Waiter<'_> {
        let bell = self.bells.lock().entry(place).or_default().clone();
        Waiter { waiters: self, place, bell }
    }

    /// Wakes those whose place is reached, all others sleep on.
    pub fn ring(&self, reached: impl Fn(Place) -> bool) {
        self.bells.lock().retain(|place, bell| {
            let waits = !reached(*place);
            if !waits {
                bell.notify_waiters();
            }
            waits
        });
    }
}

impl Waiter<'_> {
    /// Completes when the place is reached. Enable it before looking whether the place is reached already.
    pub fn rung(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut bells = self.waiters.bells.lock();
        // The map's and ours: nobody else waits here. A bell that was rung is not in the map any more.
        if Arc::strong_count(&self.bell) == 2
            && bells.get(&self.place).is_some_and(|bell| Arc::ptr_eq(bell, &self.bell))
        {
            bells.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_who_waits_for_what_has_come_is_woken_and_once() {
        let waiters = Waiters::default();
        let (part, whole) = (waiters.at((5, Some(2))), waiters.at((5, None)));
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let (mut first, mut second) = (pin!(part.rung()), pin!(whole.rung()));
        let wakers = counts.clone().map(Waker::from);
        let [one, other] = [&wakers[0], &wakers[1]].map(Context::from_waker);
        let (mut one, mut other) = (one, other);
        assert!(first.as_mut().poll(&mut one).is_pending());
        assert!(second.as_mut().poll(&mut other).is_pending());
        for last in 0..4 {
            waiters.ring(|(segment, part)| segment == 5 && part.is_some_and(|part| part <= last));
        }
        let woken = |at: usize| counts[at].0.load(Ordering::Relaxed);
        assert_eq!((woken(0), woken(1)), (1, 0));
        assert_eq!(first.as_mut().poll(&mut one), Poll::Ready(()));
        waiters.ring(|_| true);
        assert_eq!((woken(0), woken(1)), (1, 1));
    }

    #[test]
    fn who_leaves_takes_the_bell_along() {
        let waiters = Waiters::default();
        let (first, second) = (waiters.at((1, None)), waiters.at((1, None)));
        drop(first);
        assert_eq!(waiters.bells.lock().len(), 1);
        drop(second);
        assert!(waiters.bells.lock().is_empty());
        let rung = waiters.at((2, None));
        waiters.ring(|_| true);
        let again = waiters.at((2, None));
        drop(rung);
        assert_eq!(waiters.bells.lock().len(), 1, "another bell at the same place stays");
        drop(again);
    }
}
