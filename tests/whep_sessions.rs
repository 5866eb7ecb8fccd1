//! WHEP sessions as picky clients use them (RFC 9725 §4): trickle, ICE restart, preconditions, the end; methods,
//! preflights, and what is left after it.

mod common;
mod hostile_support;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Reply, Streamgate, delete, eventually, post, request};
use hostile_support::*;

const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const RESTART: &str = "a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghijklmnopqrstuvwxyz\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n";
const CANDIDATE: &str = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";

struct Session {
    url: String,
    etag: String,
    answer: String,
}

async fn open(streamgate: &Streamgate) -> Session {
    let reply = post(&streamgate.url("/whep/front"), SDP, CHROMIUM).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.header("content-type"), SDP);
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("accept-patch"), FRAGMENT);
    let location = reply.header("location");
    let name = location.strip_prefix("/api/webrtc/").expect("a path");
    assert!(name.len() >= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric()), "guessable: {name}");
    Session { url: streamgate.url(location), etag: reply.header("etag").to_owned(), answer: reply.text() }
}

impl Session {
    async fn patch(&self, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
        request("PATCH", &self.url, headers, body).await
    }

    async fn trickle(&self, if_match: &str, body: impl Into<Vec<u8>>) -> Reply {
        self.patch(&[("content-type", FRAGMENT), ("if-match", if_match)], body).await
    }
}

fn start() -> Streamgate {
    Streamgate::with_streams(&[("front", "demo:")])
}

#[tokio::test]
async fn candidates_are_taken_whatever_the_etag_looks_like_and_nothing_else_is() {
    let mut streamgate = start();
    let session = open(&streamgate).await;
    let bare = session.etag.trim_matches('"').to_owned();
    for if_match in [session.etag.clone(), "*".into(), format!("W/{}", session.etag), bare] {
        let reply = session.trickle(&if_match, format!("{CANDIDATE}a=end-of-candidates\r\n")).await;
        assert_eq!((reply.status, reply.body.len()), (204, 0), "{if_match}: {}", reply.text());
    }
    for (body, name) in [
        (String::new(), "nothing"),
        ("a=end-of-candidates\r\n".into(), "the end"),
        (CANDIDATE.repeat(1000), "a thousand"),
        ("a=candidate:-1 999999999999 x -5 999.1.1.1 99999999 typ wat\r\n".into(), "nonsense"),
        ("a=candidate:1 1 udp 1 f00.local 9 typ host\r\n".into(), "mDNS"),
    ] {
        assert_eq!(session.trickle(&session.etag, body).await.status, 204, "{name}");
    }
    let etag = session.etag.as_str();
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Vec<u8>, u16, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("no If-Match", vec![("content-type", FRAGMENT)], CANDIDATE.into(), 428, "If-Match"),
        (
            "another ETag",
            vec![("content-type", FRAGMENT), ("if-match", "\"x\"")],
            CANDIDATE.into(),
            412,
            "If-Match",
        ),
        ("no type", vec![("if-match", etag)], CANDIDATE.into(), 415, FRAGMENT),
        (
            "JSON",
            vec![("content-type", "application/json"), ("if-match", etag)],
            b"{}".to_vec(),
            415,
            FRAGMENT,
        ),
        ("an SDP", vec![("content-type", SDP), ("if-match", etag)], CHROMIUM.into(), 415, FRAGMENT),
        (
            "20 MB",
            vec![("content-type", FRAGMENT), ("if-match", etag)],
            vec![b'a'; 20_000_000],
            413,
            "64 KiB",
        ),
        ("NULs", vec![("content-type", FRAGMENT), ("if-match", etag)], vec![0; 100], 400, "line 1"),
        (
            "no UTF-8",
            vec![("content-type", FRAGMENT), ("if-match", etag)],
            vec![b'a', b'=', 0xff],
            400,
            "UTF-8",
        ),
        (
            "half of the credentials",
            vec![("content-type", FRAGMENT), ("if-match", etag)],
            b"a=ice-ufrag:abcd\r\n".to_vec(),
            400,
            "belong together",
        ),
        (
            "a cut candidate",
            vec![("content-type", FRAGMENT), ("if-match", etag)],
            b"a=candidate:1 1\r\n".to_vec(),
            400,
            "cut short",
        ),
    ];
    for (name, headers, body, status, part) in cases {
        check_error(&session.patch(&headers, body).await, status, part, name);
    }
    let absurd = session.trickle("\"\u{fc}\"", CANDIDATE).await;
    assert!((400..500).contains(&absurd.status), "{}", absurd.text());
    assert_eq!(viewers(&streamgate, "front").await, 1, "the session lives");
    assert_eq!(delete(&session.url).await.status, 200);
    check_sane(&mut streamgate);
}

