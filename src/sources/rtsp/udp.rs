//! RTP and RTCP over UDP: one pair of sockets for each track.

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::Poll;
use tokio::net::UdpSocket;

/// What the kernel holds for us between two reads: a second of a 4 Mbit/s stream and some.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;
const BIND_ATTEMPTS: usize = 64;

/// An RTP packet without payload and an RTCP receiver report without source: they make a firewall on the way expect the
/// camera's packets. The camera ignores them.
const EMPTY_RTP: [u8; 12] = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const EMPTY_RTCP: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 0];

/// What a datagram was received as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// On the even port.
    Rtp,
    /// On the odd port.
    Rtcp,
}

/// An even port for RTP and the next for RTCP (RFC 3550 §11).
#[derive(Debug)]
pub struct UdpPair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// Our ports.
    pub ports: (u16, u16),
    camera: SocketAddr,
    camera_rtcp: Option<SocketAddr>,
}

impl UdpPair {
    /// Binds a pair on the address that the RTSP connection has on our side.
    ///
    /// # Errors
    /// When no pair is free.
    pub fn bind(local: SocketAddr, camera: SocketAddr) -> io::Result<UdpPair> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..BIND_ATTEMPTS {
            let first = bind_socket(with_port(local, 0))?;
            let port = first.local_addr()?.port();
            match bind_socket(with_port(local, port ^ 1)) {
                Ok(second) => {
                    let (rtp, rtcp) = if port % 2 == 0 { (first, second) } else { (second, first) };
                    let ports = (port & !1, port | 1);
                    return Ok(UdpPair { rtp, rtcp, ports, camera, camera_rtcp: None });
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// Takes note of the camera's ports and makes firewalls on the way expect its packets.
    pub fn open_firewall(&mut self, server_port: Option<(u16, u16)>) {
        let Some((rtp, rtcp)) = server_port else { return };
        self.camera_rtcp = Some(with_port(self.camera, rtcp));
        // Best effort: without a firewall nothing depends on it.
        let _ = self.rtp.try_send_to(&EMPTY_RTP, with_port(self.camera, rtp));
        let _ = self.rtcp.try_send_to(&EMPTY_RTCP, with_port(self.camera, rtcp));
    }

    /// The next datagram from the camera, if there is one. Whatever others send is dropped.
    pub fn try_receive(&self, buffer: &mut [u8]) -> Option<(Received, usize)> {
        for (socket, kind) in [(&self.rtcp, Received::Rtcp), (&self.rtp, Received::Rtp)] {
            loop {
                match socket.try_recv_from(buffer) {
                    Ok((length, from)) if is_same_host(from.ip(), self.camera.ip()) => {
                        return Some((kind, length));
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP answer to what we sent, told once for each.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => break,
                }
            }
        }
        None
    }

    /// Sends RTCP to the camera, if it has said where to.
    pub fn send_rtcp(&self, report: &[u8]) {
        if let Some(to) = self.camera_rtcp {
            let _ = self.rtcp.try_send_to(report, to);
        }
    }
}

/// Waits until a socket of the pairs has something, or for ever if there are none.
pub async fn readable(pairs: &[&UdpPair]) {
    poll_fn(|context| {
        let is_ready = |socket: &UdpSocket, context: &mut std::task::Context<'_>| {
            socket.poll_recv_ready(context).is_ready()
        };
        // All are polled, so that each can wake us.
        let mut any = false;
        for pair in pairs {
            any |= is_ready(&pair.rtp, context);
            any |= is_ready(&pair.rtcp, context);
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Waits until an RTP datagram from the camera waits to be received; it stays where it is.
pub async fn media_waits(pairs: &[&UdpPair]) {
    poll_fn(|context| {
        for pair in pairs {
            while pair.rtp.poll_recv_ready(context).is_ready() {
                match pair.rtp.try_peek_sender() {
                    Ok(from) if is_same_host(from.ip(), pair.camera.ip()) => return Poll::Ready(()),
                    Ok(_) => drop(pair.rtp.try_recv_from(&mut [0; 1])),
                    // Nothing there, which makes the next poll wait, or an ICMP answer.
                    Err(_) => {}
                }
            }
        }
        Poll::Pending
    })
    .await;
}

fn bind_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // The kernel may give less; then it gives what it can.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    UdpSocket::from_std(socket.into())
}

fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn is_same_host(a: IpAddr, b: IpAddr) -> bool {
    a.to_canonical() == b.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test]
    async fn pairs_are_even_and_odd_and_have_room() {
        let pair = UdpPair::bind(loopback(1), loopback(2)).expect("bind");
        assert_eq!((pair.ports.0 % 2, pair.ports.1), (0, pair.ports.0 + 1));
        assert!(SockRef::from(&pair.rtp).recv_buffer_size().expect("size") >= 512 * 1024);
    }

    #[tokio::test]
    async fn datagrams_of_others_are_dropped() {
        let pair = UdpPair::bind(loopback(1), loopback(2)).expect("bind");
        let camera = UdpSocket::bind(loopback(0)).await.expect("bind");
        let stranger = UdpSocket::bind("127.0.0.2:0").await.expect("bind");
        stranger.send_to(b"strange", loopback(pair.ports.0)).await.expect("send");
        camera.send_to(b"media", loopback(pair.ports.0)).await.expect("send");
        let mut buffer = [0; 100];
        let received = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                readable(&[&pair]).await;
                if let Some((kind, length)) = pair.try_receive(&mut buffer) {
                    break (kind, length);
                }
            }
        })
        .await
        .expect("must come");
        assert_eq!(received, (Received::Rtp, 5));
        assert_eq!(pair.try_receive(&mut buffer), None);
    }
}
