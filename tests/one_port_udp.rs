//! The UDP half of the one port: echo with runs of datagrams, from IPv4 and IPv6 clients.

mod one_port_support;

use one_port_support::{DEADLINE, Options, Running, start};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use streamgate::server::UdpPort;

/// Answers each datagram `n` (two bytes) with a run of `n` bytes, cut into 1000s, from the address it came to.
async fn echo(listen: &'static str) -> (Running, Arc<parking_lot::Mutex<Vec<(SocketAddr, Option<IpAddr>)>>>) {
    let port: Arc<OnceLock<Arc<UdpPort>>> = Arc::default();
    let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (sender, log) = (port.clone(), seen.clone());
    let on_datagrams =
        Box::new(move |datagrams: &mut dyn Iterator<Item = streamgate::server::Datagram<'_>>| {
            for datagram in datagrams {
                log.lock().push((datagram.source, datagram.local_ip));
                let (Some(port), Ok(two)) = (sender.get(), <[u8; 2]>::try_from(datagram.contents)) else {
                    continue;
                };
                let run: Vec<u8> = (0..u16::from_be_bytes(two)).map(|n| (n / 1000) as u8).collect();
                port.try_send(datagram.source, datagram.local_ip, &run, 1000).unwrap();
            }
            // What nobody is said to wait for is left to gather, and comes all the same.
            false
        });
    let server = start(Options { listen, on_datagrams, ..Options::default() }).await;
    assert!(port.set(server.udp.clone()).is_ok());
    (server, seen)
}

/// Sends `n` to the server and gives back the answer's datagrams.
fn ask(client: &UdpSocket, server: SocketAddr, n: u16) -> Vec<Vec<u8>> {
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.send_to(&n.to_be_bytes(), server).unwrap();
    let mut datagrams = Vec::new();
    let mut buffer = [0; 2000];
    while datagrams.iter().map(Vec::len).sum::<usize>() < usize::from(n) {
        let (count, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from, server, "the answer must come from the address that was asked");
        datagrams.push(buffer[..count].to_vec());
    }
    datagrams
}

fn check(datagrams: &[Vec<u8>], n: u16) {
    assert_eq!(datagrams.len(), usize::from(n).div_ceil(1000));
    for (index, datagram) in datagrams.iter().enumerate() {
        let expected = (usize::from(n) - index * 1000).min(1000);
        assert_eq!(datagram, &vec![index as u8; expected]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_arrive_as_equal_datagrams_with_a_shorter_last() {
    let (server, _) = echo("127.0.0.1:0").await;
    assert_eq!(server.udp.local_port(), server.address.port());
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    // One datagram, an exact run, a run with a rest, and one that is longer than a single GSO call may be.
    for n in [1, 999, 1000, 1001, 5000, 40_500, 64_999, 65_535] {
        let datagrams = ask(&client, server.address, n);
        check(&datagrams, n);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_and_ipv6_clients_meet_one_dual_stack_socket() {
    let (server, seen) = echo(":0").await;
    assert!(server.address.is_ipv6(), "this machine has no IPv6: {}", server.address);
    // 127.0.0.2 shows that the answer's source address is chosen, not guessed.
    for (bind, host) in [("127.0.0.1:0", "127.0.0.1"), ("127.0.0.1:0", "127.0.0.2"), ("[::1]:0", "::1")] {
        let client = UdpSocket::bind(bind).unwrap();
        let host: IpAddr = host.parse().unwrap();
        let datagrams = ask(&client, SocketAddr::new(host, server.address.port()), 3500);
        check(&datagrams, 3500);
        assert_eq!(seen.lock().last(), Some(&(client.local_addr().unwrap(), Some(host))), "not normalised");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_that_cannot_be_are_errors_and_harm_nobody() {
    let (server, _) = echo(":0").await;
    let segments = server.udp.max_segments();
    for destination in ["127.0.0.1:0", "0.0.0.0:9", "[::]:9", "[fe80::1]:9", "[::ffff:0.0.0.0]:9"] {
        let error = server.udp.try_send(destination.parse().unwrap(), None, &[0; 3000], 1000).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{destination}");
    }
    let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
    assert!(server.udp.try_send(to, None, &[0; 10], 0).is_err());
    assert!(server.udp.try_send(to, None, &[], 1000).is_err());
    // Too large for one datagram, nobody there, a source address of the other family.
    let _ = server.udp.try_send(to, None, &vec![0; 70_000], 70_000);
    let _ = server.udp.try_send(to, None, &[0; 3000], 1000);
    let _ = server.udp.try_send(to, Some("::1".parse().unwrap()), &[0; 3000], 1000);
    // Source addresses that are not (any more) of this machine: the system says EINVAL, for a run and for one.
    for (to, source) in [("[::1]:9", "2001:db8::1"), ("127.0.0.1:9", "224.0.0.1")] {
        for size in [3000, 10] {
            let source = Some(source.parse().unwrap());
            assert!(
                server.udp.try_send(to.parse().unwrap(), source, &vec![0; size], 1000).is_err(),
                "{to} {size}"
            );
        }
    }
    assert_eq!(server.udp.max_segments(), segments, "one bad destination switched GSO off");

    let v4 = echo("127.0.0.1:0").await.0;
    let error = v4.udp.try_send("[::1]:9".parse().unwrap(), None, &[0; 10], 1000).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    v4.stop().await;

    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagrams = ask(&client, server.loopback(), 2500);
    check(&datagrams, 2500);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_of_every_size_is_delivered_as_it_is() {
    let (server, seen) = echo("127.0.0.1:0").await;
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [0, 1, 3, 1500, 9000, 65_507] {
        client.send_to(&vec![0xff; size], server.address).unwrap();
    }
    let datagrams = ask(&client, server.address, 1);
    check(&datagrams, 1);
    // An empty datagram says nothing and is left out.
    assert_eq!(seen.lock().len(), 6);
    server.stop().await;
}
