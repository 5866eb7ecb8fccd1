//! `/api/ws`, driven by a WebSocket client that is not ours: every message, shared muxers, slow and rude clients.

mod common;
#[path = "hls_support/media.rs"]
mod media;
mod mse_support;
#[path = "common/webrtc_client.rs"]
mod viewer;

use common::{Camera, Streamgate, delete, eventually, get, get_json, request};
use mse_support::{CODECS, DEADLINE, Got, Socket, Watched};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// What ffmpeg complains of while it decodes what a viewer got.
async fn complaints_of(watched: Watched) -> String {
    let mut all = String::new();
    for file in watched.files {
        all += &complaints(file).await;
    }
    all
}

/// What ffmpeg complains of while it decodes these bytes.
async fn complaints(bytes: Vec<u8>) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), bytes).expect("written");
    let path = file.path().display().to_string();
    let mut command = Command::new("ffmpeg");
    // In the stream's own time: what is shown in fast motion has more pictures than fit into a frame rate.
    command
        .args([
            "-v",
            "warning",
            "-i",
            &path,
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "-1",
            "-f",
            "null",
            "-",
        ])
        .stdin(Stdio::null());
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("ffmpeg");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn muxers(streamgate: &Streamgate) -> [u64; 3] {
    let mse = get_json(&streamgate.url("/api")).await["server"]["mse"].take();
    ["muxers_running", "muxers_started", "fragments"].map(|key| mse[key].as_u64().expect("a number"))
}

async fn consumers(streamgate: &Streamgate) -> Vec<Value> {
    let stream = get_json(&streamgate.url("/api/streams?src=front")).await;
    stream["consumers"].as_array().expect("a list").clone()
}