#[tokio::test]
async fn an_ice_restart_gives_new_credentials_and_a_new_etag_and_the_old_one_is_past() {
    let streamgate = start();
    let session = open(&streamgate).await;
    let reply = session.trickle(&session.etag, RESTART).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), FRAGMENT);
    let etag = reply.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag != session.etag, "{etag}");
    let fragment = reply.text();
    for needed in ["a=ice-lite\r\n", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=mid:0\r\n"] {
        assert!(fragment.contains(needed), "{needed}: {fragment}");
    }
    let ufrag = fragment.lines().find(|line| line.starts_with("a=ice-ufrag:")).expect("a ufrag");
    assert!(!session.answer.contains(ufrag), "the credentials are new");

    let another = RESTART.replace("abcdefgh\r", "another1\r");
    check_error(&session.trickle(&session.etag, another.clone()).await, 412, "If-Match", "the old ETag");
    assert_eq!(session.trickle(&etag, CANDIDATE).await.status, 204);
    // The same credentials again are no restart: a request that was sent twice does no harm.
    assert_eq!(session.trickle(&etag, RESTART).await.status, 204);
    let reply = session.trickle("*", another).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_ne!(reply.header("etag"), etag);
    assert_eq!(delete(&session.url).await.status, 200);
}

#[tokio::test]
async fn a_session_ends_once_and_its_url_means_nothing_afterwards() {
    let mut streamgate = start();
    let warm = open(&streamgate).await;
    let before = Footprint::of(&streamgate);
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(open(&streamgate).await);
    }
    assert_eq!(viewers(&streamgate, "front").await, 101);
    for session in &sessions {
        assert_eq!(delete(&session.url).await.status, 200);
        eventually("gone", DEADLINE, async || delete(&session.url).await.status == 404).await;
        check_error(&session.trickle("*", CANDIDATE).await, 404, "session", "PATCH of the past");
    }
    for wrong in ["x", "..%2f", "%00", "a%2fb", &"y".repeat(5000)] {
        let reply = delete(&streamgate.url(&format!("/api/webrtc/{wrong}"))).await;
        check_error(&reply, 404, "session", wrong);
    }
    eventually("one is left", DEADLINE, async || viewers(&streamgate, "front").await == 1).await;
    assert!(streamgate.open_fds() <= before.files + 1, "{} files, {:?}", streamgate.open_fds(), before);
    let grown = streamgate.rss_kb().saturating_sub(before.rss_kb);
    assert!(grown < 60_000, "memory grew by {grown} kB");
    assert_eq!(delete(&warm.url).await.status, 200);
    assert!(streamgate.is_running());
}

#[tokio::test]
async fn other_methods_get_405_with_allow() {
    let streamgate = start();
    let session = open(&streamgate).await;
    for (url, methods, allowed) in [
        (
            streamgate.url("/whep/front"),
            &["GET", "HEAD", "PUT", "PATCH", "DELETE", "TRACE"][..],
            &["POST", "OPTIONS"][..],
        ),
        (
            streamgate.url("/api/webrtc?src=front"),
            &["GET", "HEAD", "PUT", "PATCH", "DELETE"],
            &["POST", "OPTIONS"],
        ),
        (session.url.clone(), &["GET", "HEAD", "PUT", "POST", "PROPFIND"], &["PATCH", "DELETE", "OPTIONS"]),
    ] {
        for method in methods {
            let reply = request(method, &url, &[], "").await;
            assert_eq!(reply.status, 405, "{method} {url}: {}", reply.text());
            let allow: Vec<&str> = reply.header("allow").split(',').map(str::trim).collect();
            assert_eq!(allow, allowed, "{method} {url}");
            assert!(*method == "HEAD" || reply.json()["error"].is_string(), "{method} {url}");
        }
    }
    assert_eq!(viewers(&streamgate, "front").await, 1);
}

#[tokio::test]
async fn preflights_allow_what_whep_players_send_and_never_credentials() {
    let streamgate = start();
    let session = open(&streamgate).await;
    for (url, method, wanted) in [
        (streamgate.url("/whep/front"), "POST", "authorization,content-type"),
        (streamgate.url("/api/webrtc?src=front"), "POST", "content-type"),
        (session.url.clone(), "PATCH", "authorization,content-type,if-match"),
        (session.url.clone(), "DELETE", "authorization"),
    ] {
        let headers = [
            ("origin", "https://player.example"),
            ("access-control-request-method", method),
            ("access-control-request-headers", wanted),
        ];
        let reply = request("OPTIONS", &url, &headers, "").await;
        assert!(matches!(reply.status, 200 | 204), "{url}: {}", reply.status);
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{url}");
        assert_eq!(reply.header("access-control-allow-credentials"), "", "{url}");
        assert!(reply.header("access-control-allow-methods").split(", ").any(|m| m == method), "{url}");
        let allowed = reply.header("access-control-allow-headers").to_ascii_lowercase();
        for name in wanted.split(',') {
            assert!(allowed.split(", ").any(|header| header == name), "{url}: {name} is not in {allowed}");
        }
    }
    // What changes streams is never opened to other sites.
    let headers = [("origin", "https://evil.example"), ("access-control-request-method", "PUT")];
    let reply = request("OPTIONS", &streamgate.url("/api/streams"), &headers, "").await;
    assert_eq!(reply.header("access-control-allow-origin"), "");
    let listed = request("GET", &streamgate.url("/api/streams"), &headers[..1], "").await;
    assert_eq!(listed.header("access-control-allow-origin"), "");
}
