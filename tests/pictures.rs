//! Snapshots and MJPEG, by HTTP and by WebSocket: the newest keyframe, at once; MJPEG cameras untouched; and nothing left behind.

mod common;
#[path = "hls_support/media.rs"]
mod media;
mod mse_support;

use common::{Camera, Clip, Streamgate, delete, eventually, eventually_some, get, get_json, post};
use mse_support::{CODECS, Got, Socket};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Nothing listens on port 9 here.
const DEAD: &str = "rtsp://127.0.0.1:9/cam";
const SOON: Duration = Duration::from_secs(20);
/// Grey pictures are compared in this size.
const WIDTH: usize = 160;
const HEIGHT: usize = 90;

/// Pictures as grey pixels, as ffmpeg decodes them.
fn grey(input: &[&str], stdin: Vec<u8>) -> Vec<Vec<u8>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error"]).args(input);
    command.args(["-vsync", "0", "-vf", "scale=160:90:flags=area,format=gray", "-f", "rawvideo", "pipe:1"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ffmpeg can be run");
    let mut pipe = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut pipe, &stdin));
    let output = child.wait_with_output().expect("its output");
    // It may end before it has read everything.
    let _ = writer.join().expect("no panic");
    output.stdout.chunks_exact(WIDTH * HEIGHT).map(<[u8]>::to_vec).collect()
}

/// The number of the keyframe of a clip that a JPEG shows; it must be far nearer to that than to any other.
fn shown(jpeg: &[u8], keyframes: &[Vec<u8>]) -> usize {
    let picture = grey(&["-f", "mjpeg", "-i", "pipe:0"], jpeg.to_vec()).pop().expect("a JPEG");
    let distance = |other: &Vec<u8>| {
        picture.iter().zip(other).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum::<u64>()
            / (WIDTH * HEIGHT) as u64
    };
    let mut distances: Vec<(u64, usize)> = keyframes.iter().map(distance).zip(0..).collect();
    distances.sort_unstable();
    assert!(distances[0].0 * 4 < distances[1].0, "no keyframe is the nearest: {distances:?}");
    distances[0].1
}

/// Width and height of a JPEG, from its frame header.
fn size(jpeg: &[u8]) -> (u16, u16) {
    let mut at = 2;
    loop {
        let word = |at: usize| u16::from_be_bytes([jpeg[at], jpeg[at + 1]]);
        if matches!(jpeg[at + 1], 0xc0 | 0xc2) {
            return (word(at + 7), word(at + 5));
        }
        at += 2 + usize::from(word(at + 2));
    }
}

/// What follows the scan header: the coded picture. ffmpeg ends it twice.
fn coded(jpeg: &[u8]) -> &[u8] {
    let mut at = 2;
    loop {
        let length = usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] == 0xda {
            let mut coded = jpeg[at + 2 + length..].strip_suffix(&[0xff, 0xd9]).expect("an end");
            while let Some(shorter) = coded.strip_suffix(&[0xff, 0xd9]) {
                coded = shorter;
            }
            return coded;
        }
        at += 2 + length;
    }
}

/// A folder with a program called ffmpeg.
fn ffmpeg_script(folder: &Path, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let file = folder.join("ffmpeg");
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    folder.display().to_string()
}

fn real_ffmpeg() -> PathBuf {
    let path = std::env::var_os("PATH").expect("PATH");
    std::env::split_paths(&path)
        .map(|folder| folder.join("ffmpeg"))
        .find(|file| file.exists())
        .expect("ffmpeg")
}

async fn jpeg(url: &str) -> Vec<u8> {
    let reply = get(url).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "image/jpeg"), "{url}: {}", reply.text());
    reply.body
}

