//! Which session a datagram is for: by its source address, or by the username fragment of a connectivity check.
//! Looked up, never searched.

use dashmap::DashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use str0m::net::Protocol;

/// Addresses at most that one session may be known by.
pub const MAX_ADDRESSES: usize = 16;

/// Where a session lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Index of the worker.
    pub worker: usize,
    /// The peer's number, unique in the process.
    pub peer: u64,
    /// Reduced-size RTCP was negotiated (RFC 5506): what can't wait for the next report does not come with one.
    pub reduced_size: bool,
}

/// What the API knows of a session.
#[derive(Debug, Clone)]
pub struct Session {
    /// Where it lives.
    pub route: Route,
    /// Names the present ICE credentials.
    pub etag: String,
    /// Our present ICE username fragment.
    pub local_ufrag: String,
    /// The viewer's present ICE username fragment and password.
    pub remote: (String, String),
    /// `m=` and `a=mid:` lines of the first section, for answers to trickle requests.
    pub section: String,
    /// Our `candidate:` lines.
    pub candidates: Arc<[String]>,
}

/// Counts of what came from the network and was not for anybody.
#[derive(Debug, Default)]
pub struct Counters {
    /// Datagrams that no session was found for.
    pub unknown: AtomicU64,
    /// Datagrams dropped because a worker was behind.
    pub overflow: AtomicU64,
    /// Datagrams that a session did not accept: wrong keys, or not its own.
    pub refused: AtomicU64,
    /// Datagrams that the socket did not take.
    pub unsent: AtomicU64,
}

/// The three maps.
#[derive(Default)]
pub struct Demux {
    by_address: DashMap<SocketAddr, Route>,
    by_ufrag: DashMap<String, Route>,
    sessions: DashMap<String, Session>,
    /// What was not for anybody.
    pub counters: Counters,
}

impl Demux {
    /// Lists a session until the registration is dropped.
    pub fn register(self: &Arc<Self>, name: &str, session: Session) -> Registration {
        let route = session.route;
        self.by_ufrag.insert(session.local_ufrag.clone(), route);
        self.sessions.insert(name.to_owned(), session);
        Registration { demux: self.clone(), name: name.to_owned(), route, addresses: Vec::new() }
    }

    /// The session that has sent from this address before.
    pub fn by_address(&self, source: SocketAddr) -> Option<Route> {
        self.by_address.get(&source).map(|route| *route)
    }

    /// The session with this username fragment of ours.
    pub fn by_ufrag(&self, ufrag: &str) -> Option<Route> {
        self.by_ufrag.get(ufrag).map(|route| *route)
    }

    /// What is known of a session.
    pub fn session(&self, name: &str) -> Option<Session> {
        self.sessions.get(name).map(|session| session.clone())
    }

    /// Takes a session off the list at once: whoever asks for it again is told that there is none.
    pub fn take(&self, name: &str) -> Option<Session> {
        let (_, session) = self.sessions.remove(name)?;
        self.by_ufrag.remove(&session.local_ufrag);
        Some(session)
    }

    /// Gives a session new credentials (ICE restart), if it still has those with `old_etag`.
    pub fn restart(&self, name: &str, old_etag: &str, new: Session) -> bool {
        let Some(mut session) = self.sessions.get_mut(name).filter(|session| session.etag == old_etag) else {
            return false;
        };
        self.by_ufrag.remove(&session.local_ufrag);
        self.by_ufrag.insert(new.local_ufrag.clone(), new.route);
        *session = new;
        true
    }

    /// Sessions, username fragments and addresses that are known now.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.sessions.len(), self.by_ufrag.len(), self.by_address.len())
    }

    /// Counts one more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A session's entries in the maps; dropping it removes them.
pub struct Registration {
    demux: Arc<Demux>,
    name: String,
    route: Route,
    addresses: Vec<SocketAddr>,
}

impl Registration {
    /// What comes from this address is this session's from now on: an authenticated check came from it.
    pub fn learn(&mut self, protocol: Protocol, source: SocketAddr) {
        // A TCP connection knows its session itself.
        if protocol != Protocol::Udp || self.demux.by_address(source) == Some(self.route) {
            return;
        }
        if self.addresses.len() >= MAX_ADDRESSES {
            let oldest = self.addresses.remove(0);
            self.demux.by_address.remove_if(&oldest, |_, route| *route == self.route);
        }
        self.demux.by_address.insert(source, self.route);
        self.addresses.push(source);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.demux.take(&self.name);
        for address in &self.addresses {
            // It may belong to a newer session of the same browser by now.
            self.demux.by_address.remove_if(address, |_, route| *route == self.route);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(peer: u64, ufrag: &str) -> Session {
        Session {
            route: Route { worker: 0, peer, reduced_size: false },
            etag: ufrag.into(),
            local_ufrag: ufrag.into(),
            remote: ("r".into(), "p".into()),
            section: String::new(),
            candidates: Arc::from([]),
        }
    }

    #[test]
    fn a_dropped_session_leaves_nothing_behind() {
        let demux = Arc::new(Demux::default());
        let mut registration = demux.register("s", session(1, "u"));
        for port in 1..100 {
            registration.learn(Protocol::Udp, ([192, 0, 2, 1], port).into());
        }
        assert_eq!(demux.sizes(), (1, 1, MAX_ADDRESSES));
        assert!(demux.restart("s", "u", session(1, "v")));
        assert!(!demux.restart("s", "u", session(1, "w")), "that ETag is of the past");
        assert_eq!((demux.by_ufrag("u"), demux.by_ufrag("v").map(|r| r.peer)), (None, Some(1)));
        drop(registration);
        assert_eq!(demux.sizes(), (0, 0, 0));
    }

    #[test]
    fn an_address_goes_to_who_proved_it_last() {
        let demux = Arc::new(Demux::default());
        let source = ([192, 0, 2, 1], 1000).into();
        let mut old = demux.register("old", session(1, "u"));
        old.learn(Protocol::Udp, source);
        let mut new = demux.register("new", session(2, "v"));
        new.learn(Protocol::Udp, source);
        drop(old);
        assert_eq!(demux.by_address(source).map(|route| route.peer), Some(2));
    }
}
