//! What happens to streams and viewers, told to whoever listens. Bounded: a slow listener is told how much it missed.

use super::producer::{Producer, State};
use super::source::SourceError;
use futures_util::future::select_all;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Events that a listener may be behind.
const BACKLOG: usize = 256;

/// What happened to a stream as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamChange {
    /// It is new.
    Created,
    /// It was replaced, or its options changed.
    Changed,
    /// It is gone.
    Removed,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stream came, changed or went.
    Stream {
        /// Its name.
        stream: String,
        /// What became of it.
        change: StreamChange,
    },
    /// The state of a stream's leading source is another one.
    State {
        /// The stream.
        stream: String,
        /// The state it is in now.
        state: State,
        /// Why its source failed last; `None` once media flows again.
        error: Option<SourceError>,
    },
    /// A viewer came.
    Joined {
        /// What it watches.
        stream: String,
        /// Its id.
        id: u64,
        /// The kind, e.g. `webrtc`.
        format_name: &'static str,
        /// Peer address.
        remote_addr: String,
        /// The HTTP client's `User-Agent`.
        user_agent: String,
    },
    /// A viewer went.
    Left {
        /// What it watched.
        stream: String,
        /// Its id.
        id: u64,
    },
    /// Another configuration is in effect.
    Configured,
}

/// Where events are published and listened to.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Events(broadcast::Sender::new(BACKLOG))
    }
}

/// What a listener gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The next event.
    Event(Event),
    /// The listener was behind: so many events are lost to it.
    Lost(u64),
}

/// One listener's place.
pub struct Listener(broadcast::Receiver<Event>);

impl Events {
    /// Tells everybody who listens. Never waits.
    pub fn publish(&self, event: Event) {
        // Nobody listening is no fault.
        let _ = self.0.send(event);
    }

    /// Whether `event` need be made at all.
    pub(super) fn publish_with(&self, event: impl FnOnce() -> Event) {
        if self.listeners() > 0 {
            self.publish(event());
        }
    }

    /// Hears what is published from now on.
    pub fn listen(&self) -> Listener {
        Listener(self.0.subscribe())
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }
}

impl Listener {
    /// Waits for the next event. `None` when there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.0.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Heard::Lost(events)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The state of the source that is furthest on its way.
pub(super) fn leading(states: impl Iterator<Item = State>) -> State {
    states
        .min_by_key(|state| match state {
            State::Live => 0,
            State::Connecting => 1,
            State::Retrying => 2,
            State::Idle => 3,
        })
        .unwrap_or(State::Idle)
}

/// Publishes a stream's states until it is cancelled. States that last no longer than a task's turn may be left out.
pub(super) async fn report_states(
    stream: String,
    producers: Vec<Arc<Producer>>,
    events: Events,
    cancel: CancellationToken,
) {
    let mut statuses: Vec<_> = producers.iter().map(|producer| producer.statuses()).collect();
    let mut last = State::Idle;
    while !statuses.is_empty() {
        let now: Vec<_> = statuses.iter_mut().map(|status| status.borrow_and_update().clone()).collect();
        let state = leading(now.iter().map(|status| status.state));
        if state != last {
            last = state;
            events.publish_with(|| Event::State {
                stream: stream.clone(),
                state,
                error: now.into_iter().filter(|s| s.state == state).find_map(|status| status.last_error),
            });
        }
        let changes = statuses.iter_mut().map(|status| Box::pin(status.changed()));
        tokio::select! {
            () = cancel.cancelled() => return,
            (changed, ..) = select_all(changes) => if changed.is_err() { return },
        }
    }
}
