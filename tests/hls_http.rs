//! HLS over HTTP: what is answered, when, and at what cost.

mod common;
mod hls_support;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use common::{
    Camera, Reply, Streamgate, delete, eventually, eventually_some, get, get_json, options, request,
};
use hls_support::{Playlist, media_playlist};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io::Read;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

/// A camera with a keyframe each second, watched by the stream `front`.
async fn front() -> (Camera, Streamgate, String) {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let url = media_playlist(&streamgate, "front").await;
    (camera, streamgate, url)
}

async fn playlist(url: &str) -> Playlist {
    Playlist::parse(&get(url).await.text())
}

/// Number of the last complete segment.
fn last(playlist: &Playlist) -> u64 {
    let complete = playlist.segments.iter().rev().find(|segment| segment.duration.is_some());
    complete.expect("a complete segment").number
}

fn assert_json_error(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert!(reply.json()["error"].is_string());
    assert_eq!(reply.header("access-control-allow-origin"), "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_two_addresses_and_one_segmenter() {
    let (_camera, streamgate, url) = front().await;
    let multivariant = get(&streamgate.url("/api/stream.m3u8?src=front")).await;
    assert_eq!(multivariant.status, 200);
    let text = multivariant.text();
    let uri = text.lines().last().expect("a line");
    assert_eq!(url, streamgate.url(uri.strip_prefix("..").expect("a relative URI")));
    assert!(text.contains("RESOLUTION=640x360,FRAME-RATE=25.000"), "{text}");
    let json = get_json(&streamgate.url("/api/streams?src=front")).await;
    let consumers = json["consumers"].as_array().expect("a list");
    assert_eq!(consumers.len(), 1);
    assert_eq!(consumers[0]["format_name"], "hls");
    get(&url).await;
    let json = get_json(&streamgate.url("/api/streams?src=front")).await;
    assert!(json["consumers"][0]["bytes_send"].as_u64() > Some(0), "{json}");
}

/// How often the threads of WebRTC viewers have gone to sleep, all together.
fn webrtc_naps(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let of = |path: std::path::PathBuf| -> Option<u64> {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let status = std::fs::read_to_string(path.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        name.starts_with("webrtc-").then(|| line.trim().parse().expect("a number"))
    };
    let naps: Vec<u64> = threads.filter_map(|thread| of(thread.expect("an entry").path())).collect();
    assert!(!naps.is_empty(), "there are no such threads");
    naps.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_webrtc_viewers_wakes_none_of_their_threads() {
    let (_camera, streamgate, url) = front().await;
    let (first, before) = (last(&playlist(&url).await), webrtc_naps(streamgate.pid));
    eventually("two segments go by", SOON, async || last(&playlist(&url).await) >= first + 2).await;
    // Two segments are a hundred pictures; an idle thread looks round once a minute.
    let naps = webrtc_naps(streamgate.pid) - before;
    assert!(naps < 20, "{naps} wake-ups");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_name_can_be_watched() {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("금곡 IC", &camera.url)]);
    let reply = get(&streamgate.url("/api/stream.m3u8?src=%EA%B8%88%EA%B3%A1+IC")).await;
    let text = reply.text();
    let uri = text.lines().last().expect("a line");
    assert!(uri.starts_with("../hls/%EA%B8%88%EA%B3%A1%20IC/"), "{uri}");
    let media = get(&streamgate.url(uri.strip_prefix("..").expect("a relative URI"))).await;
    assert_eq!(media.status, 200, "{}", media.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_what_players_and_caches_need() {
    let (_camera, _streamgate, url) = front().await;
    let plain = get(&url).await;
    assert_eq!(plain.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(plain.header("cache-control"), "no-cache");
    assert_eq!(plain.header("access-control-allow-origin"), "*");
    let zipped = request("GET", &url, &[("accept-encoding", "gzip, br")], "").await;
    assert_eq!(zipped.header("content-encoding"), "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut text).expect("gzip");
    assert!(text.starts_with("#EXTM3U\n"));
    let head = request("HEAD", &url, &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let preflight = options(&url).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, OPTIONS");
    let init = url.replace("index.m3u8", "init0.mp4");
    let range = request("GET", &init, &[("range", "bytes=4-7")], "").await;
    assert_eq!((range.status, range.body.as_slice()), (206, &b"ftyp"[..]));
    let beyond = request("GET", &init, &[("range", "bytes=999999-")], "").await;
    assert_eq!(beyond.status, 416);
    assert!(beyond.header("content-range").starts_with("bytes */"), "{:?}", beyond.headers);
    assert!(beyond.json()["error"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_waits_for_the_segment_or_part_it_names() {
    let (_camera, _streamgate, url) = front().await;
    let before = playlist(&url).await;
    let wanted = last(&before) + 1;
    let after = playlist(&format!("{url}?_HLS_msn={wanted}")).await;
    assert!(last(&after) >= wanted, "by segment alone: the whole segment");
    let (segment, part) = after.next;
    let text = get(&format!("{url}?_HLS_msn={segment}&_HLS_part={part}")).await.text();
    assert!(text.contains(&format!("\"part{segment}.{part}.mp4\"")));
    let (segment, part) = Playlist::parse(&text).next;
    let hinted = get(&url.replace("index.m3u8", &format!("part{segment}.{part}.mp4"))).await;
    assert_eq!(hinted.status, 200, "the hinted part is held until it is there");
    // A part after the last of its segment is the next segment's first.
    let segment = last(&playlist(&url).await);
    let text = get(&format!("{url}?_HLS_msn={segment}&_HLS_part=999")).await.text();
    assert!(text.contains(&format!("part{}.0.mp4", segment + 1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_had_is_refused_at_once() {
    let (_camera, streamgate, url) = front().await;
    let asked = Instant::now();
    for query in
        ["_HLS_msn=1000000", "_HLS_msn=x", "_HLS_part=1", "_HLS_msn=-1", "_HLS_msn=99999999999999999999"]
    {
        assert_json_error(&get(&format!("{url}?{query}")).await, 400);
    }
    for file in ["seg100000.mp4", "part100000.0.mp4", "part0.1000.mp4", "init7.mp4", "x.mp4", "seg00.mp4"] {
        assert_json_error(&get(&url.replace("index.m3u8", file)).await, 404);
    }
    assert_json_error(&get(&streamgate.url("/hls/front/0123456789abcdef/index.m3u8")).await, 404);
    assert_json_error(&get(&streamgate.url("/hls/nobody/index.m3u8")).await, 404);
    assert_json_error(&get(&streamgate.url("/api/stream.m3u8?src=nobody")).await, 404);
    assert_json_error(&get(&streamgate.url("/api/stream.m3u8")).await, 400);
    assert_json_error(&get(&streamgate.url("/hls/front/index.m3u8?video=vp8")).await, 400);
    assert_json_error(&get(&streamgate.url("/hls/front/index.m3u8?video=h265&audio=")).await, 422);
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_camera_is_told_as_its_own_answer() {
    let mut camera = Camera::start_protected("digest:user:right", "gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url_as("user:wrong"))]);
    let refused = get(&streamgate.url("/hls/front/index.m3u8")).await;
    assert_json_error(&refused, 502);
    assert!(refused.text().contains("401"), "{}", refused.text());
    camera.kill();
    let dead = get(&streamgate.url("/hls/front/index.m3u8")).await;
    assert!(matches!(dead.status, 502 | 504), "{}", dead.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_is_silent_gets_the_old_playlist_and_no_error() {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_streams(&[("front", &format!("{}#timeout=60", camera.url))]);
    let url = media_playlist(&streamgate, "front").await;
    camera.stall();
    // Polls as a player does; the last request is the one that waits in vain.
    let reply = eventually_some("a request waits to its end", Duration::from_secs(60), async || {
        let (segment, part) = playlist(&url).await.next;
        let asked = Instant::now();
        let reply = get(&format!("{url}?_HLS_msn={segment}&_HLS_part={part}")).await;
        (asked.elapsed() > Duration::from_secs(10)).then_some(reply)
    })
    .await;
    assert_eq!(reply.status, 200);
    camera.resume();
    let (segment, part) = playlist(&url).await.next;
    eventually("it goes on", SOON, async || playlist(&url).await.next != (segment, part)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_the_stream_ends_it_at_once() {
    let (camera, streamgate, url) = front().await;
    let wanted = last(&playlist(&url).await) + 2;
    let waiting = tokio::spawn(async move { get(&format!("{url}?_HLS_msn={wanted}")).await });
    assert_eq!(delete(&streamgate.url("/api/streams?src=front")).await.status, 200);
    assert_json_error(&waiting.await.expect("no panic"), 404);
    eventually("the camera is left", SOON, async || camera.clients() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_asking_lets_the_camera_go() {
    let camera = Camera::start("gop=25");
    let streamgate = Streamgate::with_config(&format!(
        "hls: {{linger: 2s, segment: 1s}}\nstreams:\n  front: {{sources: [\"{}\"], linger: 1s}}\n",
        camera.url
    ));
    let url = media_playlist(&streamgate, "front").await;
    assert_eq!(camera.clients(), 1);
    eventually("the camera is left", SOON, async || camera.clients() == 0).await;
    assert_json_error(&get(&url).await, 404);
    assert_ne!(media_playlist(&streamgate, "front").await, url, "a new session has a new prefix");
}

async fn connect(port: u16) -> SendRequest<Body> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn get_h2(mut sender: SendRequest<Body>, url: String) -> (StatusCode, usize) {
    let request = Request::get(url).body(Body::empty()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = to_bytes(Body::new(response.into_body()), 1 << 24).await.expect("a body");
    (status, body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_waiters_over_http2_cost_little_and_are_all_answered() {
    let (_camera, streamgate, url) = front().await;
    // One round first, so that what is measured is the waiting and not the first use of the code.
    get_h2(connect(streamgate.port).await, url.clone()).await;
    let before = streamgate.rss_kb();
    let wanted = last(&playlist(&url).await) + 2;
    let mut waiters = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let sender = connect(streamgate.port).await;
        for _ in 0..100 {
            waiters.spawn(get_h2(sender.clone(), format!("{url}?_HLS_msn={wanted}")));
        }
    }
    let mut most = before;
    while let Some(answer) = waiters.join_next().await {
        most = most.max(streamgate.rss_kb());
        let (status, length) = answer.expect("no panic");
        assert_eq!(status, StatusCode::OK);
        assert!(length > 500);
    }
    assert!(most < before + 40_000, "{before} kB, then {most} kB: more than 20 kB each");
    assert!(last(&playlist(&url).await) >= wanted);
}