async fn no_consumers(streamgate: &Streamgate) {
    eventually("no consumer is left", SOON, async || {
        let all = get_json(&streamgate.url("/api/streams")).await;
        all.as_object().unwrap().values().all(|stream| stream["consumers"] == serde_json::json!([]))
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_is_the_newest_keyframe_and_is_decoded_once_for_all() {
    let camera = Camera::start("clip=h264_main_g60,once=yes");
    let clip = Clip::named("h264_main_g60");
    let file = clip.mp4().display().to_string();
    let keyframes = grey(&["-skip_frame", "nokey", "-i", &file], Vec::new());
    assert_eq!(keyframes.len(), 4);
    // Each decoder that is started leaves a line.
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!("echo >> '{}'\nexec '{}' \"$@\"", log.display(), real_ffmpeg().display());
    let path = ffmpeg_script(folder.path(), &script);
    let decodes = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    let streamgate = Streamgate::with_path(&path, &[("front", &camera.url)]);
    let url = |query: &str| streamgate.url(&format!("/api/frame.jpeg?src=front{query}"));

    let asked = Instant::now();
    let first = jpeg(&url("")).await;
    let began = Instant::now();
    assert_eq!((size(&first), shown(&first, &keyframes)), ((640, 360), 0));
    // Two seconds from keyframe to keyframe.
    let gop = |time: Duration| (time.as_secs_f64() / 2.0) as usize;
    let mut last = 0;
    while last < 2 {
        let (before, picture) = (began.elapsed(), jpeg(&url("")).await);
        let now = shown(&picture, &keyframes);
        let possible = gop(before).saturating_sub(1)..=gop(asked.elapsed()) + 1;
        assert!(possible.contains(&now) && now >= last, "keyframe {now} after {before:?}, {last} before");
        last = now;
    }
    // Nothing more comes: whoever waited for the next keyframe would wait in vain.
    camera.stall();
    let small = jpeg(&url("&w=320")).await;
    assert_eq!((size(&small), shown(&small, &keyframes)), ((320, 180), last));
    assert_eq!(size(&jpeg(&url("&h=90")).await), (160, 90));
    assert_eq!(size(&jpeg(&url("&width=100&height=100")).await), (100, 100));
    let before = decodes();
    let many = (0..12).map(|_| async { jpeg(&url("&w=200")).await });
    let many = futures_util::future::join_all(many).await;
    assert!(many.iter().all(|picture| *picture == many[0]));
    assert_eq!(decodes(), before + 1, "requests for the same picture share one decoder");
    drop(camera);
    // The camera is gone: what was made before is there for those who take it.
    eventually("the camera's end is noticed", SOON, async || {
        get_json(&streamgate.url("/api/streams?src=front")).await["state"] != "live"
    })
    .await;
    assert_eq!(jpeg(&url("&w=200&cache=1h")).await, many[0]);
    assert_eq!(get(&url("&live")).await.status, 503);
    no_consumers(&streamgate).await;
    assert_eq!(streamgate.children(), 0);
}

/// Reads parts of a `multipart/x-mixed-replace` answer.
async fn parts(url: &str, count: usize) -> Vec<Vec<u8>> {
    let mut response = reqwest::get(url).await.unwrap();
    assert_eq!(response.status(), 200);
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(media_type, "multipart/x-mixed-replace; boundary=frame");
    let (mut bytes, mut pictures) = (Vec::new(), Vec::new());
    while pictures.len() < count {
        bytes.extend(response.chunk().await.unwrap().expect("more parts"));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) else {
            continue;
        };
        let length = text.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
        let end = head + length.parse::<usize>().unwrap();
        if bytes.len() < end + 11 {
            continue;
        }
        assert_eq!(&bytes[end..end + 11], b"\r\n--frame\r\n");
        pictures.push(bytes[head..end].to_vec());
        bytes.drain(..end + 11);
    }
    pictures
}

#[tokio::test]
async fn pictures_of_an_mjpeg_camera_come_out_as_they_are_coded() {
    // The same picture all the time, so that any two are comparable.
    let camera = Camera::start_with(
        &[("/jpeg", "video=jpeg,pattern=circular,size=1280x720,fps=10"), ("/hevc", "clip=h265_main_g60")],
        None,
    );
    let url = camera.url_of("/jpeg");
    let streamgate = Streamgate::with_streams(&[("yard", &url), ("hevc", &camera.url_of("/hevc"))]);
    let reference = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-rtsp_transport", "tcp", "-i", &url, "-frames:v", "1", "-c", "copy"])
        .args(["-f", "mjpeg", "pipe:1"])
        .output()
        .expect("ffmpeg can be run")
        .stdout;
    let picture = jpeg(&streamgate.url("/api/frame.jpeg?src=yard")).await;
    assert_eq!(size(&picture), (1280, 720));
    assert!(coded(&picture) == coded(&reference), "the coded picture is another one");
    let pictures = parts(&streamgate.url("/api/stream.mjpeg?src=yard"), 5).await;
    assert!(pictures.iter().all(|other| coded(other) == coded(&picture)));
    // By RTSP the payloads of RTP are passed on: what ffmpeg makes of them is the same to the last byte.
    let played = ["tcp", "udp"].map(|transport| {
        let own = format!("rtsp://127.0.0.1:{}/yard", streamgate.port);
        let mut player = Command::new("ffmpeg");
        player.args(["-nostdin", "-loglevel", "error", "-rtsp_transport", transport, "-i", &own]);
        player.args(["-frames:v", "1", "-c", "copy", "-f", "mjpeg", "pipe:1"]);
        player.args(["-frames:v", "5", "-f", "null", "-"]);
        tokio::task::spawn_blocking(move || player.output())
    });
    let scaled = parts(&streamgate.url("/api/stream.mjpeg?src=yard&w=320"), 2).await;
    assert_eq!(size(&scaled[1]), (320, 180));
    let hevc = parts(&streamgate.url("/api/stream.mjpeg?src=hevc&h=180"), 2).await;
    assert_eq!(size(&hevc[0]), (320, 180));
    assert_ne!(hevc[0], hevc[1], "the next keyframe is another picture");
    for played in played {
        let played = played.await.expect("no panic").expect("ffmpeg can be run");
        let complaints = String::from_utf8_lossy(&played.stderr);
        assert!(played.status.success() && complaints.is_empty(), "{complaints}");
        assert!(played.stdout == reference, "another picture");
    }

    let stream = get_json(&streamgate.url("/api/streams?src=yard")).await;
    assert_eq!((&stream["video_codec"], &stream["state"]), (&"mjpeg".into(), &"live".into()));
    // Browsers have no JPEG in WebRTC, nor in MP4: both say so.
    let playlist = get(&streamgate.url("/api/stream.m3u8?src=yard")).await;
    assert_eq!(playlist.status, 422, "{}", playlist.text());
    assert!(playlist.json()["detail"].as_str().unwrap().contains("JPEG"), "{}", playlist.text());
    no_consumers(&streamgate).await;
}

#[tokio::test]
async fn whatever_is_in_the_way_of_a_picture_is_said() {
    let camera = Camera::start_with(&[("/front", "gop=25"), ("/sound", "video=none,audio=pcma")], None);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("rtsp://{}/cam", silent.local_addr().unwrap());
    let streams = [
        ("front", camera.url_of("/front")),
        ("sound", camera.url_of("/sound")),
        ("silent", silent_url),
        ("dead", DEAD.to_owned()),
    ];
    let streams: Vec<(&str, &str)> = streams.iter().map(|(name, url)| (*name, url.as_str())).collect();
    let nothing = tempfile::tempdir().unwrap();
    let streamgate = Streamgate::with_path(&nothing.path().display().to_string(), &streams);
    let cases = [
        ("src=none", 404, "none"),
        ("", 400, "src"),
        ("src=front&w=99999", 400, "16 to 4096"),
        ("src=front&cache=soon", 400, "soon"),
        ("src=dead", 502, "127.0.0.1:9"),
        ("src=silent", 504, "timed out"),
        ("src=sound", 422, "PCMA"),
        ("src=front", 503, "install ffmpeg"),
    ];
    let checks = cases.into_iter().flat_map(|case| [("frame.jpeg", case), ("stream.mjpeg", case)]);
    let checks = checks.filter(|(path, (query, ..))| *path == "frame.jpeg" || !query.contains("cache="));
    let checks = checks.map(|(path, (query, status, part))| {
        let url = streamgate.url(&format!("/api/{path}?{query}"));
        async move {
            let reply = get(&url).await;
            assert_eq!(reply.status, status, "{url}: {}", reply.text());
            assert!(
                reply.json()["error"].is_string() && reply.text().contains(part),
                "{url}: {}",
                reply.text()
            );
        }
    });
    futures_util::future::join_all(checks).await;
    for path in ["/api/frame.jpeg?src=front", "/api/stream.mjpeg?src=front"] {
        let reply = post(&streamgate.url(path), "", "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, "GET,HEAD"), "{}", reply.text());
    }
    let idle = get(&streamgate.url("/api/frame.jpeg?src=dead&live")).await;
    assert_eq!(idle.status, 503, "{}", idle.text());
    no_consumers(&streamgate).await;
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_no_viewer_and_no_child() {
    let camera = Camera::start_with(&[("/front", "gop=25"), ("/jpeg", "video=jpeg")], None);
    // A decoder that hangs, whatever it is given.
    let folder = tempfile::tempdir().unwrap();
    let path = ffmpeg_script(folder.path(), "exec /bin/sleep 300");
    let (front, yard) = (camera.url_of("/front"), camera.url_of("/jpeg"));
    let streamgate = Streamgate::with_path(&path, &[("front", &front), ("yard", &yard)]);
    let ask = async |path: &str| {
        let mut client = TcpStream::connect(("127.0.0.1", streamgate.port)).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        client
    };
    let one = ask("/api/frame.jpeg?src=front&w=100").await;
    let two = ask("/api/stream.mjpeg?src=front&w=200").await;
    eventually("both are decoding", SOON, async || streamgate.children() == 2).await;
    drop((one, two));
    eventually("the decoders are ended with them", SOON, async || streamgate.children() == 0).await;
    no_consumers(&streamgate).await;
    // Who stays is told, and the decoder is ended all the same.
    let late = get(&streamgate.url("/api/frame.jpeg?src=front")).await;
    assert_eq!(late.status, 503, "{}", late.text());
    assert!(late.text().contains("too long") && streamgate.children() == 0, "{}", late.text());

    let mut viewer = ask("/api/stream.mjpeg?src=yard").await;
    let mut start = [0; 4096];
    viewer.read_exact(&mut start).await.unwrap();
    let id = eventually_some("the viewer is listed", SOON, async || {
        let consumers = get_json(&streamgate.url("/api/streams?src=yard")).await["consumers"].clone();
        let is_motion =
            |c: &&serde_json::Value| c["format_name"] == "mjpeg" && c["bytes_send"].as_u64() > Some(0);
        consumers.as_array().unwrap().iter().find(is_motion).map(|c| c["id"].clone())
    })
    .await;
    let kick = streamgate.url(&format!("/api/streams/yard/consumers/{id}"));
    let kicked = delete(&kick).await;
    assert_eq!((kicked.status, kicked.json()["ended"].as_str()), (200, Some(id.to_string().as_str())));
    let mut rest = Vec::new();
    tokio::time::timeout(SOON, viewer.read_to_end(&mut rest)).await.expect("its connection ends").unwrap();
    no_consumers(&streamgate).await;
    let again = delete(&kick).await;
    assert_eq!(again.status, 404, "{}", again.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_nothing_hurts_nobody() {
    let snow = "pattern=snow,fps=25,size=640x360";
    let front = format!("{snow},gop=25,kbps=8000");
    let yard = format!("{snow},video=jpeg");
    let camera = Camera::start_with(&[("/front", &front), ("/yard", &yard)], None);
    let (front, yard) = (camera.url_of("/front"), camera.url_of("/yard"));
    let streamgate = Streamgate::with_streams(&[("front", &front), ("yard", &yard)]);
    let paths = ["/api/stream.mp4?src=front", "/api/stream.mjpeg?src=yard"];
    let mut deaf = Vec::new();
    for path in paths.repeat(5) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        let mut client = socket.connect(([127, 0, 0, 1], streamgate.port).into()).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        client.readable().await.unwrap();
        deaf.push(client);
    }
    // What was sent to those who came first.
    let sent = async || {
        let all = get_json(&streamgate.url("/api/streams")).await;
        let of = |name: &str| all[name]["consumers"].as_array().unwrap().iter().take(5).cloned().collect();
        let all: [Vec<serde_json::Value>; 2] = [of("front"), of("yard")];
        all.concat().iter().filter_map(|one| one["bytes_send"].as_u64()).collect::<Vec<_>>()
    };
    eventually("all are listed", SOON, async || sent().await.len() == deaf.len()).await;
    let mut quick = Vec::new();
    for path in paths {
        quick.push(reqwest::get(streamgate.url(path)).await.unwrap());
    }
    let mut read = async |bytes: usize| {
        for response in &mut quick {
            let mut got = 0;
            while got < bytes {
                let chunk = tokio::time::timeout(SOON, response.chunk()).await.expect("media goes on");
                got += chunk.unwrap().expect("no end").len();
            }
        }
    };
    // While others get half a megabyte, those who read nothing get nothing more: what was buffered for them is all.
    let mut before = Vec::new();
    eventually("their sockets are full", SOON, async || {
        read(500_000).await;
        let now = sent().await;
        std::mem::replace(&mut before, now.clone()) == now
    })
    .await;
    let rss = streamgate.rss_kb();
    read(1_500_000).await;
    let grown = streamgate.rss_kb().saturating_sub(rss);
    assert!(grown < 20_000, "memory grew by {grown} kB");
    // Whoever of them goes away in the middle is gone.
    drop((deaf, quick));
    no_consumers(&streamgate).await;
}

/// The one viewer of a kind.
async fn viewer(streamgate: &Streamgate, stream: &str, format: &str) -> serde_json::Value {
    eventually_some("the viewer is listed", SOON, async || {
        let all = get_json(&streamgate.url(&format!("/api/streams?src={stream}"))).await["consumers"].take();
        let of_kind = all.as_array().unwrap().iter().filter(|one| one["format_name"] == format);
        let of_kind: Vec<_> = of_kind.collect();
        (of_kind.len() == 1).then(|| of_kind[0].clone())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_gets_pictures_beside_other_modes_and_pauses_them() {
    let yard = "video=jpeg,pattern=circular,size=1280x720,fps=10";
    let camera = Camera::start_with(
        &[("/jpeg", yard), ("/front", "gop=25"), ("/sound", "video=none,audio=pcma")],
        None,
    );
    let urls = ["/jpeg", "/front", "/sound"].map(|path| camera.url_of(path));
    let streamgate =
        Streamgate::with_streams(&[("yard", &urls[0]), ("front", &urls[1]), ("sound", &urls[2])]);

    // An MJPEG camera's pictures, all of them and as they are coded.
    let mut socket = Socket::open(&streamgate, "yard").await;
    socket.send_raw(r#"{"type":"mjpeg"}"#).await;
    let Got::Text(answer) = socket.next().await else { panic!("media before the answer") };
    assert_eq!(answer, json!({"type": "mjpeg"}), "go2rtc's has no value");
    let picture = jpeg(&streamgate.url("/api/frame.jpeg?src=yard")).await;
    for _ in 0..10 {
        assert!(coded(&socket.media().await) == coded(&picture), "the coded picture is another one");
    }
    let listed = viewer(&streamgate, "yard", "mjpeg").await;
    assert_eq!((&listed["protocol"], &listed["drops"]), (&json!("ws"), &json!(0)), "{listed}");
    assert_eq!(listed["senders"][0]["codec"]["codec_name"], "mjpeg", "{listed}");
    socket.abort();

    // Keyframes of another, beside a playlist; then fragments in their place, and pictures again.
    let mut socket = Socket::open(&streamgate, "front").await;
    socket.send("mjpeg", "").await;
    assert_eq!(size(&socket.media().await), (640, 360));
    socket.send("hls", CODECS).await;
    assert!(socket.message("hls").await.as_str().unwrap().starts_with("#EXTM3U"));
    assert_eq!(size(&socket.media().await), (640, 360));
    socket.send("mse", CODECS).await;
    while socket.media().await.get(4..8) != Some(b"ftyp") {}
    viewer(&streamgate, "front", "mse/fmp4").await;
    socket.send("mjpeg", "").await;
    assert_eq!(socket.message("mjpeg").await, serde_json::Value::Null);
    let first = socket.media().await;
    assert_eq!(size(&first), (640, 360));

    // A pause keeps the place; what comes after it is new.
    let before = viewer(&streamgate, "front", "mjpeg").await;
    socket.send("control", "pause").await;
    socket.send("hls", CODECS).await;
    socket.message("hls").await; // it has been read
    let sent = async || viewer(&streamgate, "front", "mjpeg").await["packets"].as_u64();
    let mut last = sent().await;
    let snapshot = streamgate.url("/api/frame.jpeg?src=front");
    let next_keyframe = async || {
        let before = jpeg(&snapshot).await;
        eventually("the next keyframe", SOON, async || jpeg(&snapshot).await != before).await;
    };
    eventually("nothing more is made", SOON, async || {
        next_keyframe().await;
        next_keyframe().await;
        std::mem::replace(&mut last, sent().await) == last
    })
    .await;
    socket.send("control", "play").await;
    assert_ne!(socket.media().await, first, "an old picture");
    assert_eq!(viewer(&streamgate, "front", "mjpeg").await["id"], before["id"], "the same viewer");

    let mut deaf = Socket::open(&streamgate, "sound").await;
    deaf.send("mjpeg", "").await;
    let error = deaf.error().await;
    assert!(error.starts_with("mjpeg: no codec in common") && error.contains("PCMA"), "{error}");
    deaf.send("mse", CODECS).await;
    deaf.media().await;
    socket.abort();
    deaf.abort();
    let only_hls = async || {
        let all = get_json(&streamgate.url("/api/streams")).await;
        let all =
            all.as_object().unwrap().values().flat_map(|stream| stream["consumers"].as_array().unwrap());
        all.map(|one| &one["format_name"]).all(|format| format == "hls")
    };
    eventually("nobody else is left", SOON, only_hls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_websocket_loses_pictures_and_is_ended_all_the_same() {
    let camera = Camera::start("video=jpeg,pattern=snow,size=1280x720,fps=10");
    let streamgate = Streamgate::with_streams(&[("yard", &camera.url)]);
    let mut slow = Socket::open_narrow(&streamgate, "yard").await;
    slow.send("mjpeg", "").await;
    let mut quick = Socket::open(&streamgate, "yard").await;
    quick.send("mjpeg", "").await;
    let all = async || {
        let all = get_json(&streamgate.url("/api/streams?src=yard")).await["consumers"].take();
        let mut all = all.as_array().unwrap().clone();
        all.sort_by_key(|one| one["id"].as_u64());
        all
    };
    // It takes one picture now and then: what lies between is dropped, not kept for it.
    eventually("both are listed", SOON, async || all().await.len() == 2).await;
    let dropped = async || all().await[0]["drops"].as_u64() > Some(10);
    eventually("a slow client loses pictures", Duration::from_secs(60), async || {
        let picture = slow.media().await;
        assert_eq!(size(&picture), (1280, 720));
        for _ in 0..5 {
            quick.media().await;
        }
        dropped().await
    })
    .await;
    let [slow_one, quick_one] = &all().await[..] else { panic!("two viewers") };
    assert_eq!(quick_one["drops"], 0, "{quick_one}");

    // Ended while it takes nothing.
    let kick = streamgate.url(&format!("/api/streams/yard/consumers/{}", slow_one["id"]));
    assert_eq!(delete(&kick).await.status, 200);
    eventually("only the other is left", SOON, async || all().await.len() == 1).await;
    let kick = streamgate.url(&format!("/api/streams/yard/consumers/{}", quick_one["id"]));
    assert_eq!(delete(&kick).await.status, 200);
    let error = quick.error().await;
    assert!(error.starts_with("mjpeg: ") && error.contains("ended by the server"), "{error}");
    assert_eq!(quick.end().await, Some(1008));
    no_consumers(&streamgate).await;
}
