//! WHEP and the other forms of `POST /api/webrtc`, from the HTTP side.

mod common;

use common::{Camera, Reply, Streamgate, delete, eventually, get, get_json, options, patch, post, request};
use serde_json::json;
use std::time::{Duration, Instant};

const DEAD: &str = "rtsp://127.0.0.1:9/cam";
const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

fn check_error(reply: &Reply, status: u16, part: &str, request: &str) {
    assert_eq!(reply.status, status, "{request}: {}", reply.text());
    assert!(reply.json()["error"].is_string(), "{request}: {}", reply.text());
    assert!(reply.text().contains(part), "{request}: {} has no {part:?}", reply.text());
    assert_eq!(reply.header("access-control-allow-origin"), "*", "{request}");
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_fitting_status() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    for (path, content_type, body, status, part) in [
        ("/api/webrtc", SDP, "v=0\r\n", 400, "src"),
        ("/api/webrtc?src=nobody", SDP, "v=0\r\n", 404, "nobody"),
        ("/whep/nobody", SDP, "v=0\r\n", 404, "nobody"),
        ("/whep/%FF", SDP, "v=0\r\n", 400, "UTF-8"),
        ("/whep/front", "text/plain", "v=0\r\n", 415, "application/sdp"),
        ("/api/webrtc?src=front", SDP, "", 400, "bad SDP offer"),
        ("/api/webrtc?src=front", SDP, "hello", 400, "bad SDP offer"),
        ("/api/webrtc?src=front", "", "hello", 400, "bad SDP offer"),
        ("/api/webrtc?src=front", "application/json", "{", 400, "bad JSON offer"),
        ("/api/webrtc?src=front", "application/json", r#"{"type":"answer","sdp":"v=0"}"#, 400, "answer"),
        ("/api/webrtc?src=front", "application/x-www-form-urlencoded", "v=0", 400, "data"),
        ("/api/webrtc?src=front", "application/x-www-form-urlencoded", "data=*", 400, "base64"),
    ] {
        let headers: &[(&str, &str)] =
            if content_type.is_empty() { &[] } else { &[("content-type", content_type)] };
        let reply = request("POST", &streamgate.url(path), headers, body).await;
        check_error(&reply, status, part, &format!("{path} {content_type} {body}"));
    }
    let publish = post(&streamgate.url("/api/webrtc?dst=front"), SDP, "v=0\r\n").await;
    check_error(&publish, 501, "publish", "dst");
    assert_eq!(get_json(&streamgate.url("/api/streams/front")).await["viewers"], 0);
}

#[tokio::test]
async fn a_huge_body_is_refused_at_once_and_not_kept() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    let before = streamgate.rss_kb();
    for path in ["/api/webrtc?src=front", "/whep/front", "/api/webrtc/session"] {
        let method = if path.contains("session") { "PATCH" } else { "POST" };
        let started = Instant::now();
        let headers = [("content-type", if method == "PATCH" { FRAGMENT } else { SDP })];
        let reply = request(method, &streamgate.url(path), &headers, vec![b'v'; 20_000_000]).await;
        check_error(&reply, 413, "64 KiB", path);
        assert!(started.elapsed() < Duration::from_secs(5), "{path}: {:?}", started.elapsed());
    }
    let after = streamgate.rss_kb();
    assert!(after < before + 16_000, "memory went from {before} kB to {after} kB");
}

#[tokio::test]
async fn players_of_other_sites_may_ask_first() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    for (path, methods) in [
        ("/api/webrtc?src=front", "POST, OPTIONS"),
        ("/whep/front", "POST, OPTIONS"),
        ("/api/webrtc/session", "PATCH, DELETE, OPTIONS"),
    ] {
        let reply = options(&streamgate.url(path)).await;
        assert_eq!(reply.status, 204, "{path}: {}", reply.text());
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
        assert_eq!(reply.header("access-control-allow-methods"), methods, "{path}");
        assert!(reply.header("access-control-allow-headers").contains("Content-Type"), "{path}");
        assert!(reply.header("access-control-allow-headers").contains("If-Match"), "{path}");
        assert_eq!(reply.header("access-control-allow-credentials"), "", "{path}");
        let exposed = reply.header("access-control-expose-headers");
        assert!(["Location", "Link", "ETag"].iter().all(|name| exposed.contains(name)), "{path}: {exposed}");
    }
    assert_eq!(options(&streamgate.url("/whep/front")).await.header("accept-post"), SDP);
}

#[tokio::test]
async fn endpoints_and_sessions_name_their_methods() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    for (path, allowed) in
        [("/api/webrtc?src=front", "POST"), ("/whep/front", "POST"), ("/api/webrtc/session", "PATCH")]
    {
        let reply = get(&streamgate.url(path)).await;
        check_error(&reply, 405, "GET", path);
        assert!(reply.header("allow").contains(allowed), "{path}: {}", reply.header("allow"));
    }
}

#[tokio::test]
async fn unknown_sessions_and_bad_fragments_are_refused() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    let url = streamgate.url("/api/webrtc/nobody");
    check_error(&delete(&url).await, 404, "session", "DELETE");
    check_error(&patch(&url, SDP, "v=0").await, 415, FRAGMENT, "PATCH with another media type");
    check_error(&patch(&url, FRAGMENT, "a=x").await, 428, "If-Match", "PATCH without If-Match");
    let headers = [("content-type", FRAGMENT), ("if-match", "\"x\"")];
    check_error(&request("PATCH", &url, &headers, "a=x").await, 404, "session", "PATCH");
}

