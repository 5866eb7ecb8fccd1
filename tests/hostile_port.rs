//! Strangers at the one port: garbage, floods, half-open connections and forged datagrams. Whoever watches goes on
//! watching, memory stays flat, nothing panics.

mod common;
mod hostile_support;
mod rtsp_support;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Streamgate, eventually, get};
use hostile_support::*;
use rtsp_support::{Client, Message, consumers};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn start() -> Streamgate {
    Streamgate::with_streams(&[("demo", "demo:")])
}

/// What a stranger may send as a datagram; each `n` is another.
fn garbage(n: usize, ufrag: &str) -> Vec<u8> {
    let seed = n as u32;
    match n % 10 {
        0 => forged_check("unknown:someone"),
        1 => forged_check(&format!("{ufrag}:wrong")),
        2 => dtls_client_hello(n as u16),
        3 => dtls_record(21, n as u16, &[2, 40]),
        4 => [&[0x80, 96][..], &noise(seed, n % 1300)].concat(),
        5 => [&[0x81, 203, 0, 1][..], &noise(seed, 4)].concat(),
        6 => [&[0x01, 0x01, 0, 12, 0x21, 0x12, 0xa4, 0x42][..], &noise(seed, 24)].concat(),
        7 => noise(seed, 1 + n % 1400),
        8 => [&[0, 1, 0xff, 0xff, 0x21, 0x12, 0xa4, 0x42][..], &noise(seed, n % 60)].concat(),
        _ => vec![(n % 256) as u8; n % 3],
    }
}

