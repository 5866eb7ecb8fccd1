//! Binds the one port: TCP and UDP on the same number, IPv4 and IPv6 where the host allows it.

use crate::config::ListenAddress;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why the port could not be bound, in words for the person who started the program.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "{protocol} port {port} is in use by another program: stop it, or choose another port with --listen"
    )]
    InUse {
        /// `TCP` or `UDP`.
        protocol: &'static str,
        /// The port that was asked for.
        port: u16,
    },
    /// The system does not let this user have it.
    #[error("this user may not open port {port}: choose one above 1023 with --listen")]
    Denied {
        /// The port that was asked for.
        port: u16,
    },
    /// No such address here.
    #[error("{host} is no address of this machine: choose another with --listen")]
    NotHere {
        /// The host that was asked for.
        host: String,
    },
    /// A host name without an address.
    #[error("cannot find the address of {host}: {error}")]
    Unresolved {
        /// The host that was asked for.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {listen}: {error}")]
    Other {
        /// What was asked for.
        listen: ListenAddress,
        /// What the system said.
        error: io::Error,
    },
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
/// How often another port is tried when the system's choice for TCP is taken for UDP.
const PORT_ATTEMPTS: usize = 16;

fn failed(listen: &ListenAddress, protocol: &'static str, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { protocol, port: listen.port },
        io::ErrorKind::PermissionDenied => BindError::Denied { port: listen.port },
        io::ErrorKind::AddrNotAvailable => {
            BindError::NotHere { host: listen.host.clone().unwrap_or_default() }
        }
        _ => BindError::Other { listen: listen.clone(), error },
    }
}

/// A TCP socket alone, non-blocking.
pub(super) async fn bind_tcp_at(listen: &ListenAddress) -> Result<std::net::TcpListener, BindError> {
    bind_tcp(listen).await?.map_err(|error| failed(listen, "TCP", error))
}

/// Both sockets, non-blocking, on the same address and port.
pub(super) async fn bind(
    listen: &ListenAddress,
) -> Result<(std::net::TcpListener, std::net::UdpSocket), BindError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let tcp = bind_tcp_at(listen).await?;
        let address = tcp.local_addr().map_err(|error| failed(listen, "TCP", error))?;
        match open(address, Type::DGRAM) {
            Ok(udp) => return Ok((tcp, udp.into())),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && listen.port == 0
                    && attempts < PORT_ATTEMPTS => {}
            Err(error) => return Err(failed(listen, "UDP", error)),
        }
    }
}

async fn bind_tcp(listen: &ListenAddress) -> Result<io::Result<std::net::TcpListener>, BindError> {
    let address = match &listen.host {
        Some(host) => SocketAddr::new(resolve(host).await?, listen.port),
        None => {
            let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, listen.port));
            match open(both, Type::STREAM) {
                // Without IPv6 the socket cannot be made (EAFNOSUPPORT) or not be bound (EADDRNOTAVAIL).
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                    ) =>
                {
                    SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port))
                }
                bound => return Ok(bound.map(Into::into)),
            }
        }
    };
    Ok(open(address, Type::STREAM).map(Into::into))
}

async fn resolve(host: &str) -> Result<IpAddr, BindError> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let unresolved = |error| BindError::Unresolved { host: host.to_owned(), error };
    let found: Vec<_> =
        tokio::net::lookup_host((host, 0)).await.map_err(unresolved)?.map(|a| a.ip()).collect();
    // `localhost` has both: clients fall back from ::1 to 127.0.0.1, but not all of them the other way.
    let best = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
    best.copied().ok_or_else(|| unresolved(io::Error::new(io::ErrorKind::NotFound, "it has none")))
}

fn open(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let tcp = kind == Type::STREAM;
    let protocol = if tcp { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for TIME_WAIT. On Windows the option would let two programs share the port.
    if tcp && cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if tcp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> ListenAddress {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn both_sockets_get_the_same_port() {
        for host in ["127.0.0.1:0", "localhost:0", "[::1]:0"] {
            let (tcp, udp) = bind(&listen(host)).await.unwrap();
            assert_eq!(tcp.local_addr().unwrap(), udp.local_addr().unwrap());
            assert_ne!(tcp.local_addr().unwrap().port(), 0);
        }
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let (tcp, udp) = bind(&listen("127.0.0.1:0")).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let address = listen(&format!("127.0.0.1:{port}"));
        let error = bind(&address).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "TCP port {port} is in use by another program: stop it, or choose another port with --listen"
            )
        );
        drop(tcp);
        let error = bind(&address).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("UDP port {port} is in use")), "{error}");
        drop(udp);
        bind(&address).await.unwrap();

        let error = bind(&listen("192.0.2.1:0")).await.unwrap_err().to_string();
        assert!(error.starts_with("192.0.2.1 is no address of this machine"), "{error}");
        let error = bind(&listen("no-such-host.invalid:0")).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot find the address of no-such-host.invalid"), "{error}");
    }
}
