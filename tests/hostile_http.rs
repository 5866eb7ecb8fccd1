//! Strangers at the HTTP door: broken and double-tongued requests, odd names, bombs, other sites and proxies.

mod common;
mod hostile_support;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Streamgate, delete, eventually, get, get_json, put, request};
use hostile_support::*;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const JSON: &str = "application/json";
const GOOD: &str = r#"{"sources": ["demo:"]}"#;

fn start() -> Streamgate {
    Streamgate::with_streams(&[("front", "demo:")])
}

async fn names(streamgate: &Streamgate) -> Vec<String> {
    let streams = get_json(&streamgate.url("/api/streams")).await;
    streams.as_object().expect("an object").keys().cloned().collect()
}

#[tokio::test]
async fn requests_that_two_readers_could_read_differently_are_refused() {
    let mut streamgate = start();
    let inner = "PUT /api/streams?name=smuggled&src=demo: HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = inner.len();
    for (name, head) in [
        ("two lengths", format!("Content-Length: 0\r\nContent-Length: {length}\r\n")),
        ("a list of lengths", format!("Content-Length: 0, {length}\r\n")),
        ("a negative length", "Content-Length: -1\r\n".into()),
        ("a signed length", "Content-Length: +0\r\n".into()),
        ("a hexadecimal length", "Content-Length: 0x0\r\n".into()),
        ("an endless length", format!("Content-Length: {}\r\n", "9".repeat(30))),
        ("two encodings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".into()),
        ("an unknown encoding", "Transfer-Encoding: xchunked\r\n".into()),
        ("chunked first", "Transfer-Encoding: chunked, identity\r\n".into()),
        ("a blank in a name", "Content-Length : 0\r\n".into()),
        ("a folded header", "X: y\r\n Content-Length: 0\r\n".into()),
        ("a bare return", "X: y\rContent-Length: 0\r\n".into()),
        ("a NUL", "X: \0\r\n".into()),
    ] {
        let request = format!("POST /whep/front HTTP/1.1\r\nHost: localhost\r\n{head}\r\n{inner}");
        let answer = raw_http(&streamgate, &request).await;
        assert!((400..500).contains(&status_of(&answer)), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
    }
    // RFC 9112 §6.3: chunked wins over a length, and the connection ends after it.
    let both = format!(
        "POST /whep/front HTTP/1.1\r\nHost: localhost\r\nContent-Type: {SDP}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n\
         0\r\n\r\n{inner}"
    );
    let answer = raw_http(&streamgate, &both).await;
    assert_eq!((status_of(&answer), answer.matches("HTTP/1.1 ").count()), (400, 1), "{answer}");
    // A body that nobody reads is not the next request.
    let unread = format!(
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{inner}\
         GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    );
    let answer = raw_http(&streamgate, &unread).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 2, "{answer}");
    assert_eq!(names(&streamgate).await, ["front"]);
    check_sane(&mut streamgate);
}

