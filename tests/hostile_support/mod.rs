//! What an attacker needs: raw connections, a wiretap between a viewer and the server, and a look at what is left after.
#![allow(dead_code, reason = "each test binary uses its own part")]

use crate::common::{Reply, Streamgate, eventually, get_json, post};
use crate::webrtc_client::{Offering, Viewer, ViewerOptions};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const DEADLINE: Duration = Duration::from_secs(15);
pub const SDP: &str = "application/sdp";
pub const CHROMIUM: &str = include_str!("../../src/consumers/webrtc/testdata/chromium_offer.sdp");

/// Sends bytes on a connection of its own and gives back all that comes until the server closes, or until `for_long`
/// is over. A reset ends it as well.
pub async fn exchange(streamgate: &Streamgate, bytes: &[u8], for_long: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", streamgate.port)).await.expect("it listens");
    let mut answer = Vec::new();
    // The server may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let _ = tokio::time::timeout(for_long, stream.read_to_end(&mut answer)).await;
    answer
}

/// A request's answer as text; the request must ask for the connection to be closed.
pub async fn raw_http(streamgate: &Streamgate, request: &str) -> String {
    let answer = exchange(streamgate, request.as_bytes(), DEADLINE).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an HTTP/1.1 answer; 0 if it is none.
pub fn status_of(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// Checks an error as every error must be: the status, JSON, a text for `error`, one that says what about in `detail`
/// or `hint`.
pub fn check_error(reply: &Reply, status: u16, part: &str, request: &str) {
    assert_eq!(reply.status, status, "{request}: {}", reply.text());
    assert_eq!(reply.header("content-type"), "application/json", "{request}");
    let json = reply.json();
    assert!(json["error"].as_str().is_some_and(|text| !text.is_empty()), "{request}: {json}");
    assert!(json["detail"].is_string() || json["hint"].is_string(), "{request}: {json}");
    assert!(reply.text().contains(part), "{request}: {} has no {part:?}", reply.text());
    assert!(reply.body.len() < 8_000, "{request}: {} bytes of error", reply.body.len());
    let control = |c: char| c.is_control();
    assert!(!reply.text().contains(control), "{request}: {:?}", reply.text());
}

/// How the process is doing.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    pub rss_kb: u64,
    pub files: usize,
}

impl Footprint {
    pub fn of(streamgate: &Streamgate) -> Footprint {
        Footprint { rss_kb: streamgate.rss_kb(), files: streamgate.open_fds() }
    }
}

/// After an attack: it lives, nobody panicked, memory grew by less than `grown_kb`, all files and sockets are closed
/// and the processor rests.
pub async fn check_recovered(streamgate: &mut Streamgate, before: Footprint, grown_kb: u64) {
    eventually("its sockets are closed", DEADLINE, async || streamgate.open_fds() <= before.files).await;
    check_idle(streamgate).await;
    let rss_kb = streamgate.rss_kb();
    assert!(rss_kb < before.rss_kb + grown_kb, "memory went from {} kB to {rss_kb} kB", before.rss_kb);
    check_sane(streamgate);
}

/// It lives, and nobody panicked.
pub fn check_sane(streamgate: &mut Streamgate) {
    assert!(streamgate.is_running());
    let log = streamgate.log();
    assert!(!log.contains("panic"), "somebody panicked");
    assert!(log.lines().count() < 200, "strangers can fill the log: {} lines", log.lines().count());
}

/// Waits until less than a fifth of a core is used, measured over a third of a second.
pub async fn check_idle(streamgate: &Streamgate) {
    let mut since = (Instant::now(), streamgate.cpu_ticks());
    eventually("the processor rests", DEADLINE, async || {
        let elapsed = since.0.elapsed();
        if elapsed < Duration::from_millis(330) {
            return false;
        }
        let used = streamgate.cpu_ticks() - since.1;
        since = (Instant::now(), streamgate.cpu_ticks());
        (used * 10) as u128 * 5 < elapsed.as_millis()
    })
    .await;
}

/// How many viewers a stream has.
pub async fn viewers(streamgate: &Streamgate, stream: &str) -> u64 {
    let view = get_json(&streamgate.url(&format!("/api/streams/{stream}"))).await;
    view["viewers"].as_u64().expect("a number")
}

/// A viewer of `stream` whose datagrams pass through a wiretap: whoever has it can send as if from the viewer's address.
/// It plays already.
pub async fn tapped_viewer(streamgate: &Streamgate, stream: &str) -> (Viewer, Wiretap, Reply) {
    let (viewer, tap, reply) = connecting_viewer(streamgate, stream).await;
    eventually("it plays", DEADLINE, async || viewer_units(&viewer) > 20).await;
    (viewer, tap, reply)
}

/// The same, and it has just begun to connect.
pub async fn connecting_viewer(streamgate: &Streamgate, stream: &str) -> (Viewer, Wiretap, Reply) {
    let offering = Offering::new(ViewerOptions::default());
    let reply = post(&streamgate.url(&format!("/whep/{stream}")), SDP, offering.offer.clone()).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let tap = Wiretap::to(streamgate.port);
    let (from, to) = (format!("127.0.0.1 {} typ", streamgate.port), format!("127.0.0.1 {} typ", tap.port));
    let viewer = offering.connect(&reply.text().replace(&from, &to));
    (viewer, tap, reply)
}

/// Pictures that a viewer has, up to the first gap.
pub fn viewer_units(viewer: &Viewer) -> usize {
    viewer.units(false).len()
}

/// A viewer goes on: more pictures come, without a gap, and it was not told to go.
pub async fn check_undisturbed(viewer: &Viewer) {
    let had = viewer_units(viewer);
    eventually("the viewer gets more pictures", DEADLINE, async || viewer_units(viewer) > had + 30).await;
    assert!(!viewer.is_closed() && !viewer.is_gone());
}

/// Two UDP sockets that pass datagrams on between a viewer and the server.
pub struct Wiretap {
    /// The viewer's side.
    pub port: u16,
    server_side: UdpSocket,
    stop: Arc<AtomicBool>,
}

impl Wiretap {
    fn to(server: u16) -> Wiretap {
        let viewer_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP port");
        let server_side = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a UDP port");
        server_side.connect((Ipv4Addr::LOCALHOST, server)).expect("connected");
        let stop = Arc::new(AtomicBool::new(false));
        let port = viewer_side.local_addr().expect("bound").port();
        for socket in [&viewer_side, &server_side] {
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        }
        let clone = |socket: &UdpSocket| socket.try_clone().expect("another handle");
        let (viewers, servers, stopped) = (clone(&viewer_side), clone(&server_side), stop.clone());
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            let mut viewer: Option<SocketAddr> = None;
            let (back, forth) = (clone(&servers), clone(&viewers));
            let known = Arc::new(parking_lot::Mutex::new(viewer));
            let (known_there, stopped_there) = (known.clone(), stopped.clone());
            std::thread::spawn(move || {
                let mut datagram = [0; 2048];
                while !stopped_there.load(Ordering::Relaxed) {
                    let viewer = *known_there.lock();
                    if let (Ok(length), Some(viewer)) = (back.recv(&mut datagram), viewer) {
                        let _ = forth.send_to(&datagram[..length], viewer);
                    }
                }
            });
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = viewers.recv_from(&mut datagram) {
                    if viewer != Some(from) {
                        viewer = Some(from);
                        *known.lock() = viewer;
                    }
                    let _ = servers.send(&datagram[..length]);
                }
            }
        });
        Wiretap { port, server_side, stop }
    }

    /// Sends to the server from the viewer's address.
    pub fn forge(&self, datagram: &[u8]) {
        // A full buffer is the network's way to lose it.
        let _ = self.server_side.send(datagram);
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A binding request with USERNAME, ICE attributes and a MESSAGE-INTEGRITY that nobody can have computed.
pub fn forged_check(username: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let attributes: [(u16, &[u8]); 5] = [
        (0x0006, username.as_bytes()),
        (0x0024, &[0, 0, 1, 0]),
        (0x0025, &[]),
        (0x802a, &[1; 8]),
        (0x0008, &[7; 20]),
    ];
    for (kind, value) in attributes {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&(value.len() as u16).to_be_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = vec![0, 1];
    message.extend_from_slice(&(body.len() as u16).to_be_bytes());
    message.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
    message.extend_from_slice(&[9; 12]);
    message.extend_from_slice(&body);
    message
}

/// A DTLS record in the clear (RFC 6347 §4.1): version 1.2, epoch 0.
pub fn dtls_record(kind: u8, sequence: u16, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0];
    record.extend_from_slice(&sequence.to_be_bytes());
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(body);
    record
}

/// A ClientHello that a server would have to answer.
pub fn dtls_client_hello(message_sequence: u16) -> Vec<u8> {
    let mut hello = vec![0xfe, 0xfd];
    hello.extend_from_slice(&[5; 32]);
    hello.extend_from_slice(&[0, 0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    hello.extend_from_slice(&[0, 8, 0, 10, 0, 4, 0, 2, 0, 23]);
    let length = (hello.len() as u32).to_be_bytes();
    let mut message = vec![1, length[1], length[2], length[3]];
    message.extend_from_slice(&message_sequence.to_be_bytes());
    message.extend_from_slice(&[0, 0, 0]);
    message.extend_from_slice(&length[1..]);
    message.extend_from_slice(&hello);
    dtls_record(22, message_sequence, &message)
}

/// Bytes that look random and are the same each time.
pub fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..length).map(|_| byte()).collect()
}
