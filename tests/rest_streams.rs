//! The REST API for streams: list, create, change, delete, probe; and what it answers to what is wrong.

mod common;

use common::{Camera, Streamgate, delete, eventually, get, get_json, patch, put, request};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Nothing listens on port 9 here.
const DEAD: &str = "rtsp://user:hunter2@127.0.0.1:9/cam";
const DEAD_ENCODED: &str = "rtsp%3A%2F%2Fuser%3Ahunter2%40127.0.0.1%3A9%2Fcam";
/// 금곡IC
const KOREAN: &str = "%EA%B8%88%EA%B3%A1IC";
const JSON: &str = "application/json";

/// An error as every error must be.
fn check_error(reply: &common::Reply, status: u16, part: &str, request: &str) {
    assert_eq!(reply.status, status, "{request}: {}", reply.text());
    assert!(reply.header("content-type").starts_with("application/json"), "{request}");
    assert!(reply.json()["error"].is_string(), "{request}: {}", reply.text());
    assert!(reply.text().contains(part), "{request}: {} has no {part:?}", reply.text());
    assert!(!reply.text().contains("hunter2"), "{request}: {}", reply.text());
}

#[tokio::test]
async fn an_idle_stream_is_listed_with_all_fields_and_a_masked_url() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD), ("금곡IC", DEAD)]);
    let all = get_json(&streamgate.url("/api/streams")).await;
    let names: Vec<_> = all.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["front", "금곡IC"]);
    let front = &all["front"];
    assert_eq!(front["state"], "idle");
    assert_eq!(front["producers"][0]["url"], "rtsp://***@127.0.0.1:9/cam");
    assert_eq!(front["producers"][0]["format_name"], "rtsp");
    assert_eq!(front["producers"][0]["medias"], json!([]));
    assert_eq!(front["consumers"], json!([]));
    assert_eq!((&front["viewers"], &front["retries"]), (&json!(0), &json!(0)));
    assert_eq!(
        (&front["on_demand"], &front["audio"], &front["linger"]),
        (&json!(true), &json!(true), &json!("10s"))
    );
    assert!(front["since"].as_str().unwrap().ends_with('Z'));
    for unknown in ["last_error", "fps", "bitrate", "width", "height", "gop", "video_codec", "audio_codec"] {
        assert_eq!(front.get(unknown), Some(&Value::Null), "{unknown}");
    }
    assert_eq!(get_json(&streamgate.url("/api/streams?src=front")).await, *front);
    assert_eq!(get_json(&streamgate.url(&format!("/api/streams/{KOREAN}"))).await["state"], "idle");
    assert_eq!(get_json(&streamgate.url(&format!("/api/streams?src={KOREAN}"))).await["state"], "idle");
}

