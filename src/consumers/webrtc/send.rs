//! Collects datagrams of equal size for one destination into runs, which the kernel cuts up again (UDP GSO).

use super::DatagramSocket;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A run is one UDP datagram to the kernel until it is cut.
const MAX_RUN_BYTES: usize = 60_000;

/// Sends datagrams in runs. Order is kept.
pub struct Runs {
    socket: Arc<dyn DatagramSocket>,
    max_segments: usize,
    destination: Option<(SocketAddr, Option<IpAddr>)>,
    contents: Vec<u8>,
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
            destination: None,
            contents: Vec::with_capacity(MAX_RUN_BYTES),
            segment_size: 0,
            segments: 0,
            complete: false,
            unsent: 0,
        }
    }

    /// Adds a datagram; sends what was collected if this one can't join it.
    pub fn push(&mut self, destination: SocketAddr, source_ip: Option<IpAddr>, datagram: &[u8]) {
        let joins = self.destination == Some((destination, source_ip))
            && !self.complete
            && self.segments < self.max_segments
            && datagram.len() <= self.segment_size
            && self.contents.len() + datagram.len() <= MAX_RUN_BYTES;
        if !joins {
            self.flush();
            self.destination = Some((destination, source_ip));
            self.segment_size = datagram.len();
        }
        self.complete = datagram.len() < self.segment_size;
        self.contents.extend_from_slice(datagram);
        self.segments += 1;
    }

    /// Sends what was collected. What the socket does not take is lost, as on any network.
    pub fn flush(&mut self) {
        let Some((destination, source_ip)) = self.destination.take() else { return };
        if let Err(error) = self.socket.try_send(destination, source_ip, &self.contents, self.segment_size) {
            self.unsent += self.segments as u64;
            tracing::trace!("{} datagrams to {destination} not sent: {error}", self.segments);
        }
        self.contents.clear();
        (self.segments, self.complete) = (0, false);
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
                runs.push(*to, None, datagram);
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
            runs.push(([127, 0, 0, 1], 1).into(), None, &vec![0; size]);
        }
        runs.flush();
        runs.flush();
        assert_eq!(*kernel.calls.lock(), 1);
    }
}
