//! Collects datagrams of equal size for one destination into runs, which the kernel cuts up again (UDP GSO), and
//! frames for one connection into one write.

use super::DatagramSocket;
use super::tcp::TcpOut;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A run is one UDP datagram to the kernel until it is cut.
const MAX_RUN_BYTES: usize = 60_000;

/// How a viewer is reached.
#[derive(Clone)]
pub enum Way {
    /// Datagrams to an address, from one of this machine's.
    Udp(SocketAddr, Option<IpAddr>),
    /// Frames on a connection.
    Tcp(Arc<TcpOut>),
}

impl PartialEq for Way {
    fn eq(&self, other: &Way) -> bool {
        match (self, other) {
            (Way::Udp(to, from), Way::Udp(other_to, other_from)) => to == other_to && from == other_from,
            (Way::Tcp(one), Way::Tcp(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

/// Sends datagrams in runs. Order is kept.
pub struct Runs {
    socket: Arc<dyn DatagramSocket>,
    max_segments: usize,
    way: Option<Way>,
    /// Only its first `used` bytes are of this run: what was there is written over, not cleared.
    contents: Box<[u8]>,
    used: usize,
    segment_size: usize,
    segments: usize,
    /// The run ended with a shorter datagram: nothing can follow.
    complete: bool,
    unsent: u64,
}

impl Runs {
    /// Nothing collected yet.
    pub fn new(socket: Arc<dyn DatagramSocket>) -> Runs {
        Runs {
            max_segments: socket.max_segments().max(1),
            socket,
            way: None,
            contents: vec![0; MAX_RUN_BYTES].into(),
            used: 0,
            segment_size: 0,
            segments: 0,
            complete: false,
            unsent: 0,
        }
    }

    /// Adds a datagram.
    pub fn push(&mut self, way: &Way, datagram: &[u8]) {
        self.put(way, datagram.len(), |slot| {
            slot.copy_from_slice(datagram);
            true
        });
    }

    /// Adds a datagram of `size` bytes that `fill` writes; what was collected is sent first if this one can't join it.
    /// If `fill` says no, nothing is added. Says what `fill` said.
    pub fn put(&mut self, way: &Way, size: usize, fill: impl FnOnce(&mut [u8]) -> bool) -> bool {
        let udp = matches!(way, Way::Udp(..));
        let prefix = if udp { 0 } else { 2 };
        let joins = self.used + prefix + size <= MAX_RUN_BYTES
            && (!udp || (!self.complete && self.segments < self.max_segments && size <= self.segment_size))
            && self.way.as_ref() == Some(way);
        if !joins {
            self.flush();
            self.way = Some(way.clone());
            self.segment_size = size;
        }
        let start = self.used + prefix;
        let (Some(slot), Ok(length)) = (self.contents.get_mut(start..start + size), u16::try_from(size))
        else {
            return false;
        };
        if !fill(slot) {
            return false;
        }
        if let Some(prefix) = self.contents.get_mut(self.used..start).filter(|prefix| !prefix.is_empty()) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        self.used = start + size;
        self.complete = size < self.segment_size;
        self.segments += 1;
        true
    }

    /// Sends what was collected. What the socket does not take is lost, as on any network.
    pub fn flush(&mut self) {
        let Some(way) = self.way.take() else { return };
        let contents = self.contents.get(..self.used).unwrap_or_default();
        if self.segments > 0 {
            match &way {
                Way::Udp(to, from) => {
                    if let Err(error) = self.socket.try_send(*to, *from, contents, self.segment_size) {
                        self.unsent += self.segments as u64;
                        tracing::trace!("{} datagrams to {to} not sent: {error}", self.segments);
                    }
                }
                Way::Tcp(tcp) => {
                    tcp.push(contents);
                }
            }
        }
        (self.used, self.segments, self.complete) = (0, 0, false);
    }

    /// Datagrams that the socket did not take since this was asked last.
    pub fn take_unsent(&mut self) -> u64 {
        std::mem::take(&mut self.unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use proptest::prelude::*;
    use std::io;

    /// Cuts runs as the kernel does.
    #[derive(Default)]
    struct Kernel {
        datagrams: Mutex<Vec<(SocketAddr, Vec<u8>)>>,
        calls: Mutex<usize>,
    }

    impl DatagramSocket for Kernel {
        fn try_send(
            &self,
            to: SocketAddr,
            _: Option<IpAddr>,
            contents: &[u8],
            size: usize,
        ) -> io::Result<()> {
            assert!(contents.len().div_ceil(size) <= self.max_segments() && contents.len() < 65_000);
            *self.calls.lock() += 1;
            self.datagrams.lock().extend(contents.chunks(size).map(|datagram| (to, datagram.to_vec())));
            Ok(())
        }
        fn max_segments(&self) -> usize {
            8
        }
        fn local_port(&self) -> u16 {
            0
        }
    }

    proptest! {
        #[test]
        fn every_datagram_arrives_as_it_was_and_in_order(
            datagrams in proptest::collection::vec((0u16..2, prop_oneof![Just(1200usize), Just(1100), 1usize..1300]), 0..60)
        ) {
            let kernel = Arc::new(Kernel::default());
            let mut runs = Runs::new(kernel.clone());
            let sent: Vec<(SocketAddr, Vec<u8>)> = datagrams.iter().enumerate()
                .map(|(n, (port, size))| (([127, 0, 0, 1], 1000 + port).into(), vec![n as u8; *size])).collect();
            for (to, datagram) in &sent {
                runs.push(&Way::Udp(*to, None), datagram);
            }
            runs.flush();
            prop_assert_eq!(&*kernel.datagrams.lock(), &sent);
        }
    }

    #[test]
    fn a_frame_is_one_call() {
        let kernel = Arc::new(Kernel::default());
        let mut runs = Runs::new(kernel.clone());
        for size in [1200, 1200, 1200, 300] {
            runs.push(&Way::Udp(([127, 0, 0, 1], 1).into(), None), &vec![0; size]);
        }
        runs.flush();
        runs.flush();
        assert_eq!(*kernel.calls.lock(), 1);
    }

    #[test]
    fn what_is_not_written_is_not_sent() {
        let kernel = Arc::new(Kernel::default());
        let mut runs = Runs::new(kernel.clone());
        let way = Way::Udp(([127, 0, 0, 1], 1).into(), None);
        assert!(!runs.put(&way, 1300, |_| false));
        runs.flush();
        assert_eq!(*kernel.calls.lock(), 0);
        runs.push(&way, &[1; 1200]);
        assert!(!runs.put(&way, 1200, |_| false));
        runs.push(&way, &[2; 1200]);
        runs.flush();
        let sizes: Vec<usize> = kernel.datagrams.lock().iter().map(|(_, datagram)| datagram.len()).collect();
        assert_eq!((sizes, *kernel.calls.lock()), (vec![1200, 1200], 1));
    }
}
