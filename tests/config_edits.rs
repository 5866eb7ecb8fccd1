//! Changes over the API are in the YAML file before the answer: all of them, whatever happens, and nothing else is touched.

mod common;

use common::{Reply, Streamgate, delete, eventually, get, get_json, patch, put, request};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const JSON: &str = "application/json";
const KOREAN: &str = "%EA%B8%88%EA%B3%A1IC";

const COMMENTED: &str = "\
# Cameras of the east gate
streams:   # all of them
  # do not touch
  front: rtsp://user:${CAMERA_PASSWORD:hunter2}@127.0.0.1:9/front   # by the door
  yard:
    # main stream
    - rtsp://127.0.0.1:9/main # H.265
    - 'rtsp://127.0.0.1:9/sub'

# quiet
log: {level: info}   # end";

fn file(streamgate: &Streamgate) -> PathBuf {
    streamgate.folder().join("streamgate.yaml")
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The file's `streams`, by a reader that is not ours to change.
fn streams(path: &Path) -> serde_yaml::Mapping {
    let text = text(path);
    let yaml: serde_yaml::Value =
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    yaml.get("streams").and_then(|streams| streams.as_mapping()).cloned().unwrap_or_default()
}

fn ok(reply: &Reply) {
    assert!((200..300).contains(&reply.status), "{}: {}", reply.status, reply.text());
}

#[tokio::test]
async fn edits_are_in_the_file_before_the_answer_and_leave_every_other_byte() {
    let streamgate = Streamgate::with_config(COMMENTED);
    let path = file(&streamgate);
    let one = |name: &str| streamgate.url(&format!("/api/streams/{name}"));
    ok(&put(&one(KOREAN), JSON, json!({"sources": "rtsp://127.0.0.1:9/k"}).to_string()).await);
    let added = COMMENTED.replace("/sub'\n", "/sub'\n  금곡IC: rtsp://127.0.0.1:9/k\n");
    assert_eq!(text(&path), added);
    ok(&patch(&one("front"), JSON, json!({"audio": false, "linger": "30s"}).to_string()).await);
    let front = "  front: rtsp://user:${CAMERA_PASSWORD:hunter2}@127.0.0.1:9/front   # by the door\n";
    let changed = added.replace(
        front,
        "  front:\n    sources: rtsp://user:${CAMERA_PASSWORD:hunter2}@127.0.0.1:9/front   # by the door\n    \
         linger: 30s\n    audio: false\n",
    );
    assert_eq!(text(&path), changed);
    let yard = json!({"sources": ["rtsp://127.0.0.1:9/main", "rtsp://127.0.0.1:9/other"]});
    ok(&put(&one("yard"), JSON, yard.to_string()).await);
    assert_eq!(text(&path), changed.replace("'rtsp://127.0.0.1:9/sub'", "rtsp://127.0.0.1:9/other"));
    ok(&delete(&one(KOREAN)).await);
    assert!(!text(&path).contains("금곡IC"));
    // The query form of PATCH changes what runs, not the file.
    let before = text(&path);
    ok(&patch(&streamgate.url("/api/streams?name=front&src=rtsp://127.0.0.1:9/memory"), "", "").await);
    ok(&patch(&streamgate.url("/api/streams?name=volatile&src=rtsp://127.0.0.1:9/memory"), "", "").await);
    assert_eq!(text(&path), before);
    ok(&delete(&streamgate.url("/api/streams?src=volatile")).await);
    assert_eq!(text(&path), before);
    // A source that comes back as it was shown keeps its credentials.
    ok(&put(&one("secret"), JSON, r#"{"sources": ["rtsp://u:hunter2@127.0.0.1:9/s"]}"#).await);
    let shown = get_json(&one("secret")).await["producers"][0]["url"].clone();
    ok(&put(&one("secret"), JSON, json!({"sources": [shown], "audio": false}).to_string()).await);
    assert!(text(&path).contains("rtsp://u:hunter2@127.0.0.1:9/s\n"), "{}", text(&path));
    let unknown = put(&one("secret"), JSON, r#"{"sources": ["rtsp://***@127.0.0.1:9/t"]}"#).await;
    assert_eq!(unknown.status, 400, "{}", unknown.text());
}

#[tokio::test]
async fn fifty_parallel_edits_all_survive() {
    let streamgate = Streamgate::with_config(COMMENTED);
    let edits = (0..50).map(|n| {
        let url = streamgate.url(&format!("/api/streams?name=cam{n}&src=rtsp://127.0.0.1:9/{n}"));
        async move { put(&url, "", "").await.status }
    });
    let statuses = futures_util::future::join_all(edits).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let path = file(&streamgate);
    let saved = streams(&path);
    assert_eq!(saved.len(), 52);
    for n in 0..50 {
        assert_eq!(
            saved.get(format!("cam{n}").as_str()).and_then(|v| v.as_str()),
            Some(&*format!("rtsp://127.0.0.1:9/{n}"))
        );
    }
    assert_eq!(get_json(&streamgate.url("/api/streams")).await.as_object().unwrap().len(), 52);
    // Without the fifty lines it is the same file, byte for byte.
    let rest: String = text(&path).split_inclusive('\n').filter(|line| !line.starts_with("  cam")).collect();
    assert_eq!(rest, COMMENTED);
    assert_eq!(std::fs::read_dir(streamgate.folder()).unwrap().count(), 1, "no temporary file is left");
}

/// Edits run without pause while the program is killed at any moment, again and again.
#[tokio::test]
async fn a_kill_never_loses_an_acknowledged_edit_nor_breaks_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.yaml");
    std::fs::write(&path, COMMENTED).unwrap();
    let started = Instant::now();
    let (mut round, mut acknowledged) = (0, 0);
    let mut last: std::collections::HashMap<String, u32> = std::collections::HashMap::new();
    while round < 12 && started.elapsed() < Duration::from_secs(15) {
        let mut streamgate = Streamgate::start(&["-c", path.to_str().unwrap()]);
        // Each round dies at another moment of its edits.
        let most = 1 + round * 5 % 17;
        let mut value = round * 1000;
        for edit in 0..most + 200 {
            let name = format!("n{}", edit % 5);
            value += 1;
            let url = streamgate.url(&format!("/api/streams?name={name}&src=rtsp://127.0.0.1:9/{value}"));
            if edit == most {
                // In flight while it is killed: it may or may not be there afterwards.
                let in_flight = tokio::spawn(async move {
                    let client = reqwest::Client::new();
                    client.put(url).send().await.is_ok_and(|reply| reply.status() == 200)
                });
                tokio::task::yield_now().await;
                streamgate.signal("KILL");
                assert!(streamgate.wait_exit(Duration::from_secs(5)).is_some());
                if in_flight.await.unwrap() {
                    last.insert(name, value);
                } else {
                    last.remove(&name);
                }
                break;
            }
            ok(&put(&url, "", "").await);
            last.insert(name, value);
            acknowledged += 1;
        }
        let saved = streams(&path);
        for (name, value) in &last {
            let found = saved.get(name.as_str()).and_then(|source| source.as_str());
            assert_eq!(found, Some(&*format!("rtsp://127.0.0.1:9/{value}")), "round {round}, {name}");
        }
        let rest: String =
            text(&path).split_inclusive('\n').filter(|line| !line.starts_with("  n")).collect();
        assert_eq!(rest, COMMENTED);
        round += 1;
    }
    assert!(round >= 3 && acknowledged > 10, "{round} rounds, {acknowledged} edits");
}

#[tokio::test]
async fn without_a_file_the_first_edit_makes_one_and_the_demo_stays() {
    let streamgate = Streamgate::start(&[]);
    let path = file(&streamgate);
    assert!(!path.exists());
    let made = put(&streamgate.url("/api/streams?name=front&src=rtsp://127.0.0.1:9/f"), "", "").await;
    ok(&made);
    assert!(made.header("streamgate-note").contains("streamgate.yaml"), "{:?}", made.headers);
    let is_said = async || streamgate.log().contains("configuration file created");
    eventually("it is said", Duration::from_secs(15), is_said).await;
    let names: Vec<_> = streams(&path).keys().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    assert_eq!(names, ["demo", "front"]);
    let again = Streamgate::start(&["-c", path.to_str().unwrap()]);
    assert_eq!(get_json(&again.url("/api/streams")).await.as_object().unwrap().len(), 2);
    ok(&delete(&again.url("/api/streams?src=demo")).await);
    assert_eq!(streams(&path).len(), 1);
}

#[tokio::test]
async fn streams_given_by_flags_are_changed_but_not_saved() {
    let streamgate = Streamgate::start(&["--stream=flag=rtsp://127.0.0.1:9/f"]);
    let one = streamgate.url("/api/streams/flag");
    let changed = patch(&one, JSON, r#"{"audio": false}"#).await;
    ok(&changed);
    assert!(changed.header("streamgate-note").contains("not saved"), "{:?}", changed.headers);
    assert!(!file(&streamgate).exists());
    ok(&put(&streamgate.url("/api/streams?name=other&src=rtsp://127.0.0.1:9/o"), "", "").await);
    assert_eq!(streams(&file(&streamgate)).len(), 1);
    // Neither that edit nor reading the file again takes the change back.
    streamgate.signal("HUP");
    eventually("SIGHUP is answered", Duration::from_secs(10), async || {
        streamgate.log().contains("nothing new")
    })
    .await;
    assert_eq!(get_json(&one).await["audio"], false);
    ok(&delete(&one).await);
    assert_eq!(get(&one).await.status, 404);
}

/// What every failed save must leave behind.
async fn nothing_has_changed(streamgate: &Streamgate, path: &Path, before: &str, what: &str) {
    assert_eq!(text(path), before, "{what}");
    let all = get_json(&streamgate.url("/api/streams")).await;
    let mut names: Vec<_> = all.as_object().unwrap().keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["front", "yard"], "{what}");
    assert_eq!(all["front"]["audio"], true, "{what}");
}

async fn every_edit_fails(streamgate: &Streamgate, path: &Path, status: u16, reason: &str) {
    let before = text(path);
    let source = format!("rtsp://127.0.0.1:9/{}", "x".repeat(4000));
    for (method, url, body) in [
        ("PUT", "/api/streams/new", json!({"sources": vec![source; 16]}).to_string()),
        (
            "PATCH",
            "/api/streams/front",
            json!({"audio": false, "sources": vec![format!("rtsp://127.0.0.1:9/{}", "y".repeat(4000)); 16]})
                .to_string(),
        ),
        (
            "PATCH",
            "/api/config",
            json!({"streams": {"front": {"audio": false}}, "ffmpeg": {"x": "y".repeat(60_000)}}).to_string(),
        ),
        ("POST", "/api/config", format!("streams: {{}}\n# {}", "z".repeat(60_000))),
    ] {
        let reply = request(method, &streamgate.url(url), &[("content-type", JSON)], body).await;
        assert_eq!(reply.status, status, "{method} {url}: {}", reply.text());
        let json: Value = reply.json();
        assert!(json["detail"].as_str().unwrap_or_default().contains(reason), "{json}");
        assert!(json["hint"].as_str().unwrap_or_default().contains("nothing was changed"), "{json}");
        nothing_has_changed(streamgate, path, &before, url).await;
    }
}

#[tokio::test]
async fn a_read_only_file_fails_each_edit_and_changes_nothing() {
    let streamgate = Streamgate::with_config(COMMENTED);
    let path = file(&streamgate);
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    every_edit_fails(&streamgate, &path, 500, "read-only").await;
    let deleted = delete(&streamgate.url("/api/streams/front")).await;
    assert_eq!(deleted.status, 500);
    nothing_has_changed(&streamgate, &path, COMMENTED, "DELETE").await;
}

/// A small file system of its own, unmounted at the end.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` where this user may not mount.
    fn tmpfs(size: &str) -> Option<Mounted> {
        let folder = tempfile::tempdir().unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Mounted(folder)),
            other => {
                eprintln!("skipped: no tmpfs can be mounted here ({other:?})");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let done = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0.path())
            .status();
        assert!(done.unwrap().success(), "remount {options}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What is still mounted then is seen by whoever runs the tests.
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_a_507_and_a_read_only_one_a_500_and_nothing_changes() {
    let Some(disk) = Mounted::tmpfs("48k") else { return };
    let path = disk.0.path().join("live.yaml");
    std::fs::write(&path, COMMENTED).unwrap();
    let streamgate = Streamgate::start(&["-c", path.to_str().unwrap()]);
    every_edit_fails(&streamgate, &path, 507, "no space").await;
    assert_eq!(std::fs::read_dir(disk.0.path()).unwrap().count(), 1, "no half-written file takes the space");
    disk.remount("ro");
    every_edit_fails(&streamgate, &path, 500, "read-only").await;
    // With the disk back, edits work again.
    disk.remount("rw");
    ok(&put(&streamgate.url("/api/streams?name=new&src=rtsp://127.0.0.1:9/n"), "", "").await);
    assert_eq!(streams(&path).len(), 3);
}