fn ufrag_of(answer: &str) -> String {
    answer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("a ufrag").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_datagrams_disturbs_no_viewer() {
    let mut streamgate = start();
    let (viewer, _tap, answer) = tapped_viewer(&streamgate, "demo").await;
    let before = Footprint::of(&streamgate);
    let ufrag = ufrag_of(&answer.text());
    let to = ("127.0.0.1", streamgate.port);
    let datagrams: Vec<Vec<u8>> = (0..1000).map(|n| garbage(n, &ufrag)).collect();
    let flood = std::thread::spawn(move || {
        let sockets: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let started = Instant::now();
        for n in 0..200_000 {
            // ECONNREFUSED cannot be, and a full buffer loses it.
            let _ = sockets[n % sockets.len()].send_to(&datagrams[n % datagrams.len()], to);
            if started.elapsed() > Duration::from_secs(3) {
                break;
            }
        }
    });
    check_undisturbed(&viewer).await;
    flood.join().expect("the flood ends");
    check_undisturbed(&viewer).await;
    assert_eq!(viewers(&streamgate, "demo").await, 1);
    check_recovered(&mut streamgate, before, 16_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_forged_from_a_viewers_own_address_do_not_end_its_session() {
    let mut streamgate = start();
    let (viewer, tap, answer) = tapped_viewer(&streamgate, "demo").await;
    let before = Footprint::of(&streamgate);
    let ufrag = ufrag_of(&answer.text());
    // In turn, so that each kind has to be survived, and no faster than a worker takes them.
    for kind in 0..10 {
        for n in 0..300 {
            tap.forge(&garbage(n * 10 + kind, &ufrag));
            if n % 100 == 99 {
                get(&streamgate.url("/healthz")).await;
            }
        }
        let had = viewer_units(&viewer);
        eventually(&format!("pictures after kind {kind}"), DEADLINE, async || {
            assert!(!viewer.is_closed() && !viewer.is_gone(), "kind {kind} ended the session");
            viewer_units(&viewer) > had + 5
        })
        .await;
    }
    // Alerts and goodbyes in the clear, whoever claims to send them.
    for forged in [
        dtls_record(21, 0, &[1, 0]),
        dtls_record(21, 7, &[2, 80]),
        dtls_record(20, 1, &[1]),
        dtls_record(23, 9, &noise(1, 100)),
        dtls_client_hello(0),
        vec![0x81, 203, 0, 1, 0, 0, 0, 1],
        vec![0x80, 201, 0, 1, 0, 0, 0, 1],
        vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
    ] {
        (0..50).for_each(|_| tap.forge(&forged));
    }
    check_undisturbed(&viewer).await;
    check_recovered(&mut streamgate, before, 16_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_survives_garbage_from_strangers_and_from_its_own_address() {
    let streamgate = start();
    // A running stream, so that the answer comes at once.
    let (_first, _tap, _) = tapped_viewer(&streamgate, "demo").await;
    for kind in 0..10 {
        let (viewer, tap, answer) = connecting_viewer(&streamgate, "demo").await;
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
        let ufrag = ufrag_of(&answer.text());
        let mut n = kind;
        eventually(&format!("it connects in spite of kind {kind}"), DEADLINE, async || {
            for _ in 0..20 {
                n += 10;
                let _ = stranger.send_to(&garbage(n, &ufrag), ("127.0.0.1", streamgate.port));
                // DTLS is not yet authenticated: who forges a handshake message or an alert now is believed.
                if !matches!(kind, 2 | 3) {
                    tap.forge(&garbage(n, &ufrag));
                }
            }
            viewer.is_connected()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_half_open_connections_leave_room_for_others() {
    let mut streamgate = start();
    let before = Footprint::of(&streamgate);
    let starts: [&[u8]; 6] = [
        b"",
        b"G",
        b"POST /whep/demo HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nContent-Length: 5000\r\n\r\nv=0",
        b"\x16\x03\x01\x02\x00\x01",
        b"\x00\x6c\x00\x01\x00\x58\x21\x12\xa4\x42abcdefghijkl",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let mut open = Vec::new();
    for n in 0..3000 {
        let Ok(Ok(mut stream)) =
            tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(("127.0.0.1", streamgate.port)))
                .await
        else {
            panic!("connection {n} was not taken by the system");
        };
        // Those that are too many are closed again, which is what is wanted.
        let _ = stream.write_all(starts[n % starts.len()]).await;
        open.push(stream);
        if n % 500 == 499 {
            assert_eq!(get(&streamgate.url("/healthz")).await.status, 200, "after {n}");
        }
    }
    let grown = streamgate.rss_kb().saturating_sub(before.rss_kb);
    assert!(grown < 100_000, "{grown} kB for {} half-open connections", open.len());
    drop(open);
    check_recovered(&mut streamgate, before, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_few_files_keeps_some_for_cameras() {
    use std::io::BufRead;
    // The shell's own limit, soft and hard: it can't be raised.
    let mut child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n 256; exec \"$0\" --listen 127.0.0.1:0 --stream=demo=demo:"])
        .arg(env!("CARGO_BIN_EXE_streamgate"))
        .current_dir(std::env::temp_dir())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("sh can be run");
    let mut lines = std::io::BufReader::new(child.stderr.take().expect("piped")).lines();
    let address = lines.find_map(|line| {
        let (_, rest) =
            line.ok()?.split_once("listening on http://").map(|(a, b)| (a.len(), b.to_owned()))?;
        rest.split('/').next().map(str::to_owned)
    });
    let address = address.expect("it starts");
    std::thread::spawn(move || lines.count());
    let mut open = Vec::new();
    for _ in 0..400 {
        let mut stream = TcpStream::connect(&address).await.expect("the system takes it");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n").await;
        open.push(stream);
    }
    // The camera needs sockets of its own.
    let files = || std::fs::read_dir(format!("/proc/{}/fd", child.id())).expect("it lives").count();
    eventually("it has taken what it takes", DEADLINE, async || files() > 100).await;
    assert!(files() < 230, "{} of 256 files", files());
    drop(open);
    let probe = format!("http://{address}/api/streams?src=demo&video");
    eventually("a camera can be dialled", DEADLINE, async || get(&probe).await.status == 200).await;
    child.kill().expect("it lives");
    child.wait().expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_client_would_send_is_closed_without_a_word() {
    let mut streamgate = start();
    let before = Footprint::of(&streamgate);
    let check = forged_check("unknown:someone");
    let framed = [&(check.len() as u16).to_be_bytes()[..], &check].concat();
    let hello = [&b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"[..], &noise(3, 60)].concat();
    let mut openings: Vec<(&str, Vec<u8>)> = vec![
        ("RTMP", [&[3][..], &noise(2, 1536)].concat()),
        ("TLS without a certificate", hello),
        ("ICE-TCP for nobody", framed),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ("SOCKS", vec![5, 1, 0]),
        ("zeros", vec![0; 4000]),
    ];
    openings.extend((0..40).map(|n| ("noise", [&[0xff][..], &noise(n, 500)].concat())));
    for (name, opening) in openings {
        let started = Instant::now();
        let answer = exchange(&streamgate, &opening, DEADLINE).await;
        assert!(answer.is_empty(), "{name}: {}", String::from_utf8_lossy(&answer));
        assert!(started.elapsed() < Duration::from_secs(3), "{name}: {:?}", started.elapsed());
    }
    check_recovered(&mut streamgate, before, 8_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_tcp_frames_that_lie_end_the_connection() {
    let mut streamgate = start();
    let (viewer, _tap, answer) = tapped_viewer(&streamgate, "demo").await;
    let before = Footprint::of(&streamgate);
    // It knows a session's username fragment, but not its password.
    let check = forged_check(&format!("{}:x", ufrag_of(&answer.text())));
    let framed = [&(check.len() as u16).to_be_bytes()[..], &check].concat();
    for rest in [
        b"\xff\xff".to_vec(),
        [&[0x3f, 0xff][..], &noise(1, 0x3fff)].concat(),
        [&[0, 0][..]; 2000].concat(),
        (0..2000u32).flat_map(|n| [&[0, 40][..], &noise(n, 40)].concat()).collect(),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", streamgate.port)).await.unwrap();
        let _ = stream.write_all(&[&framed[..], &rest].concat()).await;
        let mut told = Vec::new();
        let _ = tokio::time::timeout(Duration::from_millis(300), stream.read_to_end(&mut told)).await;
        assert!(told.is_empty(), "a stranger was answered: {told:?}");
    }
    check_undisturbed(&viewer).await;
    check_recovered(&mut streamgate, before, 16_000).await;
}

/// Interleaved RTP without a gap, however many other connections misbehave.
async fn check_plays(player: &mut Client, last: &mut Option<u16>) {
    let mut packets = 0;
    while packets < 100 {
        let Some(Message::Data { channel, packet }) = player.next().await else {
            panic!("the player was disturbed")
        };
        if channel == 0 {
            let sequence = u16::from_be_bytes([packet[2], packet[3]]);
            assert!(last.replace(sequence).is_none_or(|last| sequence == last.wrapping_add(1)));
            packets += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rtsp_clients_that_misbehave_end_their_own_connection_only() {
    let mut streamgate = start();
    let mut player = Client::connect(streamgate.port, "demo").await;
    player.play().await;
    let mut last = None;
    check_plays(&mut player, &mut last).await;
    let before = Footprint::of(&streamgate);

    let line = "X-Header: value\r\n";
    for request in [
        format!("DESCRIBE rtsp://h/demo RTSP/1.0\r\nCSeq: 1\r\n{}", line.repeat(100_000)),
        format!("DESCRIBE rtsp://h/{} RTSP/1.0\r\n", "a".repeat(1_000_000)),
        "SETUP rtsp://h/demo RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 999999999\r\n\r\n".to_owned(),
        "PLAY rtsp://h/demo RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "TEARDOWN rtsp://h/demo RTSP/2.0\r\nCSeq: 1\r\n\r\n".to_owned(),
        "PAUSE rtsp://h/demo HTTP/1.1\r\n\r\n".to_owned(),
        "GET_PARAMETER rtsp://h/demo RTSP/1.0\r\nno colon\r\n\r\n".to_owned(),
        "OPTIONS rtsp://h/ RTSP/1.0\r\nCSeq: 1\r\n\r\n\0\u{1}\u{2}\u{3}".to_owned(),
    ] {
        let started = Instant::now();
        let answer = exchange(&streamgate, request.as_bytes(), DEADLINE).await;
        let begin: String = request.chars().take(40).collect();
        assert!(started.elapsed() < DEADLINE, "{begin}: still open");
        // Empty when it was cut while it still sent.
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.contains("RTSP/1.0 400 Bad Request"), "{begin}: {answer}");
    }

    // One that asks and asks and never reads an answer.
    let mut deaf = TcpStream::connect(("127.0.0.1", streamgate.port)).await.expect("it listens");
    let many =
        b"DESCRIBE rtsp://h/demo RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x01\x00\x04\x80\xc9\x00\x00".repeat(1000);
    let asking = async { while deaf.write_all(&many).await.is_ok() {} };
    let _ = tokio::time::timeout(Duration::from_secs(2), asking).await;
    check_plays(&mut player, &mut last).await;
    let now = Footprint::of(&streamgate);
    assert!(now.rss_kb < before.rss_kb + 16_000, "{before:?} {now:?}");
    drop(deaf);

    // Some that set up and leave in whatever state, and one that takes another's session for its own.
    let mut left = Vec::new();
    for n in 0..200 {
        let mut client = Client::connect(streamgate.port, "demo").await;
        let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
        if n % 4 > 0 {
            assert_eq!(client.ask("SETUP", "/trackID=0", transport).await.0, 200);
        }
        if n % 4 > 1 {
            assert_eq!(client.ask("PLAY", "", "").await.0, 200);
        }
        if n % 4 == 2 {
            client.send("DESCRIBE", "", "").await;
        }
        left.push(client);
    }
    let mut thief = Client::connect(streamgate.port, "demo").await;
    thief.session = player.session.clone();
    assert_eq!(thief.ask("TEARDOWN", "", "").await.0, 454);
    drop((left, thief));
    eventually("only the player is left", DEADLINE, async || consumers(&streamgate, "demo").await.len() == 1)
        .await;
    check_plays(&mut player, &mut last).await;
    eventually("their sockets are closed", DEADLINE, async || streamgate.open_fds() <= before.files).await;
    let now = Footprint::of(&streamgate);
    assert!(now.rss_kb < before.rss_kb + 24_000, "{before:?} {now:?}");
    assert!(!streamgate.log().contains("panic") && streamgate.is_running());
}
