//! What the program tells of itself, and the embedded pages.

mod common;

use common::{Camera, Streamgate, eventually, get, get_json, request};
use serde_json::json;
use std::time::Duration;

const DEAD: &str = "rtsp://127.0.0.1:9/cam";

#[tokio::test]
async fn the_application_is_described_as_go2rtc_clients_expect() {
    let streamgate = Streamgate::with_config("streams: {front: 'rtsp://127.0.0.1:9/cam'}\n");
    let info = get_json(&streamgate.url("/api")).await;
    assert_eq!(info["version"], "1.9.14");
    assert_eq!(info["config_path"], "streamgate.yaml");
    assert_eq!(info["host"], format!("127.0.0.1:{}", streamgate.port));
    assert!(info["rtsp"]["listen"].is_string() && info["revision"].is_string(), "{info}");
    assert_eq!(info["server"]["name"], "streamgate");
    assert_eq!(info["server"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["listeners"][0]["address"], format!("127.0.0.1:{}", streamgate.port));
    assert!(info["uptime"].is_u64(), "{info}");
}

#[tokio::test]
async fn schemes_and_ice_servers_are_listed() {
    let streamgate = Streamgate::with_config(
        "webrtc:\n  ice_servers:\n    - urls: ['stun:127.0.0.1:3478']\n    \
         - {urls: ['turn:127.0.0.1:3478'], username: u, credential: c}\n",
    );
    let schemes = get_json(&streamgate.url("/api/schemes")).await;
    assert!(schemes.as_array().unwrap().contains(&json!("rtsp")), "{schemes}");
    assert_eq!(
        get_json(&streamgate.url("/api/ice")).await,
        json!({"ice_servers": [
            {"urls": ["stun:127.0.0.1:3478"]},
            {"urls": ["turn:127.0.0.1:3478"], "username": "u", "credential": "c"},
        ]})
    );
}

#[tokio::test]
async fn it_is_ready_when_the_streams_that_always_run_are_live() {
    let mut camera = Camera::start("clip=h264_main_g60");
    let streamgate = Streamgate::with_config(&format!(
        "streams:\n  on_demand: {DEAD}\n  always: {{sources: '{}', on_demand: false}}\n",
        camera.url
    ));
    let url = streamgate.url("/readyz");
    eventually("ready", Duration::from_secs(10), async || get(&url).await.status == 200).await;
    camera.kill();
    eventually("not ready", Duration::from_secs(15), async || get(&url).await.status == 503).await;
    let reply = get(&url).await.json();
    assert_eq!(reply["streams"], json!(["always"]));
    assert!(reply["error"].is_string() && reply["detail"].as_str().unwrap().contains("always"), "{reply}");
    assert_eq!(get_json(&streamgate.url("/healthz")).await, json!({"status": "ok"}));
}

#[tokio::test]
async fn pages_are_served_with_a_policy_and_revalidated() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/stream/player/%EA%B8%88%EA%B3%A1IC", "text/html; charset=utf-8"),
        ("/assets/home.js", "text/javascript; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/favicon.svg", "image/svg+xml"),
    ] {
        let reply = get(&streamgate.url(path)).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, kind), "{path}");
        assert!(!reply.body.is_empty(), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-cache", "{path}");
        let policy = reply.header("content-security-policy");
        assert_eq!(policy.contains("default-src 'self'"), kind.starts_with("text/html"), "{path}: {policy}");
        let etag = reply.header("etag").to_owned();
        let again = request("GET", &streamgate.url(path), &[("if-none-match", &etag)], "").await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, etag.as_str()), "{path}");
        let other = request("GET", &streamgate.url(path), &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.status, 200, "{path}");
        let head = request("HEAD", &streamgate.url(path), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
    }
    for path in ["/assets/..%2Findex.html", "/assets/%2e%2e/%2e%2e/Cargo.toml", "/assets/", "/index.php"] {
        let reply = get(&streamgate.url(path)).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(reply.json()["error"].is_string(), "{path}");
    }
}
