//! The TCP half of the one port, with real clients over loopback.

mod one_port_support;

use axum::http::Version;
use one_port_support::{DEADLINE, Options, Running, get_request, request, start, until_closed};
use std::time::{Duration, Instant};
use streamgate::server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(300);

fn short() -> Limits {
    Limits {
        first_bytes: SHORT,
        request_header: SHORT,
        request_body: SHORT,
        write: SHORT,
        ..Limits::default()
    }
}

const WHO: &[u8] = b"GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Asks again until a request is answered: there is a free place.
async fn until_served(server: &Running) {
    let served = async { while !server.exchange(WHO).await.starts_with(b"HTTP/1.1 200") {} };
    timeout(DEADLINE, served).await.expect("nobody else is served");
}

#[tokio::test]
async fn http1_and_http2_are_served_on_one_port() {
    let server = start(Options::default()).await;
    for (h2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
        let stream = server.connect().await;
        let client = stream.local_addr().unwrap();
        let uri = if h2 { "http://localhost/who" } else { "/who" };
        let (status, answered, body) = request(stream, h2, get_request(uri)).await;
        assert_eq!((status, answered), (200, version));
        assert_eq!(body, format!("{client} {} false {version:?}", server.loopback()));
    }
    server.stop().await;
}

#[tokio::test]
async fn tls_is_served_on_the_same_port_with_alpn() {
    let server = start(Options { tls: true, ..Options::default() }).await;
    for (alpn, chosen, h2) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..]), true),
        (&[b"http/1.1"], Some(b"http/1.1"), false),
        (&[], None, false),
    ] {
        let stream = server.connect_tls(alpn).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let uri = if h2 { "https://localhost/who" } else { "/who" };
        let (status, _, body) = request(stream, h2, get_request(uri)).await;
        assert_eq!(status, 200);
        assert!(body.contains(" true "), "{body}");
    }
    // And plain HTTP beside it.
    let (status, ..) = request(server.connect().await, false, get_request("/who")).await;
    assert_eq!(status, 200);
    server.stop().await;
}

#[tokio::test]
async fn first_bytes_may_come_one_by_one() {
    let server = start(Options::default()).await;
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    for byte in b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = until_closed(&mut stream).await;
    assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}

#[tokio::test]
async fn ice_tcp_is_handed_over_with_the_bytes_that_were_read() {
    let server = start(Options::default()).await;
    let mut stun = b"\x00\x18\x00\x01\x00\x04\x21\x12\xa4\x42abcdefghijkl".to_vec();
    stun.extend_from_slice(b"\0\0\0\0 and more");
    let mut stream = server.connect().await;
    let client = stream.local_addr().unwrap();
    stream.write_all(&stun).await.unwrap();
    stream.shutdown().await.unwrap();
    let expected = [format!("ice {client} ").as_bytes(), &stun].concat();
    assert_eq!(until_closed(&mut stream).await, expected);
    server.stop().await;
}

#[tokio::test]
async fn other_protocols_are_closed_without_a_word() {
    let server = start(Options::default()).await;
    let tls_hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00";
    for bytes in [
        &b"\x03\0\0\0\0\0\0\0\0"[..],
        tls_hello,
        b"SSH-2.0-x\r\n",
        b"\0\0\0\0",
        b"\xff\xff\xff",
        &[b'A'; 100],
    ] {
        let started = Instant::now();
        assert_eq!(server.exchange(bytes).await, b"", "{bytes:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{bytes:?}: {:?}", started.elapsed());
    }
    server.stop().await;
}

#[tokio::test]
async fn rtsp_is_handed_over_with_all_that_was_read() {
    let server = start(Options::default()).await;
    for request in
        ["OPTIONS rtsp://h/x RTSP/1.0\r\nCSeq: 1\r\n\r\n", "DESCRIBE rtsp://h/x RTSP/1.0\r\nCSeq: 1\r\n\r\n"]
    {
        let mut stream = server.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, format!("rtsp {} {request}", stream.local_addr().unwrap()));
    }
    server.stop().await;
}

#[tokio::test]
async fn silent_and_half_open_clients_are_closed_by_deadline() {
    let server = start(Options { limits: short(), tls: true, ..Options::default() }).await;
    // Nothing, half a request line, half an HTTP/2 preface, half a TLS handshake, half a STUN request.
    for bytes in
        [&b""[..], b"OPTIONS * ", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00\x18\x00\x01"]
    {
        let started = Instant::now();
        assert_eq!(server.exchange(bytes).await, b"", "{bytes:?}");
        let elapsed = started.elapsed();
        assert!(elapsed >= SHORT && elapsed < SHORT * 10, "{bytes:?}: {elapsed:?}");
    }
    // A client that says nothing more after half a word is gone at once.
    let mut stream = server.connect().await;
    stream.write_all(b"OPTI").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(until_closed(&mut stream).await, b"");
    server.stop().await;
}

#[tokio::test]
async fn a_tls_client_that_is_silent_after_the_handshake_is_closed() {
    let server = start(Options { limits: short(), tls: true, ..Options::default() }).await;
    let mut stream = server.connect_tls(&[]).await;
    assert_eq!(until_closed(&mut stream).await, b"");
    server.stop().await;
}

/// Sends `byte` again and again until the server closes; gives back what the server said.
async fn drip(mut stream: TcpStream, byte: &[u8]) -> Vec<u8> {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let mut received = Vec::new();
    let dripping = async {
        loop {
            let mut chunk = [0; 1024];
            tokio::select! {
                _ = tick.tick() => if stream.write_all(byte).await.is_err() { return },
                read = stream.read(&mut chunk) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(count) => received.extend_from_slice(&chunk[..count]),
                },
            }
        }
    };
    timeout(DEADLINE, dripping).await.expect("a slow client is still connected");
    received
}