#[tokio::test]
async fn a_stream_is_created_replaced_and_deleted_by_query() {
    let streamgate = Streamgate::start(&["--stream=other=rtsp://127.0.0.1:9/other"]);
    let url = |query: &str| streamgate.url(&format!("/api/streams?{query}"));
    let created = put(&url(&format!("name={KOREAN}&src={DEAD_ENCODED}")), "", "").await;
    assert_eq!(created.status, 200, "{}", created.text());
    assert_eq!(created.json()["producers"].as_array().unwrap().len(), 1);
    assert!(!created.text().contains("hunter2"));
    let replaced =
        put(&url(&format!("name={KOREAN}&src={DEAD_ENCODED}&src=rtsp://127.0.0.1:9/sub")), "", "").await;
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    let stream = get_json(&url(&format!("src={KOREAN}"))).await;
    let urls: Vec<_> = stream["producers"].as_array().unwrap().iter().map(|p| p["url"].clone()).collect();
    assert_eq!(urls, ["rtsp://***@127.0.0.1:9/cam", "rtsp://127.0.0.1:9/sub"]);
    assert_eq!(delete(&url(&format!("src={KOREAN}"))).await.status, 200);
    check_error(&delete(&url(&format!("src={KOREAN}"))).await, 404, "금곡IC", "DELETE again");
    check_error(&get(&url(&format!("src={KOREAN}"))).await, 404, "금곡IC", "GET");
    assert_eq!(get_json(&url("")).await.as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_is_created_changed_and_deleted_by_json() {
    let streamgate = Streamgate::start(&["--stream=other=rtsp://127.0.0.1:9/other"]);
    let url = streamgate.url("/api/streams/front%20door");
    let body = json!({"sources": [DEAD], "on_demand": true, "linger": "500ms", "audio": false}).to_string();
    let created = put(&url, JSON, body.clone()).await;
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!((&created.json()["linger"], &created.json()["audio"]), (&json!("500ms"), &json!(false)));
    assert_eq!(put(&url, JSON, body).await.status, 200);

    let changed = patch(&url, "application/json; charset=utf-8", r#"{"audio": true}"#).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!((&changed.json()["linger"], &changed.json()["audio"]), (&json!("500ms"), &json!(true)));
    assert_eq!(changed.json()["producers"][0]["url"], "rtsp://***@127.0.0.1:9/cam");
    // What is left out of a PUT has its default.
    let replaced = put(&url, JSON, json!({"sources": "rtsp://127.0.0.1:9/b"}).to_string()).await;
    assert_eq!((replaced.status, &replaced.json()["linger"]), (200, &json!("10s")));

    let by_query =
        patch(&streamgate.url("/api/streams?name=front%20door&src=rtsp://127.0.0.1:9/c"), "", "").await;
    assert_eq!(by_query.json()["producers"][0]["url"], "rtsp://127.0.0.1:9/c");
    // As in go2rtc, the query form makes what is not there; the JSON form does not.
    let made = patch(&streamgate.url("/api/streams?name=new&src=rtsp://127.0.0.1:9/d"), "", "").await;
    assert_eq!(made.status, 200, "{}", made.text());
    check_error(&patch(&streamgate.url("/api/streams/none"), JSON, "{}").await, 404, "none", "PATCH");

    assert_eq!(delete(&url).await.status, 200);
    check_error(&delete(&url).await, 404, "front door", "DELETE again");
}

#[tokio::test]
async fn whatever_is_wrong_is_said_in_json_with_a_fitting_status() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    let long_name = "n".repeat(201);
    let name_too_long = format!("/api/streams?name={long_name}&src=rtsp://a/b");
    let sources = (0..17).map(|_| "&src=rtsp://a/b").collect::<String>();
    let many_sources = format!("/api/streams?name=a{sources}");
    let large = " ".repeat(70_000);
    for (method, path, content_type, body, status, part) in [
        ("GET", "/api/streams?src=", "", "", 400, "src"),
        ("GET", "/api/streams?src=nobody", "", "", 404, "nobody"),
        ("GET", "/api/streams/nobody", "", "", 404, "nobody"),
        ("GET", "/api/streams?src=%FF", "", "", 400, "UTF-8"),
        ("GET", "/api/streams/%FF", "", "", 400, "UTF-8"),
        ("GET", "/api/streams?src=nobody&video", "", "", 404, "nobody"),
        ("GET", "/api/streams?src=front&video=vp8", "", "", 400, "vp8"),
        ("PUT", "/api/streams", "", "", 400, "name"),
        ("PUT", "/api/streams?name=a", "", "", 400, "src"),
        ("PUT", "/api/streams?src=rtsp://a/b", "", "", 400, "name"),
        ("PUT", "/api/streams?name=a%2Fb&src=rtsp://a/b", "", "", 400, "'/'"),
        ("PUT", "/api/streams?name=a%00&src=rtsp://a/b", "", "", 400, "control characters"),
        ("PUT", &name_too_long, "", "", 400, "200 bytes"),
        ("PUT", &many_sources, "", "", 400, "too many sources"),
        ("PUT", "/api/streams?name=a&src=rtsp://a/b?x=1&y=hunter2", "", "", 400, "%26"),
        ("PUT", "/api/streams?name=a&src=nonsense://u:hunter2@a", "", "", 400, "nonsense"),
        ("PUT", "/api/streams?name=a&src=hunter2", "", "", 400, "scheme"),
        ("PUT", "/api/streams/a", JSON, "{", 400, "no JSON"),
        ("PUT", "/api/streams/a", JSON, "{}", 400, "sources"),
        ("PUT", "/api/streams/a", JSON, r#"{"source": "rtsp://u:hunter2@a/b"}"#, 400, "on_demand"),
        ("PUT", "/api/streams/a", JSON, r#"{"sources": ["x://u:hunter2@a/b"]}"#, 400, "scheme"),
        ("PUT", "/api/streams/a%2Fb", JSON, r#"{"sources": ["rtsp://a/b"]}"#, 400, "'/'"),
        ("PUT", "/api/streams/a", "text/plain", r#"{"sources": ["rtsp://a/b"]}"#, 415, "application/json"),
        ("PUT", "/api/streams/a", JSON, &large, 413, "64 KiB"),
        ("PATCH", "/api/streams?name=front", "", "", 400, "src"),
        ("PATCH", "/api/streams/front", JSON, r#"{"linger": 10}"#, 400, "10s"),
        ("PATCH", "/api/streams/front", "", "{}", 415, "application/json"),
        ("DELETE", "/api/streams", "", "", 400, "src"),
        ("DELETE", "/api/streams?src=nobody", "", "", 404, "nobody"),
        ("GET", "/api/nothing", "", "", 404, "/api/nothing"),
        ("GET", "/assets/nothing.js", "", "", 404, "nothing.js"),
    ] {
        let headers: &[(&str, &str)] =
            if content_type.is_empty() { &[] } else { &[("content-type", content_type)] };
        let reply = request(method, &streamgate.url(path), headers, body).await;
        let shown: String = path.chars().take(80).collect();
        check_error(&reply, status, part, &format!("{method} {shown}"));
    }
    // Nothing of that has left a trace.
    let all = get_json(&streamgate.url("/api/streams")).await;
    assert_eq!(all.as_object().unwrap().keys().collect::<Vec<_>>(), ["front"]);
    assert!(!streamgate.log().contains("hunter2"));
}

#[tokio::test]
async fn other_methods_are_answered_with_those_that_are_possible() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    for (method, path, allowed) in [
        ("POST", "/api/preload", "GET,HEAD,PUT,DELETE"),
        ("POST", "/api/streams/front", "GET,HEAD,PUT,PATCH,DELETE"),
        ("DELETE", "/api", "GET,HEAD"),
        ("PUT", "/healthz", "GET,HEAD"),
        ("DELETE", "/", "GET,HEAD"),
    ] {
        let reply = request(method, &streamgate.url(path), &[], "").await;
        check_error(&reply, 405, path, method);
        assert_eq!(reply.header("allow"), allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn a_probe_of_a_dead_camera_says_why() {
    let streamgate = Streamgate::with_streams(&[("front", DEAD)]);
    let reply = get(&streamgate.url("/api/streams?src=front&video&audio")).await;
    check_error(&reply, 502, "127.0.0.1:9 refuses connections", "probe");
    let front = get_json(&streamgate.url("/api/streams/front")).await;
    assert!(front["last_error"].as_str().is_some_and(|error| error.contains("refuses")), "{front}");
    assert!(front["retries"].as_u64().is_some_and(|retries| retries > 0), "{front}");
}

#[tokio::test]
async fn a_probe_of_a_silent_camera_times_out() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://127.0.0.1:{}/cam#timeout=2", silent.local_addr().unwrap().port());
    let streamgate = Streamgate::with_streams(&[("front", &url)]);
    let started = Instant::now();
    let reply = get(&streamgate.url("/api/streams?src=front&video")).await;
    check_error(&reply, 504, "timed out", "probe");
    assert!(started.elapsed() < Duration::from_secs(14), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_probe_reports_the_tracks_and_leaves_the_camera_after_the_linger() {
    let camera = Camera::start("clip=h264_main_g60,audio=pcma");
    let streamgate = Streamgate::start(&["--stream=other=rtsp://127.0.0.1:9/other"]);
    let body = json!({"sources": [camera.url], "linger": "0s"}).to_string();
    assert_eq!(put(&streamgate.url("/api/streams/front"), JSON, body).await.status, 201);

    let reply = get(&streamgate.url("/api/streams?src=front&video&audio")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let front = reply.json();
    assert_eq!((&front["video_codec"], &front["audio_codec"]), (&json!("h264"), &json!("pcm_alaw")));
    assert!(front["width"].as_u64().is_some_and(|width| width > 0), "{front}");
    let producer = &front["producers"][0];
    assert_eq!(producer["medias"], json!(["video, recvonly, H264", "audio, recvonly, PCMA/8000"]));
    let codec = &producer["receivers"][0]["codec"];
    assert_eq!((&codec["codec_name"], &codec["codec_type"]), (&json!("h264"), &json!("video")));
    assert!(codec["profile"].is_string() && codec["level"].is_u64(), "{codec}");
    let audio = &producer["receivers"][1]["codec"];
    assert_eq!((&audio["sample_rate"], &audio["channels"]), (&json!(8000), &json!(1)));
    assert!(producer["sdp"].as_str().is_some_and(|sdp| sdp.starts_with("v=0")), "{producer}");
    assert!(producer["protocol"].as_str().is_some_and(|protocol| protocol.contains("tcp")), "{producer}");

    let url = streamgate.url("/api/streams/front");
    eventually("the camera is left", Duration::from_secs(5), async || camera.clients() == 0).await;
    let idle = get_json(&url).await;
    assert_eq!((&idle["state"], &idle["video_codec"]), (&json!("idle"), &json!("h264")));
    assert_eq!(idle["producers"][0]["receivers"], json!([]));
}

#[tokio::test]
async fn deleting_a_running_stream_ends_the_cameras_connection() {
    let camera = Camera::start("clip=h264_main_g60");
    let streamgate = Streamgate::start(&["--stream=other=rtsp://127.0.0.1:9/other"]);
    let url = streamgate.url("/api/streams/front");
    let body = json!({"sources": [camera.url], "on_demand": false}).to_string();
    assert_eq!(put(&url, JSON, body).await.status, 201);
    eventually("it is live", Duration::from_secs(10), async || get_json(&url).await["state"] == "live").await;
    eventually("rates are measured", Duration::from_secs(10), async || {
        let stream = get_json(&url).await;
        stream["fps"].as_f64().is_some_and(|fps| fps > 10.0)
            && stream["bitrate"].as_u64().is_some_and(|rate| rate > 0)
    })
    .await;
    assert_eq!(camera.clients(), 1);
    assert_eq!(delete(&url).await.status, 200);
    eventually("the camera is left", Duration::from_secs(3), async || camera.clients() == 0).await;
}

#[tokio::test]
async fn what_only_go2rtc_can_play_is_taken_with_a_note_and_says_so() {
    let streamgate = Streamgate::with_config("streams: {}\n");
    let url = |path: &str| streamgate.url(path);
    // As Home Assistant does: the camera, and its sound transcoded by ffmpeg.
    let both = "/api/streams?name=cam&src=demo:&src=ffmpeg%3Acam%23audio%3Dopus%26query%3Dlog_level%3Ddebug";
    let reply = put(&url(both), "", "").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("streamgate-note").starts_with("source 2: ffmpeg: "), "{:?}", reply.headers);
    let file = std::fs::read_to_string(streamgate.folder().join("streamgate.yaml")).unwrap();
    assert!(file.contains("ffmpeg:cam#audio=opus&query=log_level=debug"), "{file}");
    let probe = get_json(&url("/api/streams?src=cam&video")).await;
    assert_eq!((&probe["video_codec"], &probe["last_error"]), (&json!("h264"), &Value::Null), "{probe}");
    assert_eq!(probe["producers"][1]["state"], "idle", "{probe}");

    let body = json!({"sources": "tapo://hunter2@127.0.0.1:9"}).to_string();
    let alone = put(&url("/api/streams/tapo"), JSON, body).await;
    assert_eq!((alone.status, &alone.json()["state"]), (201, &json!("idle")), "{}", alone.text());
    assert!(alone.json()["last_error"].as_str().unwrap().contains("tapo: is not supported"));
    assert!(!alone.text().contains("hunter2"), "{}", alone.text());
    let started = Instant::now();
    let probe = get(&url("/api/streams?src=tapo&video")).await;
    check_error(&probe, 502, "tapo: is not supported", "probe");
    assert!(started.elapsed() < Duration::from_secs(8), "nobody waits for it: {:?}", started.elapsed());
    check_error(&put(&url("/api/streams?name=x&src=rtps://h/x"), "", "").await, 400, "did you mean", "typo");
}

/// Reads server-sent events until one has the name and all the fields; gives that.
async fn until_event(events: &mut reqwest::Response, read: &mut String, name: &str, fields: Value) -> Value {
    let wanted = fields.as_object().unwrap();
    let deadline = Instant::now() + Duration::from_secs(25);
    loop {
        while let Some((event, rest)) = read.clone().split_once("\n\n") {
            *read = rest.to_owned();
            let line = |key: &str| event.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            if line("event: ") == name {
                let data: Value = serde_json::from_str(line("data: ")).unwrap();
                assert!(
                    data["time"].as_str().unwrap().ends_with('Z') && !event.contains("hunter2"),
                    "{event}"
                );
                if wanted.iter().all(|(key, value)| data[key] == *value) {
                    return data;
                }
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let chunk = tokio::time::timeout(left, events.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("no event {name} with {fields}; read since: {read}"));
        read.push_str(std::str::from_utf8(&chunk.unwrap().expect("events go on")).unwrap());
    }
}

#[tokio::test]
async fn a_preloaded_stream_is_kept_warm_and_events_tell_what_happens_to_it() {
    let camera = Camera::start("gop=25,audio=pcma");
    let streamgate = Streamgate::with_config("# cameras\nstreams:\n  other: rtsp://127.0.0.1:9/other\n");
    let url = |path: &str| streamgate.url(path);
    let mut events = reqwest::get(url("/api/events")).await.unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let mut read = String::new();

    let source = camera.url.replacen("rtsp://", "rtsp://user:hunter2@", 1);
    let name = "front%20%22door%22";
    let body = json!({"sources": [source], "linger": "200ms"}).to_string();
    assert_eq!(put(&url(&format!("/api/streams/{name}")), JSON, body).await.status, 201);
    let of = |fields: Value| {
        let mut all = json!({"stream": "front \"door\""});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        all
    };
    until_event(&mut events, &mut read, "stream", of(json!({"change": "created"}))).await;
    until_event(&mut events, &mut read, "config", json!({})).await;

    let preload = url(&format!("/api/preload?src={name}"));
    check_error(&put(&url("/api/preload?src=none"), "", "").await, 404, "none", "an unknown stream");
    check_error(&put(&format!("{preload}&video=h266"), "", "").await, 400, "h266", "an unknown codec");
    check_error(&delete(&preload).await, 404, "kept warm", "nothing to end");
    assert_eq!(put(&format!("{preload}&video=h264"), "", "").await.json()["query"], "video=h264");
    let joined = of(json!({"change": "joined", "format_name": "preload"}));
    let id = until_event(&mut events, &mut read, "viewer", joined).await["id"].clone();
    until_event(&mut events, &mut read, "state", of(json!({"state": "live", "last_error": null}))).await;
    let file = || std::fs::read_to_string(streamgate.folder().join("streamgate.yaml")).unwrap();
    assert!(file().starts_with("# cameras\n") && file().contains("video=h264"), "{}", file());
    eventually("its consumer says what it holds", Duration::from_secs(20), async || {
        let warm = get_json(&url("/api/preload")).await["front \"door\""].clone();
        warm["state"] == "live" && warm["consumer"]["senders"][0]["codec"]["codec_name"] == "h264"
    })
    .await;
    let kick = |id: &Value| url(&format!("/api/streams/{name}/consumers/{id}"));
    check_error(&delete(&kick(&id)).await, 409, "preload", "it is no viewer");
    check_error(&delete(&kick(&json!(id.as_u64().unwrap() + 1000))).await, 404, "consumer", "nobody");
    check_error(&delete(&url("/api/streams/none/consumers/1")).await, 404, "none", "no stream");

    // Where a stream is published to is shown without the password, too; nothing listens there.
    let publish = url(&format!("/api/streams?src={name}&dst={DEAD_ENCODED}"));
    let published = request("POST", &publish, &[], "").await;
    assert!(published.status == 200 && !published.text().contains("hunter2"), "{}", published.text());
    let joined = of(json!({"change": "joined", "format_name": "rtsp"}));
    until_event(&mut events, &mut read, "viewer", joined).await;
    eventually("it is tried in vain", Duration::from_secs(20), async || {
        let all = get(&url("/api/streams")).await;
        assert!(!all.text().contains("hunter2"), "{}", all.text());
        let all = all.json()["front \"door\""]["consumers"].take();
        let one = all.as_array().unwrap().iter().find(|one| one["format_name"] == "rtsp").unwrap().clone();
        assert!(one["url"].as_str().is_some_and(|url| url.ends_with("***@127.0.0.1:9/cam")), "{one}");
        one["state"] == "retrying" && one["last_error"].is_string()
    })
    .await;

    let dot = get(&url("/api/streams.dot")).await;
    assert!(dot.header("content-type").starts_with("text/vnd.graphviz"));
    let text = dot.text();
    assert!(text.contains("front \\\"door\\\"\\nlive") && text.contains("rtsp://***@127.0.0.1"), "{text}");
    assert!(text.contains("preload") && text.contains("rtsp ") && !text.contains("hunter2"), "{text}");

    let withdrawn = delete(&publish).await;
    assert!(withdrawn.status == 200 && !withdrawn.text().contains("hunter2"), "{}", withdrawn.text());
    assert!(!streamgate.log().contains("hunter2"), "the password is in the log");

    // A stream that starts anew is kept warm as before.
    let body = json!({"sources": [source], "linger": "200ms", "audio": false}).to_string();
    assert_eq!(put(&url(&format!("/api/streams/{name}")), JSON, body).await.status, 200);
    until_event(&mut events, &mut read, "viewer", of(json!({"change": "left", "id": id}))).await;
    until_event(&mut events, &mut read, "state", of(json!({"state": "live"}))).await;
    assert_eq!(delete(&preload).await.status, 200);
    assert!(!file().contains("video=h264"), "{}", file());
    until_event(&mut events, &mut read, "state", of(json!({"state": "idle"}))).await;
    assert_eq!(get_json(&url("/api/preload")).await, json!({}));
    eventually("the camera is let go", Duration::from_secs(20), async || camera.clients() == 0).await;
}
