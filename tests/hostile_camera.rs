//! Cameras that lie, gossip, flood or fall silent, seen from outside the whole program: viewers are told what the camera
//! did, in time and without its password; nobody else notices.

mod common;
mod hostile_support;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use base64::Engine;
use common::{Camera, Streamgate, delete, eventually, get, get_json, post, put};
use hostile_support::*;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// As it stands in a URL, and as it is.
const ENCODED: &str = "S3cret%2Fpa%20ss";
const PASSWORD: &str = "S3cret/pa ss";

/// What a camera does that was asked to describe itself.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    /// Says the password wherever it can, and plays without ever sending a picture.
    Gossip,
    Refuse,
    EndlessHeader,
    LongBody,
    Nothing,
    HangUp,
    Garbage,
}

/// A server that serves each connection so; gives back `host:port`.
async fn camera(does: Does) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, does));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, does: Does) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let cseq = head.lines().find_map(|line| line.strip_prefix("CSeq: "))?.to_owned();
        let ok = format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nServer: cam {PASSWORD}\r\n");
        let answer = match (head.split(' ').next()?, does) {
            ("DESCRIBE", Does::Gossip) => {
                let sdp = format!(
                    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns={PASSWORD}\r\ni=rtsp://admin:{ENCODED}@h/\r\nt=0 0\r\n\
                     a=password={ENCODED}\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
                     a=control:rtsp://admin:{ENCODED}@127.0.0.1/t0\r\n"
                );
                format!("{ok}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}", sdp.len())
            }
            ("DESCRIBE", Does::Refuse) => {
                format!("RTSP/1.0 403 no {PASSWORD} for rtsp://admin:{ENCODED}@h/\r\nCSeq: {cseq}\r\n\r\n")
            }
            ("DESCRIBE", Does::LongBody) => format!("{ok}Content-Length: 99999999999\r\n\r\nv=0\r\n"),
            ("DESCRIBE", Does::Garbage) => String::from_utf8_lossy(&noise(7, 5000)).into_owned(),
            ("DESCRIBE", Does::Nothing) => String::new(),
            ("DESCRIBE", Does::HangUp) => return None,
            ("DESCRIBE", Does::EndlessHeader) => {
                let line = format!("X-More: {}\r\n", "x".repeat(1000)).repeat(100);
                stream.write_all(ok.as_bytes()).await.ok()?;
                loop {
                    stream.write_all(line.as_bytes()).await.ok()?;
                }
            }
            ("SETUP", _) => {
                format!("{ok}Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n")
            }
            _ => format!("{ok}Session: 1\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n"),
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// No form of the password is in the text.
fn check_no_secret(text: &str, place: &str) {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("admin:{PASSWORD}"));
    for secret in [ENCODED, PASSWORD, "S3cret%2fpa%20ss", "S3cret%2Fpa+ss", "S3cret\\/pa ss", basic.as_str()]
    {
        assert!(!text.contains(secret), "{place} shows {secret:?}:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_of_a_hostile_camera_is_told_what_it_did_and_others_notice_nothing() {
    let mut streamgate = Streamgate::start(&["--log-level=trace", "--stream=demo=demo:"]);
    let (viewer, _tap, _) = tapped_viewer(&streamgate, "demo").await;
    let before = Footprint::of(&streamgate);
    let cases = [
        // Described is enough for an answer; pictures may still come.
        (Does::Gossip, 201, ""),
        (Does::Refuse, 502, "403"),
        (Does::EndlessHeader, 502, ""),
        (Does::LongBody, 502, "99999999999"),
        (Does::Nothing, 504, ""),
        (Does::HangUp, 502, "closed"),
        (Does::Garbage, 502, ""),
    ];
    let asked = cases.map(|(does, status, part)| {
        let base = streamgate.base_url.clone();
        async move {
            let name = format!("{does:?}");
            let source = format!("rtsp://admin:{ENCODED}@{}/cam#timeout=2", camera(does).await);
            let body = json!({"sources": [source], "linger": "0s"}).to_string();
            let created = put(&format!("{base}/api/streams/{name}"), "application/json", body).await;
            assert_eq!(created.status, 201, "{name}: {}", created.text());
            check_no_secret(&created.text(), "PUT");
            let started = Instant::now();
            let reply = post(&format!("{base}/whep/{name}"), SDP, CHROMIUM).await;
            assert!(started.elapsed() < Duration::from_secs(12), "{name}: {:?}", started.elapsed());
            check_no_secret(&reply.text(), &name);
            if status != 201 {
                return check_error(&reply, status, part, &name);
            }
            assert_eq!(reply.status, 201, "{name}: {}", reply.text());
            let view = get(&format!("{base}/api/streams/{name}")).await;
            assert!(view.json()["producers"][0]["sdp"].as_str().is_some_and(|sdp| sdp.contains("s=***")));
            check_no_secret(&view.text(), "a gossip's SDP");
            assert_eq!(delete(&format!("{base}{}", reply.header("location"))).await.status, 200);
        }
    });
    let watching = async {
        // Also while they are being dialled.
        for _ in 0..20 {
            check_no_secret(&get(&streamgate.url("/api/streams")).await.text(), "GET /api/streams");
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(futures_util::future::join_all(asked), watching, check_undisturbed(&viewer));
    check_undisturbed(&viewer).await;
    check_no_secret(&get(&streamgate.url("/api/streams")).await.text(), "GET /api/streams");
    check_no_secret(&streamgate.log(), "the log");
    for (does, _, _) in cases {
        eventually(&format!("{does:?} is left alone"), DEADLINE, async || {
            let view = get_json(&streamgate.url(&format!("/api/streams/{does:?}"))).await;
            view["state"] == "idle" && view["viewers"] == 0
        })
        .await;
    }
    let grown = streamgate.rss_kb().saturating_sub(before.rss_kb);
    assert!(grown < 24_000, "memory grew by {grown} kB");
    assert!(streamgate.is_running() && !streamgate.log().contains("panick"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_works_is_shown_nowhere() {
    for method in ["basic", "digest"] {
        let camera = Camera::start_protected(&format!("{method}:admin:{PASSWORD}"), "video=h264");
        let source = camera.url_as(&format!("admin:{ENCODED}"));
        let streamgate = Streamgate::start(&["--log-level=trace", &format!("--stream=front={source}")]);
        let answer = post(&streamgate.url("/whep/front"), SDP, CHROMIUM).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        for path in
            ["/api/streams", "/api/streams/front", "/api/streams?src=front&video", "/api", "/api/ice", "/"]
        {
            let reply = get(&streamgate.url(path)).await;
            check_no_secret(&reply.text(), path);
            check_no_secret(&format!("{:?}", reply.headers), path);
        }
        check_no_secret(&answer.text(), "the answer");
        check_no_secret(&format!("{:?}", answer.headers), "the answer's headers");
        check_no_secret(&streamgate.log(), "the log");
    }
}
