//! `streamgate probe` and `streamgate healthcheck`.

mod common;

use common::{Authority, Camera, Streamgate};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn streamgate(args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streamgate"))
        .args(args)
        .env_remove("STREAMGATE_LISTEN")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_probe_of_the_demo_camera_tells_what_it_sends() {
    let output = streamgate(&["probe", "demo:", "--json"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["tracks"][0]["codec_name"], "h264", "{report}");
    assert!(report["width"].as_u64().is_some_and(|width| width >= 320), "{report}");
    let (fps, gop) = (report["fps"].as_f64().unwrap(), report["gop"].as_f64().unwrap());
    assert!((1.5..2.5).contains(&(gop / fps)), "a GOP of two seconds: {report}");
    assert!(report["bitrate"].as_u64().is_some_and(|bitrate| bitrate > 10_000), "{report}");
    assert_eq!(report["b_frames"], false, "{report}");
    assert_eq!(stderr(&output), "", "no progress line without a terminal");
}

#[test]
fn a_probe_shows_b_frames_and_hides_the_password() {
    let camera = Camera::start_protected("basic:user:pass", "clip=h264_high_bf3_g60,audio=pcma");
    let url = camera.url_as("user:pass");
    let output = streamgate(&["probe", &url], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for part in ["h264", "pcm_alaw, 8000 Hz, 1 channel", "fps", "kbit/s", "GOP", "B-frames", "yes"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("user:pass"), "{text}");
}

#[test]
fn a_camera_by_tls_is_asked_only_if_its_certificate_is_good_or_need_not_be() {
    let authority = Authority::new();
    let mounts = [("/cam", "clip=h264_main_g60,audio=aac")];
    let camera = Camera::start_secure(&mounts, "basic:user:s3cret", authority.files());
    let good = camera.url_as("user:s3cret");
    let address = good.replace("localhost", "127.0.0.1");
    let any = address.replace("rtsps://", "rtspx://");
    let plain = good.replace("rtsps://", "rtsp://");
    let other = Authority::new();
    let (trusted, untrusted) = (authority.trusted(), other.trusted());
    for (url, variables, code, part) in [
        (&good, &trusted, 0, "aac"),
        (&any, &untrusted, 0, "aac"),
        (&good, &untrusted, 1, "is not trusted: it is signed by another authority"),
        (&address, &trusted, 1, "is for localhost, not for 127.0.0.1; write rtspx://"),
        (&plain, &trusted, 1, "the connection when it was asked for OPTIONS"),
    ] {
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        let output = streamgate(&["probe", url, "--timeout", "20s"], &variables);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{url}: {said}");
        assert!(said.contains(part) && !said.contains("s3cret"), "{url}: {said}");
    }
}

#[test]
fn a_probe_of_what_is_no_camera_fails_with_the_reason() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("rtsp://u:hunter2@{}/x", silent.local_addr().unwrap());
    for (args, code, part) in [
        (&["probe", "rtsp://u:hunter2@127.0.0.1:9/x"][..], 1, "refuses connections"),
        (&["probe", &silent_url, "--timeout", "1s"], 1, "127.0.0.1"),
        (&["probe", "nonsense://u:hunter2@h"], 2, "nonsense"),
        (&["probe", "hunter2"], 2, "URL"),
        (&["probe", ""], 2, "empty"),
        (&["probe", "demo:", "--timeout", "soon"], 2, "duration"),
        (&["probe"], 2, "URL"),
    ] {
        let started = Instant::now();
        let output = streamgate(args, &[]);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{args:?}: {} has no {part:?}", stderr(&output));
        assert!(!stderr(&output).contains("hunter2"), "{args:?}: {}", stderr(&output));
        assert!(started.elapsed() < Duration::from_secs(6), "{args:?}: {:?}", started.elapsed());
    }
}

#[test]
fn healthcheck_tells_by_its_exit_code() {
    let running = Streamgate::with_streams(&[("front", "rtsp://127.0.0.1:9/cam")]);
    let listen = format!("127.0.0.1:{}", running.port);
    let healthy = [
        streamgate(&["healthcheck", "--url", &running.base_url], &[]),
        streamgate(&["healthcheck", "--url", &running.url("/readyz")], &[]),
        streamgate(&["healthcheck"], &[("STREAMGATE_LISTEN", &listen)]),
    ];
    for output in healthy {
        assert_eq!(
            (output.status.code(), stdout(&output).as_str()),
            (Some(0), "ok\n"),
            "{}",
            stderr(&output)
        );
    }
    let lost = streamgate(&["healthcheck", "--url", &running.url("/nothing")], &[]);
    assert_eq!(lost.status.code(), Some(1), "{}", stderr(&lost));
    assert!(stderr(&lost).contains("404"), "{}", stderr(&lost));
    let url = running.base_url.clone();
    drop(running);
    let dead = streamgate(&["healthcheck", "--url", &url], &[]);
    assert_eq!(dead.status.code(), Some(1), "{}", stderr(&dead));
    for bad in ["ftp://a", "127.0.0.1", ""] {
        assert_eq!(streamgate(&["healthcheck", "--url", bad], &[]).status.code(), Some(2), "{bad}");
    }
}

#[test]
fn healthcheck_does_not_wait_for_ever() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let url = format!("http://{}", silent.local_addr().unwrap());
    assert_eq!(streamgate(&["healthcheck", "--url", &url], &[]).status.code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}