#[tokio::test]
async fn slow_headers_and_bodies_are_cut_off() {
    let server = start(Options { limits: short(), ..Options::default() }).await;
    let mut header = server.connect().await;
    header.write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
    assert!(!drip(header, b"a").await.starts_with(b"HTTP/1.1 200"));

    let mut body = server.connect().await;
    body.write_all(b"POST /whep/echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
        .await
        .unwrap();
    let answer = drip(body, b"a").await;
    assert!(answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}

#[tokio::test]
async fn endless_headers_are_answered_with_an_error() {
    let server = start(Options::default()).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
    let (mut read, mut write) = stream.split();
    let answer = tokio::select! {
        answer = until_closed(&mut read) => answer,
        () = async { while write.write_all(&[b'a'; 4096]).await.is_ok() {} std::future::pending().await } => vec![],
    };
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_off() {
    let limits = Limits { connections: 1, ..short() };
    let server = start(Options { limits, ..Options::default() }).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream.readable().await.unwrap();
    // It holds the only place until the server gives up on it, although it reads nothing.
    assert_eq!(server.exchange(WHO).await, b"");
    until_served(&server).await;
    let received = until_closed(&mut stream).await.len();
    assert!(received < 64 << 20, "{received} bytes");
    server.stop().await;
}

#[tokio::test]
async fn too_many_connections_are_refused_and_the_rest_served() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let server = start(Options { limits, ..Options::default() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        held.push(stream);
    }
    assert_eq!(server.exchange(WHO).await, b"");
    held.pop();
    until_served(&server).await;
    server.stop().await;
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_flood_of_garbage_leaves_memory_flat_and_the_server_alive() {
    let server = start(Options::default()).await;
    let garbage: Vec<u8> = (0..65_536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let flood = async |rounds: usize| {
        for round in 0..rounds {
            let mut clients = tokio::task::JoinSet::new();
            for client in 0..50 {
                let (address, garbage) = (server.loopback(), garbage.clone());
                clients.spawn(async move {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    let start = (round * 50 + client) % 1000;
                    let _ = timeout(DEADLINE, stream.write_all(&garbage[start..])).await;
                    if client % 2 == 0 {
                        until_closed(&mut stream).await;
                    }
                });
            }
            clients.join_all().await;
        }
    };
    flood(4).await;
    let before = resident_bytes();
    flood(20).await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    let (status, ..) = request(server.connect().await, false, get_request("/who")).await;
    assert_eq!(status, 200);
    server.stop().await;
}

#[tokio::test]
async fn shutdown_finishes_requests_and_ends_everything_in_time() {
    let server = start(Options { tls: true, ..Options::default() }).await;
    // A silent client, an idle one, one with a request that never ends, an ICE-TCP one that says nothing.
    let silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /who HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    idle.read_exact(&mut status).await.unwrap();
    let mut never = server.connect().await;
    never.write_all(b"GET /never HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut ice = server.connect().await;
    ice.write_all(b"\x00\x14\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl").await.unwrap();
    ice.read_exact(&mut status).await.unwrap();
    let tls = server.connect_tls(&[b"h2"]).await;
    let mut h2 = server.connect_tls(&[b"h2"]).await;
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    h2.read_exact(&mut settings).await.unwrap();
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // One more request round trip: the slow one has begun by then.
    let (.., body) = request(server.connect().await, false, get_request("/slow")).await;
    assert_eq!(body, "done");
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    slow.readable().await.unwrap();

    let address = server.loopback();
    let stopping = tokio::spawn(server.stop());
    let answer = until_closed(&mut slow).await;
    assert!(answer.ends_with(b"done"), "{}", String::from_utf8_lossy(&answer));
    let took = stopping.await.unwrap();
    assert!(took < Duration::from_secs(3), "{took:?}");
    for mut stream in [silent, idle, never, ice] {
        until_closed(&mut stream).await;
    }
    drop(tls);
    assert!(TcpStream::connect(address).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn shutdown_without_connections_is_immediate() {
    let server = start(Options::default()).await;
    let took = server.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}
