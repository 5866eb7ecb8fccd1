//! Datagrams on their way from the port to a worker: many under one lock, in memory that is used again.

use super::tcp::TcpOut;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Datagrams that wait for a worker, at most, and their bytes.
const MAX_DATAGRAMS: usize = 2048;
const MAX_BYTES: usize = 4 << 20;
/// Memory for datagrams that is kept for the next ones.
const SPARE_BYTES: usize = 256 << 10;

/// A datagram, or a frame of an ICE-TCP connection.
pub struct Inbound<'a> {
    /// Where it came from.
    pub source: SocketAddr,
    /// The address of ours that it was sent to, where the system tells.
    pub local_ip: Option<IpAddr>,
    /// The connection it came by.
    pub tcp: Option<&'a Arc<TcpOut>>,
    /// When it was received.
    pub at: Instant,
    /// Its contents.
    pub data: &'a [u8],
}

/// Datagrams on their way to a worker, their contents one after another.
#[derive(Default)]
pub struct Letters {
    letters: Vec<Letter>,
    contents: Vec<u8>,
    /// One of them can't wait.
    urgent: bool,
}

struct Letter {
    peer: u64,
    source: SocketAddr,
    local_ip: Option<IpAddr>,
    tcp: Option<Arc<TcpOut>>,
    at: Instant,
    length: usize,
}

impl Letters {
    /// Adds one, which the worker is woken for if it is `urgent`. False if there are too many.
    pub fn add(&mut self, peer: u64, inbound: &Inbound<'_>, urgent: bool) -> bool {
        let &Inbound { source, local_ip, tcp, at, data } = inbound;
        let fits = self.letters.len() < MAX_DATAGRAMS && self.contents.len() + data.len() <= MAX_BYTES;
        if fits {
            self.letters.push(Letter { peer, source, local_ip, tcp: tcp.cloned(), at, length: data.len() });
            self.contents.extend_from_slice(data);
            self.urgent |= urgent;
        }
        fits
    }

    /// Whether one of them can't wait for a moment.
    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Takes all of another's that fit, and empties it. Says how many did not.
    pub fn append(&mut self, other: &mut Letters) -> usize {
        let mut lost = 0;
        let mut rest = other.contents.as_slice();
        for letter in other.letters.drain(..) {
            let Some((data, after)) = rest.split_at_checked(letter.length) else { break };
            rest = after;
            if self.letters.len() < MAX_DATAGRAMS && self.contents.len() + data.len() <= MAX_BYTES {
                self.letters.push(letter);
                self.contents.extend_from_slice(data);
            } else {
                lost += 1;
            }
        }
        other.contents.clear();
        self.urgent |= std::mem::take(&mut other.urgent);
        lost
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Hands out each and its peer, and is empty then.
    pub fn open(&mut self, mut read: impl FnMut(u64, &Inbound<'_>)) {
        let mut rest = self.contents.as_slice();
        for Letter { peer, source, local_ip, tcp, at, length } in self.letters.drain(..) {
            let Some((data, after)) = rest.split_at_checked(length) else { break };
            rest = after;
            read(peer, &Inbound { source, local_ip, tcp: tcp.as_ref(), at, data });
        }
        self.urgent = false;
        self.contents.clear();
        self.contents.shrink_to(SPARE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(data: &[u8]) -> Inbound<'_> {
        let source = ([192, 0, 2, 1], 1000).into();
        Inbound { source, local_ip: None, tcp: None, at: Instant::now(), data }
    }

    #[test]
    fn what_fits_arrives_in_order_and_the_rest_is_counted() {
        let (mut batch, mut inbox) = (Letters::default(), Letters::default());
        let all = MAX_DATAGRAMS + 10;
        let mut lost = 0;
        for n in 0..all {
            assert!(batch.add(n as u64, &inbound(&(n as u32).to_be_bytes()[..n % 5]), true));
            if n % 7 == 0 || n + 1 == all {
                lost += inbox.append(&mut batch);
                assert!(batch.is_empty());
            }
        }
        assert_eq!(lost, 10);
        let mut next = 0;
        inbox.open(|peer, inbound| {
            assert_eq!((peer, inbound.data), (next, &(next as u32).to_be_bytes()[..next as usize % 5]));
            next += 1;
        });
        assert_eq!((next as usize, inbox.is_empty()), (MAX_DATAGRAMS, true));
    }

    #[test]
    fn large_datagrams_are_bounded_in_bytes() {
        let mut inbox = Letters::default();
        let taken = (0..MAX_DATAGRAMS).take_while(|_| inbox.add(1, &inbound(&[0; 8192]), false)).count();
        assert_eq!(taken, MAX_BYTES / 8192);
        inbox.open(|_, _| {});
        assert!(inbox.contents.capacity() <= SPARE_BYTES);
    }
}
