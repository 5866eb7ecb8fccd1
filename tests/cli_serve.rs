//! `streamgate serve`: where its settings come from, how it starts and how it ends.

mod common;

use common::{Streamgate, eventually, get, get_json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary without whatever the environment of the test says, in a folder of its own.
fn command(folder: &std::path::Path, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STREAMGATE_"))
    {
        command.env_remove(name);
    }
    command.args(args).envs(env.iter().copied()).current_dir(folder).stdin(Stdio::null());
    command
}

/// Runs it to its end.
fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    command(folder.path(), args, env).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Kills it when the test is done with it, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it and reads its log up to where it listens.
fn log_until_listening(folder: &std::path::Path, args: &[&str], env: &[(&str, &str)]) -> (Running, String) {
    let mut child = Running(command(folder, args, env).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = String::new();
    for line in BufReader::new(child.0.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        log += &line;
        log.push('\n');
        if line.contains("listening on") {
            return (child, log);
        }
    }
    panic!("it ended: {log}");
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("streamgate.yaml"),
        "api: {listen: '127.0.0.2:0'}\nlog: {level: debug}\n",
    )
    .unwrap();
    std::fs::write(folder.path().join("other.yaml"), "api: {listen: '127.0.0.5:0'}\n").unwrap();
    let listen = ("STREAMGATE_LISTEN", "127.0.0.3:0");
    for (args, env, address) in [
        (&[][..], &[][..], "127.0.0.2"),
        (&["serve"], &[listen], "127.0.0.3"),
        (&["--listen", "127.0.0.4:0"], &[listen], "127.0.0.4"),
        (&["-c", "other.yaml"], &[("STREAMGATE_CONFIG", "nothing.yaml")], "127.0.0.5"),
        (&[], &[("STREAMGATE_CONFIG", "other.yaml")], "127.0.0.5"),
    ] {
        let (_running, log) = log_until_listening(folder.path(), args, env);
        assert!(log.contains(&format!("listening on http://{address}:")), "{args:?} {env:?}: {log}");
    }
    for (args, env, is_debug) in [
        (&[][..], &[][..], true),
        (&[], &[("STREAMGATE_LOG_LEVEL", "info")], false),
        (&["--log-level=debug"], &[("STREAMGATE_LOG_LEVEL", "info")], true),
    ] {
        let (_running, log) = log_until_listening(folder.path(), args, env);
        assert_eq!(log.contains("DEBUG"), is_debug, "{args:?} {env:?}: {log}");
    }
    let (_running, log) = log_until_listening(folder.path(), &["--log-format=json"], &[]);
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

#[tokio::test]
async fn streams_come_from_flags_and_file_together() {
    let streamgate = Streamgate::with_config("streams: {a: 'rtsp://127.0.0.1:9/file'}\n");
    assert_eq!(get_json(&streamgate.url("/api/streams")).await.as_object().unwrap().len(), 1);
    drop(streamgate);
    let streamgate = Streamgate::start(&[
        "--stream=금곡IC=rtsp://127.0.0.1:9/a?x=1&y=2",
        "--stream",
        "금곡IC=rtsp://127.0.0.1:9/b",
        "--stream=c=rtsp://127.0.0.1:9/c",
    ]);
    let all = get_json(&streamgate.url("/api/streams")).await;
    assert_eq!(all.as_object().unwrap().keys().collect::<Vec<_>>(), ["c", "금곡IC"]);
    assert_eq!(all["금곡IC"]["producers"][0]["url"], "rtsp://127.0.0.1:9/a?x=1&y=2");
    assert_eq!(all["금곡IC"]["producers"][1]["url"], "rtsp://127.0.0.1:9/b");
}

#[tokio::test]
async fn without_any_configuration_there_is_the_demo_camera() {
    let streamgate = Streamgate::start(&[]);
    let all = get_json(&streamgate.url("/api/streams")).await;
    assert_eq!(all.as_object().unwrap().keys().collect::<Vec<_>>(), ["demo"]);
    assert!(streamgate.log().contains("demo camera"), "{}", streamgate.log());
    drop(streamgate);
    let empty = Streamgate::with_config("log: {level: info}\n");
    assert_eq!(get_json(&empty.url("/api/streams")).await, serde_json::json!({}));
}

#[test]
fn a_wrong_configuration_ends_it_with_2_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.yaml"), "api:\n  lisen: ':1'\n").unwrap();
    std::fs::write(folder.path().join("stream.yaml"), "streams:\n  gate: srt://u:hunter2@h/x\n").unwrap();
    std::fs::write(folder.path().join("tls.yaml"), "api: {tls_cert: none.pem, tls_key: none.pem}\n").unwrap();
    for (args, parts) in [
        (&["-c", "bad.yaml"][..], &["bad.yaml:2:3", "lisen", "listen"][..]),
        (&["-c", "none.yaml"], &["none.yaml", "cannot be read"]),
        (&["-c", "stream.yaml", "--listen=127.0.0.1:0"], &["\"gate\"", "srt"]),
        (&["-c", "tls.yaml", "--listen=127.0.0.1:0"], &["tls_cert", "none.pem"]),
        (&["--stream=front"], &["--stream", "name and a URL"]),
        (&["--stream=a/b=rtsp://u:hunter2@h"], &["--stream", "'/'"]),
        (&["--stream=a=nonsense://u:hunter2@h", "--listen=127.0.0.1:0"], &["\"a\"", "nonsense"]),
        (&["--listen=1984"], &["--listen", "port is missing"]),
        (&["--log-level=loud"], &["--log-level", "debug"]),
        (&["--nonsense"], &["--nonsense"]),
    ] {
        let output = command(folder.path(), args, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        for part in parts {
            assert!(stderr(&output).contains(part), "{args:?}: {} has no {part:?}", stderr(&output));
        }
        assert!(!stderr(&output).contains("hunter2"), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn a_port_in_use_is_said_in_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["--listen", &address], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("in use") && stderr(&output).contains("--listen"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_signal_ends_it_in_time_whatever_its_clients_do() {
    for signal in ["TERM", "INT"] {
        let mut streamgate = Streamgate::with_streams(&[("front", "rtsp://127.0.0.1:9/cam")]);
        let address = format!("127.0.0.1:{}", streamgate.port);
        let _silent = std::net::TcpStream::connect(&address).unwrap();
        let mut half_a_request = std::net::TcpStream::connect(&address).unwrap();
        half_a_request
            .write_all(b"POST /api/webrtc?src=front HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nv=0")
            .unwrap();
        // Waits for a camera that is not there.
        let url = streamgate.url("/api/streams?src=front&video");
        let waiting = tokio::spawn(async move { get(&url).await.status });
        let state = streamgate.url("/api/streams/front");
        eventually("the camera is dialled", Duration::from_secs(5), async || {
            get_json(&state).await["state"] != "idle"
        })
        .await;
        let started = Instant::now();
        streamgate.signal(signal);
        let status = streamgate.wait_exit(Duration::from_secs(3));
        assert!(
            status.is_some_and(|status| status.success()),
            "{signal}: {status:?} after {:?}",
            started.elapsed()
        );
        // Whatever it was told, it was not left waiting.
        let _ = waiting.await;
    }
}

#[test]
fn version_and_help_tell_what_is_needed() {
    let output = run(&["--version"], &[]);
    let version = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && version.starts_with("streamgate "), "{version}");
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let help = String::from_utf8(run(&["--help"], &[]).stdout).unwrap();
    for part in
        ["probe", "healthcheck", "#transport=udp", "STREAMGATE_LISTEN", "rtsp://", "Exit codes", ":1984"]
    {
        assert!(help.contains(part), "{part}: {help}");
    }
}
