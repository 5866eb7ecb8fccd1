//! Who may do what, through the real server.

mod one_port_support;

use one_port_support::{Options, Running, start};

async fn ask(server: &Running, head: &str) -> String {
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    String::from_utf8(server.exchange(request.as_bytes()).await).unwrap()
}

#[tokio::test]
async fn this_machine_may_change_streams() {
    let server = start(Options { listen: ":0", ..Options::default() }).await;
    for head in [
        "PUT /api/streams?name=a&src=rtsp://b HTTP/1.1\r\nhost: localhost:1984",
        "PUT /api/streams HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://127.0.0.1",
        "GET /api/config HTTP/1.1\r\nhost: [::1]:1984\r\nsec-fetch-site: same-origin",
        "GET /api/streams HTTP/1.1\r\nhost: evil.example\r\norigin: http://evil.example",
    ] {
        let answer = ask(&server, head).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("handler"), "{head}: {answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn everybody_else_gets_403_with_a_hint() {
    let server = start(Options { any_origin: true, ..Options::default() }).await;
    for head in [
        "PUT /api/streams?name=a&src=rtsp://u:hunter2@b HTTP/1.1\r\nhost: cam.example.org",
        "DELETE /api/streams?src=a HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: 203.0.113.9",
        "DELETE /api/streams?src=a HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example",
        "GET /api/config HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site",
        "GET /api/streams?src=a&video HTTP/1.1\r\nhost: evil.example",
    ] {
        let answer = ask(&server, head).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{head}: {answer}");
        assert!(answer.contains("content-type: application/json"), "{answer}");
        assert!(!answer.contains("access-control-allow-origin"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        for field in ["error", "detail", "hint"] {
            assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        }
        assert!(!answer.contains("hunter2"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn other_sites_may_read_only_when_the_origin_is_opened() {
    for any_origin in [false, true] {
        let server = start(Options { any_origin, ..Options::default() }).await;
        let answer =
            ask(&server, "GET /api/streams HTTP/1.1\r\nhost: x\r\norigin: https://other.example").await;
        assert_eq!(answer.contains("access-control-allow-origin: *"), any_origin, "{answer}");
        let preflight = "OPTIONS /whep/echo HTTP/1.1\r\nhost: x\r\norigin: https://o.example\r\naccess-control-request-method";
        let answer = ask(&server, &format!("{preflight}: DELETE")).await;
        assert_eq!(answer.starts_with("HTTP/1.1 204 "), any_origin, "{answer}");
        assert_eq!(
            answer.contains("access-control-allow-methods: GET, HEAD, POST, PATCH, DELETE"),
            any_origin,
            "{answer}"
        );
        server.stop().await;
    }
    let server = start(Options { any_origin: true, ..Options::default() }).await;
    let preflight = "OPTIONS /api/streams HTTP/1.1\r\nhost: x\r\norigin: https://o.example\r\naccess-control-request-method";
    let answer = ask(&server, &format!("{preflight}: DELETE")).await;
    assert!(answer.contains("access-control-allow-methods: GET, HEAD\r\n"), "{answer}");
    server.stop().await;
}
