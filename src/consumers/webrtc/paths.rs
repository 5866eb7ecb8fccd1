//! The addresses and connections that one viewer can be reached by. What is sent goes where str0m's ICE says.

use super::letters::Inbound;
use super::send::{Runs, Way};
use super::tcp::TcpOut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use str0m::error::IceError;
use str0m::net::{Protocol, TcpType, Transmit};
use str0m::{Candidate, Rtc};

/// Paths at most that are remembered for one viewer.
const MAX_PATHS: usize = 16;

/// str0m asks for a local candidate that a check was sent to. It is told this one, whatever the real address was: the
/// answer lists the real ones, and [`Paths`] remembers where a viewer's datagrams came in.
pub const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// Gives str0m [`INSIDE`] as its candidates.
pub fn add_local_candidates(rtc: &mut Rtc) -> Result<(), IceError> {
    rtc.add_local_candidate(Candidate::host(INSIDE, "udp")?);
    rtc.add_local_candidate(Candidate::builder().tcp().host(INSIDE).tcptype(TcpType::Passive).build()?);
    Ok(())
}

struct Path {
    protocol: Protocol,
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    tcp: Option<Arc<TcpOut>>,
}

/// See the module's page. Dropping it closes the connections.
#[derive(Default)]
pub struct Paths {
    known: Vec<Path>,
    /// Where everything but STUN goes: the nominated address.
    current: Option<(Protocol, SocketAddr)>,
    /// The way there.
    way: Option<Way>,
}

impl Paths {
    /// Remembers where an accepted datagram came from.
    pub fn learn(&mut self, protocol: Protocol, inbound: &Inbound<'_>) {
        let to = (protocol, inbound.source);
        if let Some(path) = self.known.iter_mut().find(|path| (path.protocol, path.remote) == to) {
            path.local_ip = inbound.local_ip;
            path.tcp = inbound.tcp.cloned();
            return self.find_way();
        }
        if self.known.len() >= MAX_PATHS {
            let oldest =
                self.known.iter().position(|path| Some((path.protocol, path.remote)) != self.current);
            if let Some(tcp) = self.known.remove(oldest.unwrap_or(0)).tcp {
                tcp.close();
            }
        }
        self.known.push(Path {
            protocol,
            remote: inbound.source,
            local_ip: inbound.local_ip,
            tcp: inbound.tcp.cloned(),
        });
        self.find_way();
    }

    fn find_way(&mut self) {
        self.way = self.current.and_then(|current| self.way_to(current));
    }

    /// Sends a datagram of str0m's. True if media goes to another address from now on.
    pub fn send(&mut self, transmit: &Transmit, runs: &mut Runs) -> bool {
        let to = (transmit.proto, transmit.destination);
        if let Some(way) = self.way_to(to) {
            runs.push(&way, &transmit.contents);
        }
        // RFC 7983: STUN begins with 0 to 3, DTLS with more; it goes where ICE has agreed on.
        transmit.contents.first().is_some_and(|first| *first >= 20) && self.select(to.0, to.1)
    }

    /// Media goes to this address from now on. True if it went to another one before.
    pub fn select(&mut self, protocol: Protocol, remote: SocketAddr) -> bool {
        let to = Some((protocol, remote));
        let changed = self.current != to;
        if changed {
            self.current = to;
            self.find_way();
        }
        changed
    }

    /// How media gets to the viewer. `None` before ICE has found a way.
    pub fn way(&self) -> Option<Way> {
        self.way.clone()
    }

    fn way_to(&self, (protocol, remote): (Protocol, SocketAddr)) -> Option<Way> {
        let path = self.known.iter().find(|path| (path.protocol, path.remote) == (protocol, remote));
        match path.and_then(|path| path.tcp.as_ref()) {
            Some(tcp) => Some(Way::Tcp(tcp.clone())),
            None if protocol == Protocol::Udp => Some(Way::Udp(remote, path.and_then(|path| path.local_ip))),
            None => None,
        }
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        for tcp in self.known.iter().filter_map(|path| path.tcp.as_ref()) {
            tcp.close();
        }
    }
}