async fn nobody_is_left(streamgate: &Streamgate) {
    eventually("no consumer is left", DEADLINE, async || consumers(streamgate).await.is_empty()).await;
    eventually("no muxer is left", DEADLINE, async || muxers(streamgate).await[0] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_viewers_share_one_muxer_and_each_begins_at_zero() {
    let camera = Camera::start("gop=25,audio=aac");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut first = Socket::open(&streamgate, "front").await;
    first.send("mse", CODECS).await;
    let mut watched = Watched::default();
    watched.watch(&mut first, 2.0).await;

    let before = muxers(&streamgate).await;
    let mut sockets = Vec::new();
    for _ in 0..99 {
        let mut socket = Socket::open(&streamgate, "front").await;
        socket.send("mse", CODECS).await;
        sockets.push(socket);
    }
    for socket in &mut sockets {
        let mut late = Watched::default();
        late.watch(socket, 0.2).await;
        assert_eq!(late.mimes, ["video/mp4; codecs=\"avc1.42c01e,mp4a.40.2\""]);
        assert_eq!(late.tracks[0][0].0, 0.0, "its time begins at zero");
        assert!(late.tracks[0][0].2, "with a keyframe");
        late.assert_gapless();
    }
    watched.watch(&mut first, 6.0).await;
    let after = muxers(&streamgate).await;
    assert_eq!(after[..2], [1, 1], "one muxer for all");
    let made = after[2] - before[2];
    let mine = (watched.tracks[0].len() + watched.tracks[1].len()) as u64;
    assert!(made < 4 * mine, "{made} fragments were made while one viewer alone has had {mine}");

    watched.assert_gapless();
    let [video, audio] = watched.ends();
    assert!((video - audio).abs() < 0.3, "video is at {video} s, sound at {audio} s");
    assert_eq!(complaints_of(watched).await, "");
    let listed = consumers(&streamgate).await;
    assert_eq!(listed.len(), 100);
    assert_eq!((&listed[0]["format_name"], &listed[0]["protocol"]), (&json!("mse/fmp4"), &json!("ws")));
    assert!(listed.iter().all(|one| one["bytes_send"].as_u64() > Some(1000)), "{listed:?}");
    sockets.into_iter().for_each(Socket::abort);
    first.abort();
    nobody_is_left(&streamgate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_answered_and_several_modes_share_a_socket() {
    let camera = Camera::start("gop=25,audio=opus");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut socket = Socket::open(&streamgate, "front").await;
    // As video-rtc.js does it: both at once, whichever is first.
    let offering = viewer::Offering::new(viewer::ViewerOptions::default());
    socket.send("mse", CODECS).await;
    socket.send("webrtc/offer", offering.offer.clone()).await;
    socket.send("webrtc/candidate", "candidate:1 1 udp 1 192.0.2.1 9 typ host").await;
    socket.send("webrtc/candidate", "").await;
    let (mut answer, mut candidates, mut watched) = (None, Vec::new(), Watched::default());
    while answer.is_none() || candidates.is_empty() || watched.tracks[0].is_empty() {
        match socket.next().await {
            Got::Text(message) if message["type"] == "webrtc/answer" => {
                answer = Some(message["value"].clone())
            }
            Got::Text(message) if message["type"] == "webrtc/candidate" => {
                candidates.push(message["value"].clone())
            }
            got => watched.add(got),
        }
    }
    let answer = answer.and_then(|answer| answer.as_str().map(str::to_owned)).expect("an answer");
    assert!(candidates.iter().all(|one| one.as_str().is_some_and(|one| answer.contains(one))));
    let peer = offering.connect(&answer);
    eventually("WebRTC plays, too", DEADLINE, async || peer.video().len() > 50).await;

    // Pausing stops both, and nothing is negotiated anew when they go on.
    socket.send("control", "pause").await;
    socket.send("hls", CODECS).await;
    let playlist = loop {
        match socket.next().await {
            Got::Text(message) if message["type"] == "hls" => break message["value"].clone(),
            got => watched.add(got),
        }
    };
    // What go2rtc's player does with the playlist.
    let playlist = playlist.as_str().expect("a text").replace("hls/", &streamgate.url("/api/hls/"));
    let url = playlist.lines().find(|line| line.starts_with("http")).expect("a URL");
    assert!(get(url).await.text().contains("#EXT-X-MAP"), "{playlist}");

    let (fragments, length) = (watched.tracks[0].len(), watched.ends()[0]);
    eventually("pausing ends the muxer, not the viewer", DEADLINE, async || {
        muxers(&streamgate).await[0] == 0 && consumers(&streamgate).await.len() == 3
    })
    .await;
    let packets = async || {
        let all = consumers(&streamgate).await;
        all.iter().find(|one| one["format_name"] == "webrtc").expect("listed")["packets"].as_u64()
    };
    let received = async || {
        let stream = get_json(&streamgate.url("/api/streams?src=front")).await;
        stream["producers"][0]["bytes_recv"].as_u64().expect("a number")
    };
    let mut last = packets().await;
    eventually("WebRTC pauses, too", DEADLINE, async || {
        // A viewer that is not paused is sent all of it.
        let before = received().await;
        eventually("the camera goes on", DEADLINE, async || received().await > before + 40_000).await;
        std::mem::replace(&mut last, packets().await) == last
    })
    .await;
    let seen = peer.video().len();
    socket.send("control", "play").await;
    while watched.tracks[0].len() < fragments + 50 {
        watched.add(socket.next().await);
    }
    assert!(watched.tracks[0][fragments].2, "it goes on with a keyframe");
    assert!((watched.tracks[0][fragments].0 - length).abs() < 1e-9, "where it stopped");
    assert_eq!((watched.mimes.len(), watched.inits.len()), (1, 1), "nothing new is needed");
    assert_eq!(complaints_of(watched).await, "");
    eventually("WebRTC goes on", DEADLINE, async || peer.video().len() > seen + 50).await;

    // The other form of an offer, and keyframes as files.
    let offering = viewer::Offering::new(viewer::ViewerOptions::default());
    let offer =
        json!({"type": "offer", "sdp": offering.offer, "ice_servers": [{"urls": ["stun:192.0.2.1"]}]});
    socket.send("webrtc", offer).await;
    let answer = socket.message("webrtc").await;
    assert_eq!(answer["type"], "answer");
    let second = offering.connect(answer["sdp"].as_str().expect("SDP"));
    eventually("the second session plays", DEADLINE, async || second.video().len() > 50).await;
    socket.send("mp4", CODECS).await;
    assert_eq!(socket.message("mp4").await, "video/mp4; codecs=\"avc1.42c01e\"");
    for _ in 0..2 {
        assert_eq!(complaints(socket.media().await).await, "");
    }
    // go2rtc's player closes the socket when WebRTC has won: the session goes on without it.
    socket.abort();
    let seen = second.video().len();
    eventually("WebRTC outlives its socket", DEADLINE, async || second.video().len() > seen + 50).await;
    peer.close();
    second.close();
    let only_hls = async || consumers(&streamgate).await.iter().all(|one| one["format_name"] == "hls");
    eventually("nothing else is left", DEADLINE, only_hls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_behind_the_requests_type() {
    let camera = Camera::start("video=h265");
    let dead = "rtsp://127.0.0.1:9/cam";
    let streamgate = Streamgate::with_streams(&[("front", &camera.url), ("dead", dead)]);
    let mut dead = Socket::open(&streamgate, "dead").await;
    dead.send("mse", CODECS).await;
    let mut socket = Socket::open(&streamgate, "front").await;
    for (kind, value, said) in [
        ("mse", json!("avc1.640029"), "mse: no codec in common"),
        ("mse", json!("vp8"), "mse: "),
        ("webrtc/offer", json!("hello"), "webrtc/offer: bad offer"),
        ("webrtc/offer", Value::Null, "webrtc/offer: "),
        ("webrtc", json!({"type": "answer"}), "webrtc: "),
        ("control", json!("rewind"), "control: "),
        ("teleport", Value::Null, "teleport: "),
    ] {
        socket.send(kind, value).await;
        let error = socket.error().await;
        assert!(error.starts_with(said), "{kind}: {error}");
    }
    socket.send_raw("{").await;
    assert!(socket.error().await.starts_with("no message"));
    let mut nobody = Socket::open(&streamgate, "nobody").await;
    nobody.send("mse", CODECS).await;
    assert!(nobody.error().await.starts_with("mse: stream not found"));
    assert!(dead.error().await.starts_with("mse: "));
    nobody.send_binary(vec![0; 10]).await;
    assert_eq!(nobody.end().await, Some(1003));
    dead.send_raw(&" ".repeat(70_000)).await;
    dead.end().await;

    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let url = streamgate.url("/api/ws?src=front");
    for (method, url, headers, status) in [
        ("GET", &url, vec![], 400),
        ("POST", &url, vec![], 405),
        ("GET", &streamgate.url("/api/ws"), upgrade.to_vec(), 400),
        ("GET", &url, [&upgrade[..], &[("origin", "http://evil.example")]].concat(), 403),
        ("GET", &url, [&upgrade[..], &[("origin", "null")]].concat(), 403),
    ] {
        let reply = request(method, url, &headers, "").await;
        assert_eq!(reply.status, status, "{method} {url} {headers:?}: {}", reply.text());
        assert!(reply.json()["error"].is_string(), "{}", reply.text());
    }
    nobody_is_left(&streamgate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_skips_and_everybody_is_told_when_it_ends() {
    let camera = Camera::start("clip=h264_main_g60,audio=pcma");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut slow = Socket::open_narrow(&streamgate, "front").await;
    let mut quick = Socket::open(&streamgate, "front").await;
    let mut watched = Watched::default();
    slow.send("mse", CODECS).await;
    watched.watch(&mut slow, 0.5).await;
    quick.send("mse", CODECS).await;
    // It stops reading, for longer than what is kept. The other one does not notice.
    let slow_now = async |key: &str| {
        let all = consumers(&streamgate).await;
        let slow = all.iter().min_by_key(|one| one["id"].as_u64()).expect("two");
        slow[key].as_u64().expect("a number")
    };
    let mut other = Watched::default();
    let (mut sent, mut since) = (slow_now("bytes_send").await, 0.0);
    loop {
        let now = other.ends()[0];
        other.watch(&mut quick, now + 0.5).await;
        let before = std::mem::replace(&mut sent, slow_now("bytes_send").await);
        since = if before == sent { since } else { now };
        if now - since > 8.0 {
            break;
        }
        assert!(now < 60.0, "a viewer that reads nothing is sent everything");
    }
    other.assert_gapless();
    let rss = streamgate.rss_kb();
    watched.watch(&mut slow, watched.ends()[0] + 6.0).await;
    watched.assert_gapless();
    assert!(slow_now("drops").await > 50, "it skipped");
    assert!(rss < 250_000, "{rss} kB");

    // The stream is removed: both are told, and nothing is left.
    assert!(delete(&streamgate.url("/api/streams?src=front")).await.status < 300);
    assert!(quick.error().await.contains("removed"));
    assert_eq!(quick.end().await, Some(1001));
    // It may have too much to read before it could be told.
    slow.end().await;
    eventually("no muxer is left", DEADLINE, async || muxers(&streamgate).await[0] == 0).await;
    assert_eq!(complaints_of(watched).await, "", "whatever was skipped, every picture can be decoded");
    let mut idle = Socket::open(&streamgate, "front").await;
    streamgate.signal("TERM");
    assert_eq!(idle.end().await, Some(1001), "the server says goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_changes_or_comes_back_is_a_new_init_segment_and_no_gap() {
    let mut camera = Camera::start("gop=25,audio=pcmu");
    let streamgate = Streamgate::with_streams(&[("front", &camera.url)]);
    let mut socket = Socket::open(&streamgate, "front").await;
    socket.send("mse", format!("{CODECS},hvc1.1.6.L153.B0")).await;
    let mut watched = Watched::default();
    watched.watch(&mut socket, 1.0).await;
    assert_eq!(watched.mimes, ["video/mp4; codecs=\"avc1.42c01e,flac\""]);

    let end = watched.ends()[0];
    camera.resize("320x180");
    while watched.inits.len() < 2 || watched.tracks[0].len() < 10 {
        watched.add(socket.next().await);
    }
    assert_eq!(watched.mimes.len(), 1, "the same codecs: no other buffer is needed");
    assert!(watched.tracks[0][0].0 >= end && watched.tracks[0][0].0 < end + 5.0);

    camera.kill();
    camera.restart();
    let (fragments, inits) = (watched.tracks[0].len(), watched.inits.len());
    while watched.inits.len() == inits && watched.tracks[0].len() < fragments + 100 {
        watched.add(socket.next().await);
    }
    watched.assert_gapless();
    let end = watched.ends()[0];
    watched.mimes.clear();
    camera.replace("video=h265,gop=25,audio=aac");
    while watched.mimes.is_empty() || watched.tracks[0].len() < 10 {
        watched.add(socket.next().await);
    }
    assert!(watched.mimes[0].starts_with("video/mp4; codecs=\"hvc1."), "{:?}", watched.mimes);
    assert!(watched.tracks[0][0].0 >= end, "its time goes on");
    assert_eq!(complaints_of(watched).await, "");
    socket.abort();
    nobody_is_left(&streamgate).await;
}

/// Runs ffprobe on a URL or file; it must have nothing to say. Gives the streams and the format.
async fn probe(what: &str) -> Value {
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "ffprobe",
        "-v",
        "warning",
        "-count_frames",
        "-show_streams",
        "-show_format",
        "-of",
        "json",
    ]);
    command.arg(what).stdin(Stdio::null());
    let output =
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("ffprobe");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{what}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn mp4_is_a_file_for_whoever_reads_it() {
    let camera = Camera::start("clip=h264_main_g60,audio=pcma");
    let dead = "rtsp://127.0.0.1:9/cam";
    let streamgate = Streamgate::with_streams(&[("front", &camera.url), ("dead", dead)]);
    // Both wait for a camera that is not there, while the rest is looked at.
    let dead = ["/api/stream.mp4?src=dead", "/api/frame.mp4?src=dead"].map(|path| {
        let url = streamgate.url(path);
        tokio::spawn(async move { get(&url).await })
    });
    let url = streamgate.url("/api/stream.mp4?src=front&duration=4&filename=../my%20clip.mp4");
    let found = probe(&url).await;
    let codecs: Vec<&str> = ["h264", "flac"].into();
    let streams = found["streams"].as_array().expect("streams");
    assert_eq!(
        streams.iter().map(|one| one["codec_name"].as_str().expect("a name")).collect::<Vec<_>>(),
        codecs
    );
    for stream in streams {
        let number =
            |key: &str| stream[key].as_str().and_then(|text| text.parse::<f64>().ok()).expect("a number");
        let frames: u64 =
            stream["nb_read_frames"].as_str().and_then(|text| text.parse().ok()).expect("frames");
        assert!(number("start_time") < 0.3, "{stream}");
        assert!(frames > 90, "{stream}");
    }

    let reply = get(&url).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "video/mp4; codecs=\"avc1.4d401f,flac\"");
    assert!(reply.header("content-disposition").starts_with("attachment; filename=\"_my clip.mp4\""));
    assert_eq!(complaints(reply.body).await, "");

    // One keyframe, at once: the cached one.
    let frame = get(&streamgate.url("/api/frame.mp4?src=front")).await;
    assert_eq!((frame.status, frame.header("content-type")), (200, "video/mp4; codecs=\"avc1.4d401f\""));
    assert_eq!(frame.header("content-length"), frame.body.len().to_string());
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &frame.body).expect("written");
    let picture = probe(&file.path().display().to_string()).await;
    assert_eq!(picture["streams"][0]["nb_read_frames"], "1");
    assert_eq!(picture["streams"].as_array().map(Vec::len), Some(1));

    // Apple's players ask for two bytes first, and are led to what they can play.
    let range = [("range", "bytes=0-1")];
    let reply = request("GET", &streamgate.url("/api/stream.mp4?src=front&video=h264"), &range, "").await;
    assert_eq!((reply.status, reply.header("location")), (302, "stream.m3u8?src=front&video=h264"));
    assert_eq!(get(&streamgate.url("/api/stream.m3u8?src=front&video=h264")).await.status, 200);
    let reply = request("HEAD", &streamgate.url("/api/stream.mp4?src=front"), &[], "").await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert!(reply.header("content-type").starts_with("video/mp4"));

    for (method, path, status) in [
        ("GET", "/api/stream.mp4", 400),
        ("GET", "/api/stream.mp4?src=nobody", 404),
        ("GET", "/api/stream.mp4?src=front&video=h265&audio=", 422),
        ("GET", "/api/stream.mp4?src=front&duration=soon", 400),
        ("POST", "/api/stream.mp4?src=front", 405),
        ("GET", "/api/frame.mp4", 400),
        ("GET", "/api/frame.mp4?src=nobody", 404),
        ("GET", "/api/frame.mp4?src=front&video=h265", 422),
        ("PUT", "/api/frame.mp4?src=front", 405),
    ] {
        let reply = request(method, &streamgate.url(path), &[], "").await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.json()["error"].is_string(), "{method} {path}: {}", reply.text());
    }

    for reply in dead {
        let reply = reply.await.expect("no panic");
        assert_eq!((reply.status, reply.json()["error"].is_string()), (502, true), "{}", reply.text());
    }

    // A client that goes away in the middle.
    let mut response = reqwest::get(streamgate.url("/api/stream.mp4?src=front")).await.expect("an answer");
    assert!(response.chunk().await.expect("bytes").is_some());
    let listed = consumers(&streamgate).await;
    assert!(listed.iter().any(|one| one["format_name"] == "mp4" && one["protocol"] == "http"), "{listed:?}");
    drop(response);
    eventually("only HLS is left", DEADLINE, async || {
        consumers(&streamgate).await.iter().all(|one| one["format_name"] == "hls")
    })
    .await;

    // A recording of a camera that falls silent ends, too.
    let recording = reqwest::get(streamgate.url("/api/stream.mp4?src=front&duration=600")).await;
    camera.stall();
    let bytes = tokio::time::timeout(DEADLINE, recording.expect("an answer").bytes()).await.expect("an end");
    assert_eq!(complaints(bytes.expect("a whole body").to_vec()).await, "");
}