#[tokio::test]
async fn bodies_that_lie_about_their_length_end_in_time() {
    let mut streamgate = start();
    let before = Footprint::of(&streamgate);
    let head = "POST /whep/front HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\n";
    let lying = ["65537", "20000000", "9223372036854775807"].map(|length| {
        let (head, streamgate) = (head, &streamgate);
        async move {
            for go_on in ["\r\nv=0\r\n", "Expect: 100-continue\r\n\r\n"] {
                let answer =
                    raw_http(streamgate, &format!("{head}Content-Length: {length}\r\n{go_on}")).await;
                assert_eq!(status_of(&answer), 413, "{length} {go_on}: {answer}");
            }
        }
    });
    futures_util::future::join_all(lying).await;
    // Chunks without end, as fast as they are taken.
    let mut stream = TcpStream::connect(("127.0.0.1", streamgate.port)).await.unwrap();
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let chunk = format!("4000\r\n{}\r\n", "v".repeat(0x4000));
    let started = Instant::now();
    let flood = async { while writer.write_all(chunk.as_bytes()).await.is_ok() {} };
    let mut answer = Vec::new();
    let answered = async {
        // A reset after the answer is an end as well.
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::join!(flood, answered);
    assert_eq!(status_of(&String::from_utf8_lossy(&answer)), 413);
    assert!(started.elapsed() < DEADLINE);
    // Sizes of chunks that can not be.
    for size in ["fffffffffffffffff", "-1", "xyz", "7fffffffffffffff"] {
        let request =
            format!("{head}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{size}\r\nv=0\r\n");
        let answer = exchange(&streamgate, request.as_bytes(), Duration::from_millis(300)).await;
        let status = status_of(&String::from_utf8_lossy(&answer));
        assert!(status == 0 || (400..500).contains(&status), "{size}: {status}");
    }
    check_recovered(&mut streamgate, before, 16_000).await;
}

#[tokio::test]
async fn half_a_body_on_each_of_thousands_of_h2_streams_stays_within_the_bound() {
    let mut streamgate = start();
    let before = Footprint::of(&streamgate);
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let field = |name: &str, value: &str| {
        [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let head = [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", "/whep/front"),
        field(":authority", "localhost"),
        field("content-type", SDP),
    ]
    .concat();
    let data = vec![b'v'; 16_000];
    let refused = Arc::new(AtomicBool::new(false));
    let mut open = Vec::new();
    for _ in 0..200 {
        let stream = TcpStream::connect(("127.0.0.1", streamgate.port)).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        writer.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        // The server's SETTINGS, its acknowledgement, and the WINDOW_UPDATE that opens the connection to 1 MiB.
        reader.read_exact(&mut [0; 33 + 9 + 13]).await.expect("the server's greeting");
        // As much as fits in that.
        for id in (1..40).step_by(2) {
            let body = frame(0, 0, id, &data).repeat(3);
            if writer.write_all(&[frame(1, 4, id, &head), body].concat()).await.is_err() {
                break;
            }
        }
        let refused = refused.clone();
        let drain = tokio::spawn(async move {
            let mut bytes = vec![0; 64 << 10];
            while let Ok(count @ 1..) = reader.read(&mut bytes).await {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                refused.fetch_or(text.contains("too many requests at the same time"), Ordering::Relaxed);
            }
        });
        open.push((writer, drain));
    }
    eventually("the bound is met", DEADLINE, async || refused.load(Ordering::Relaxed)).await;
    assert_eq!(get(&streamgate.url("/healthz")).await.status, 200);
    let grown = streamgate.rss_kb().saturating_sub(before.rss_kb);
    assert!(grown < 130_000, "memory grew by {grown} kB");
    for (writer, drain) in open {
        drain.abort();
        drop(writer);
    }
    eventually("the connections are gone", DEADLINE, async || streamgate.open_fds() <= before.files).await;
    let offer = common::post(&streamgate.url("/whep/front"), SDP, CHROMIUM).await;
    assert_eq!(offer.status, 201, "what was held is given back: {}", offer.text());
    check_sane(&mut streamgate);
}

#[tokio::test]
async fn requests_that_begin_again_and_again_are_cut_off() {
    let mut streamgate = start();
    // HTTP/2 rapid reset: streams opened and cancelled as fast as they can be written.
    let head = [&[0x83, 0x86, 0x84][..], &[0x41, 9], b"localhost"].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for id in (1..60_001u32).step_by(2) {
        let length = (head.len() as u32).to_be_bytes();
        bytes.extend([&length[1..], &[1, 5], &id.to_be_bytes(), &head].concat());
        bytes.extend([&[0, 0, 4, 3, 0][..], &id.to_be_bytes(), &[0, 0, 0, 8]].concat());
    }
    let answer = exchange(&streamgate, &bytes, DEADLINE).await;
    assert!(answer.windows(15).any(|w| w == b"too_many_resets"), "{} bytes of answer", answer.len());
    check_idle(&streamgate).await;
    check_sane(&mut streamgate);
}

#[tokio::test]
async fn paths_lead_nowhere_but_where_they_should() {
    let streamgate = start();
    for path in [
        "/assets/../index.html",
        "/assets/%2e%2e/index.html",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/%2e%2e%2f%2e%2e%2fCargo.toml",
        "/assets/..%5c..%5cCargo.toml",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/%00",
        "/assets/.",
        "/assets/",
        "/../../etc/passwd",
        "/stream/player/../../etc/passwd",
        "/stream/player/",
        "//api/streams",
        "/api//streams",
        "/API/STREAMS",
        "/api/streams/",
        "/api/streams/front/",
        "/api/streams;x/front",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let answer = raw_http(&streamgate, &request).await;
        assert_eq!(status_of(&answer), 404, "{path}: {answer}");
        assert!(answer.contains("content-type: application/json") && answer.contains("nosniff"), "{path}");
    }
    // The player's page is the same for every name; the name is the page's own business.
    let page = get(&streamgate.url("/stream/player/front")).await;
    for name in ["..%2f..%2fetc%2fpasswd", "%3Cscript%3E", "%00"] {
        let reply = get(&streamgate.url(&format!("/stream/player/{name}"))).await;
        assert!(reply.body == page.body, "{name}");
        assert!(reply.header("content-security-policy").contains("default-src 'self'"), "{name}");
    }
    for path in ["/api/streams/%FF", "/api/streams?src=%ff", "/whep/%C0%AF"] {
        let method = if path.starts_with("/whep") { "POST" } else { "GET" };
        let reply = request(method, &streamgate.url(path), &[("content-type", SDP)], "").await;
        check_error(&reply, 400, "UTF-8", path);
    }
    for path in
        ["/api/streams/%zz", "/api/streams/%", "/api/streams/%00", "/api/streams/a%0d%0aSet-Cookie:%20x"]
    {
        check_error(&get(&streamgate.url(path)).await, 404, "unknown stream", path);
    }
}

#[tokio::test]
async fn names_and_bodies_that_could_hurt_are_refused_in_words() {
    let mut streamgate = start();
    let before = Footprint::of(&streamgate);
    let long = "n".repeat(5000);
    for name in
        [".", "..", "a/b", "a?b", "a#b", "a\nb", "a\0", "\u{1b}[31m", "\u{85}", &"n".repeat(201), &long]
    {
        let encoded = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        let by_query = streamgate.url(&format!("/api/streams?name={encoded}&src=demo:"));
        check_error(&put(&by_query, JSON, "").await, 400, "name", name);
        // Clients shorten dots in paths, encoded or not.
        if !name.starts_with('.') {
            let by_path = streamgate.url(&format!("/api/streams/{encoded}"));
            check_error(&put(&by_path, JSON, GOOD).await, 400, "name", name);
        }
    }
    for (query, part) in [
        ("name=x&name=y&src=demo:", "more than once"),
        ("name=x", "source"),
        ("name=x&src=", "source"),
        ("name=x&src=demo:&_method=DELETE", "_method"),
        ("src=demo:", "name"),
        ("name=x&src=file:///etc/passwd", "file"),
        ("name=x&src=gopher://169.254.169.254/latest/meta-data", "scheme"),
        ("name=x&src=rtsp://h/%0d%0aX:%20y", "control characters"),
        (&format!("name=x{}", "&src=demo:".repeat(17)), "at most 16"),
        (&format!("name=x{}", "&src=demo:".repeat(100)), "64"),
    ] {
        let reply = put(&streamgate.url(&format!("/api/streams?{query}")), JSON, "").await;
        check_error(&reply, 400, part, query);
    }
    // Known from go2rtc: taken, and nothing is run or dialled for it.
    for source in ["exec:id", "echo:id", "http://169.254.169.254/latest/meta-data"] {
        let reply = put(&streamgate.url(&format!("/api/streams?name=y&src={source}")), JSON, "").await;
        assert_eq!((reply.status, reply.json()["state"].as_str()), (200, Some("idle")), "{}", reply.text());
        assert!(reply.header("streamgate-note").contains("no effect"), "{:?}", reply.headers);
        let probe = get(&streamgate.url("/api/streams?src=y&video")).await;
        check_error(&probe, 502, "not supported", source);
    }
    assert_eq!(delete(&streamgate.url("/api/streams/y")).await.status, 200);
    let url = streamgate.url("/api/streams/x");
    for (name, body, status, part) in [
        ("deep lists", "[".repeat(60_000), 400, "JSON"),
        ("deep objects", r#"{"a":"#.repeat(10_000), 400, "JSON"),
        ("a huge number", r#"{"on_demand": 1e999999}"#.into(), 400, "JSON"),
        ("many digits", format!(r#"{{"linger": {}}}"#, "9".repeat(60_000)), 400, "JSON"),
        ("a long duration", format!(r#"{{"linger": "{}s"}}"#, "9".repeat(60_000)), 400, "duration"),
        ("a long key", format!(r#"{{"{}": 1}}"#, "k".repeat(60_000)), 400, "unknown key"),
        ("an escape sequence", r#"{"\u001b[31m\u0000": 1}"#.into(), 400, "unknown key"),
        ("half a surrogate", r#"{"sources": ["rtsp://\ud800"]}"#.into(), 400, "JSON"),
        ("a long source", format!(r#"{{"sources": ["rtsp://{}"]}}"#, "h".repeat(5000)), 400, "4096"),
        ("ten megabytes", format!(r#"{{"sources": ["{}"]}}"#, "h".repeat(10_000_000)), 413, "64 KiB"),
    ] {
        check_error(&put(&url, JSON, body).await, status, part, name);
    }
    check_error(&put(&url, "text/plain", GOOD).await, 415, "application/json", "a form's media type");
    for (method, headers) in
        [("GET", [("x-http-method-override", "PUT")]), ("POST", [("x-http-method-override", "DELETE")])]
    {
        let reply = request(method, &streamgate.url("/api/streams?name=x&src=demo:"), &headers, "").await;
        assert!((400..500).contains(&reply.status), "{method}: {}", reply.status);
    }
    assert_eq!(names(&streamgate).await, ["front"]);
    for good in ["금곡IC", "a b", "50%", "<b>", "\u{1f4a5}", "%41"] {
        let encoded = utf8_percent_encode(good, NON_ALPHANUMERIC).to_string();
        let url = streamgate.url(&format!("/api/streams/{encoded}"));
        assert_eq!(put(&url, JSON, GOOD).await.status, 201, "{good}");
        assert!(names(&streamgate).await.contains(&good.to_owned()), "{good}");
        assert_eq!(delete(&url).await.status, 200, "{good}");
    }
    check_recovered(&mut streamgate, before, 16_000).await;
}

#[tokio::test]
async fn ten_thousand_streams_are_the_limit() {
    // By the form that is not saved: the limit is the registry's, and saving each would measure the disk.
    let mut streamgate = start();
    let before = Footprint::of(&streamgate);
    let mut stream = TcpStream::connect(("127.0.0.1", streamgate.port)).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let count = 10_050;
    let all: String = (0..count)
        .map(|n| {
            let close = if n + 1 == count { "Connection: close\r\n" } else { "" };
            format!(
                "PATCH /api/streams?name=n{n}&src=rtsp://127.0.0.1:9/{n} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n"
            )
        })
        .collect();
    let mut answers = Vec::new();
    let (sent, received) = tokio::join!(writer.write_all(all.as_bytes()), reader.read_to_end(&mut answers));
    sent.expect("all requests are taken");
    received.expect("all answers come");
    let answers = String::from_utf8_lossy(&answers);
    // One was there before.
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 9_999);
    assert_eq!(answers.matches("HTTP/1.1 503 ").count(), 51);
    assert!(answers.contains("too many streams"));
    let started = Instant::now();
    assert_eq!(names(&streamgate).await.len(), 10_000);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?} for the list", started.elapsed());
    let grown = streamgate.rss_kb().saturating_sub(before.rss_kb);
    assert!(grown < 200_000, "memory grew by {grown} kB");
    check_idle(&streamgate).await;
    assert!(streamgate.is_running() && !streamgate.log().contains("panick"));
}

#[tokio::test]
async fn only_this_machine_changes_anything_whatever_a_request_claims() {
    let streamgate = start();
    let localhost = format!("localhost:{}", streamgate.port);
    let put = async |headers: &str| {
        let head =
            format!("PUT /api/streams?name=x&src=demo: HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        status_of(&raw_http(&streamgate, &head).await)
    };
    for refused in [
        "".to_owned(),
        "Host: evil.example\r\n".into(),
        format!("Host: evil.example:{}\r\n", streamgate.port),
        "Host: localhost.evil.example\r\n".into(),
        "Host: localhost@evil.example\r\n".into(),
        "Host: 0\r\n".into(),
        "Host: 0.0.0.0\r\n".into(),
        "Host: 2130706433\r\n".into(),
        "Host: localhost\r\nHost: evil.example\r\n".into(),
        format!("Host: {localhost}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: {localhost}\r\nOrigin: null\r\n"),
        format!("Host: {localhost}\r\nOrigin: http://localhost:1\r\n"),
        format!("Host: {localhost}\r\nOrigin: http://{localhost}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: {localhost}\r\nSec-Fetch-Site: cross-site\r\n"),
        format!("Host: {localhost}\r\nSec-Fetch-Site: same-site\r\n"),
        format!("Host: {localhost}\r\nX-Forwarded-For: 127.0.0.1\r\n"),
        format!("Host: {localhost}\r\nForwarded: for=127.0.0.1\r\n"),
        format!("Host: {localhost}\r\nX-Real-IP: 127.0.0.1\r\n"),
        format!("Host: {localhost}\r\nCF-Connecting-IP: 127.0.0.1\r\n"),
        format!("Host: {localhost}\r\nVia: 1.1 proxy\r\n"),
    ] {
        assert_eq!(put(&refused).await, 403, "{refused}");
    }
    assert_eq!(names(&streamgate).await, ["front"]);
    for allowed in [
        "Host: localhost\r\n".to_owned(),
        "Host: 127.0.0.1\r\n".into(),
        "Host: [::1]:80\r\n".into(),
        "Host: [::ffff:127.0.0.1]\r\n".into(),
        format!("Host: {localhost}\r\nOrigin: http://{localhost}\r\nSec-Fetch-Site: same-origin\r\n"),
    ] {
        assert_eq!(put(&allowed).await, 200, "{allowed}");
    }
    // An absolute target names the host; one that disagrees with Host is nobody's.
    let absolute = |target: &str, host: &str| {
        format!(
            "PUT http://{target}/api/streams?name=y&src=demo: HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
    };
    assert_eq!(status_of(&raw_http(&streamgate, &absolute("evil.example", "localhost")).await), 403);
    assert_eq!(status_of(&raw_http(&streamgate, &absolute("localhost", "evil.example")).await), 403);
    // A probe makes the server dial: not for pages of other sites.
    let evil = [("origin", "http://evil.example")];
    let probe = streamgate.url("/api/streams?src=front&video");
    check_error(&request("GET", &probe, &evil, "").await, 403, "another site", "probe");
}