#[tokio::test]
async fn a_viewer_of_a_dead_camera_is_told_what_it_answered() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    let offer = offer();
    let reply = post(&streamgate.url("/api/webrtc?src=front"), SDP, offer).await;
    check_error(&reply, 502, "127.0.0.1:9 refuses connections", "offer");
}

#[tokio::test]
async fn a_client_that_hangs_up_while_the_camera_is_waited_for_leaves_nothing_behind() {
    use std::io::Write;
    let streamgate =
        Streamgate::with_config(&format!("streams: {{front: {{sources: '{DEAD}', linger: 0s}}}}\n"));
    let state = async || get_json(&streamgate.url("/api/streams/front")).await["state"].clone();
    let offer = offer();
    let mut client = std::net::TcpStream::connect(("127.0.0.1", streamgate.port)).unwrap();
    let length = offer.len();
    let request = format!(
        "POST /whep/front HTTP/1.1\r\nHost: a\r\nContent-Type: {SDP}\r\nContent-Length: {length}\r\n\r\n{offer}"
    );
    client.write_all(request.as_bytes()).unwrap();
    eventually("the camera is dialled", Duration::from_secs(5), async || state().await != "idle").await;
    drop(client);
    // Long before the camera's deadline.
    eventually("it is given up", Duration::from_secs(4), async || state().await == "idle").await;
    assert_eq!(get_json(&streamgate.url("/api/streams/front")).await["viewers"], 0);
}

#[tokio::test]
async fn whep_answers_with_session_etag_and_ice_servers() {
    let camera = Camera::start("clip=h264_main_g60,audio=pcma");
    let streamgate = Streamgate::with_config(&format!(
        "streams: {{금곡IC: '{}'}}\nwebrtc: {{ice_servers: [{{urls: 'stun:127.0.0.1:3478'}}]}}\n",
        camera.url
    ));
    for path in ["/api/webrtc?src=%EA%B8%88%EA%B3%A1IC", "/whep/%EA%B8%88%EA%B3%A1IC"] {
        let reply = post(&streamgate.url(path), SDP, offer()).await;
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
        assert_eq!(reply.header("content-type"), SDP);
        assert!(reply.text().starts_with("v=0") && reply.text().contains("a=ice-lite"), "{}", reply.text());
        assert!(reply.header("etag").starts_with('"') && reply.header("etag").len() > 2);
        assert_eq!(reply.header("link"), "<stun:127.0.0.1:3478>; rel=\"ice-server\"");
        assert_eq!(reply.header("accept-patch"), FRAGMENT);
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        let session = reply.header("location");
        assert!(session.starts_with("/api/webrtc/"), "{session}");
        let session = streamgate.url(session);

        let stream = get_json(&streamgate.url("/api/streams/%EA%B8%88%EA%B3%A1IC")).await;
        assert_eq!(stream["viewers"], 1, "{stream}");
        let viewer = &stream["consumers"][0];
        assert_eq!(viewer["format_name"], "webrtc");
        assert!(
            viewer["remote_addr"].as_str().is_some_and(|addr| addr.starts_with("127.0.0.1:")),
            "{viewer}"
        );
        assert_eq!(viewer["medias"][0], "video, sendonly, H264");
        assert_eq!(viewer["senders"][0]["codec"], json!({"codec_name": "h264", "codec_type": "video"}));

        let wrong = [("content-type", FRAGMENT), ("if-match", "\"another\"")];
        let fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n";
        check_error(&request("PATCH", &session, &wrong, fragment).await, 412, "If-Match", "stale ETag");

        assert_eq!(delete(&session).await.status, 200);
        eventually("the session is gone", Duration::from_secs(1), async || {
            let stream = get_json(&streamgate.url("/api/streams/%EA%B8%88%EA%B3%A1IC")).await;
            delete(&session).await.status == 404 && stream["viewers"] == 0
        })
        .await;
        check_error(&delete(&session).await, 404, "session", "DELETE again");
    }
}

#[tokio::test]
async fn the_other_forms_of_an_offer_are_answered_in_their_form() {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let camera = Camera::start("clip=h264_main_g60,audio=pcma");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let url = streamgate.url("/api/webrtc?src=front");

    let body = json!({"type": "offer", "sdp": offer()}).to_string();
    let reply = post(&url, "application/json", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["type"], "answer");
    assert!(reply.json()["sdp"].as_str().is_some_and(|sdp| sdp.starts_with("v=0")));

    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("data", &base64.encode(offer()));
    let reply = post(&url, "application/x-www-form-urlencoded", form.finish()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = base64.decode(&reply.body).expect("base64");
    assert!(answer.starts_with(b"v=0"));

    let reply = request("POST", &url, &[], offer()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.text().starts_with("v=0"));
}

/// What a viewer that receives video and audio offers.
fn offer() -> String {
    use str0m::media::{Direction, MediaKind};
    let mut rtc = str0m::Rtc::builder().build(Instant::now());
    let candidate = str0m::Candidate::host("127.0.0.1:9".parse().unwrap(), "udp").unwrap();
    rtc.add_local_candidate(candidate);
    let mut changes = rtc.sdp_api();
    changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, _) = changes.apply().expect("changes make an offer");
    offer.to_sdp_string()
}
