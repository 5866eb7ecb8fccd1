//! The addresses and connections that one viewer can be reached by. What is sent goes where str0m's ICE says.

use super::send::Runs;
use super::tcp::TcpOut;
use super::worker::Inbound;
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
}

impl Paths {
    /// Remembers where an accepted datagram came from.
    pub fn learn(&mut self, protocol: Protocol, inbound: &Inbound) {
        let to = (protocol, inbound.source);
        if let Some(path) = self.known.iter_mut().find(|path| (path.protocol, path.remote) == to) {
            path.local_ip = inbound.local_ip;
            path.tcp.clone_from(&inbound.tcp);
            return;
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
            tcp: inbound.tcp.clone(),
        });
    }

    /// Sends a datagram of str0m's. True if media goes to another address from now on.
    pub fn send(&mut self, transmit: &Transmit, runs: &mut Runs) -> bool {
        let to = (transmit.proto, transmit.destination);
        let path = self.known.iter().find(|path| (path.protocol, path.remote) == to);
        match path.and_then(|path| path.tcp.as_ref()) {
            Some(tcp) => {
                tcp.push(&transmit.contents);
            }
            None if transmit.proto == Protocol::Udp => {
                runs.push(transmit.destination, path.and_then(|path| path.local_ip), &transmit.contents);
            }
            None => {}
        }
        // RFC 7983: STUN begins with 0 to 3, DTLS and SRTP with more.
        let changed = self.current != Some(to) && transmit.contents.first().is_some_and(|first| *first >= 20);
        if changed {
            self.current = Some(to);
        }
        changed
    }

    /// The viewer reads its connection more slowly than media comes.
    pub fn are_congested(&self) -> bool {
        self.known
            .iter()
            .filter(|path| Some((path.protocol, path.remote)) == self.current)
            .any(|path| path.tcp.as_ref().is_some_and(|tcp| tcp.is_congested()))
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        for tcp in self.known.iter().filter_map(|path| path.tcp.as_ref()) {
            tcp.close();
        }
    }
}
