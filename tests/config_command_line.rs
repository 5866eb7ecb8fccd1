//! `streamgate check` and `streamgate schema`.

use serde_json::Value;
use std::process::{Command, Output};

fn run(args: &[&str], file: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("streamgate.yaml"), file).unwrap();
    Command::new(env!("CARGO_BIN_EXE_streamgate"))
        .args(args)
        .env_remove("STREAMGATE_CONFIG")
        .current_dir(folder.path())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_valid_file_is_0_with_its_warnings_a_broken_one_2_with_the_place() {
    let good = run(&["check"], "streams: {a: 'rtsp://u:hunter2@h/1'}\nffmpeg: {bin: x}\n");
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert_eq!(good.status.code(), Some(0), "{text}");
    assert!(text.contains("warning: ffmpeg") && text.contains("1 streams, 1 warnings"), "{text}");
    for (file, place) in [
        (
            "log: {levl: info}\n",
            "streamgate.yaml:1:7: log: unknown key \"levl\", did you mean \"level\"? Expected one of level, format",
        ),
        (
            "streams:\n  a: rtps://u:hunter2@h/1\n",
            "streamgate.yaml:2:6: streams.a: scheme \"rtps\" is not known, did you mean \"rtsp\"?",
        ),
        ("streams: [\n", "streamgate.yaml:1:10: "),
    ] {
        let bad = run(&["check", "-c", "streamgate.yaml"], file);
        let text = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert_eq!(bad.status.code(), Some(2), "{text}");
        assert!(text.contains(place) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(run(&["check", "-c", "none.yaml"], "").status.code(), Some(2));
}

/// Much of what go2rtc's files have.
const GO2RTC: &str = "\
api: {listen: ':1984', base_path: /rtc, origin: '*'}
rtsp: {listen: ':8554', username: admin, password: pass, default_query: 'video&audio'}
webrtc:
  listen: ':8555/tcp'
  candidates: ['216.58.210.174:8555', 'stun:8555', 'home.example.org:8555']
  ice_servers: [{urls: ['stun:stun.example.org:19302']}]
  filters: {candidates: [192.168.1.123], udp_ports: [50000, 50100]}
ffmpeg: {bin: ffmpeg, h264: '-codec:v libx264 -g:v 30', mycodec: '-any args'}
hass: {config: /config}
homekit: {cam: {pin: 123-45-678}}
srtp: {listen: ':8443'}
log: {format: text, level: info, api: trace, exec: debug, output: stdout}
ngrok: {command: ngrok tcp 8555}
preload: {cam: video}
publish: {cam: 'rtmp://x.rtmp.example.org/live2/key'}
streams:
  cam:
    - rtsp://admin:pass@192.168.1.123/cam/realmonitor?channel=1&subtype=0#backchannel=0
    - ffmpeg:cam#audio=opus
  talk: ['rtsp://192.168.1.123/1#media=video', 'isapi://admin:pass@192.168.1.123:80/']
  transcoded: ffmpeg:rtsp://admin:pass@192.168.1.123/1#video=h264#hardware
  program: exec:ffmpeg -re -i media.mp4 -c copy -rtsp_transport tcp -f rtsp {output}
  onvif: onvif://admin:pass@192.168.1.123?subtype=0
  homekit: homekit://192.168.1.123:36217?device_id=a&pin=123
  tapo: tapo://pass@192.168.1.123
  ring: 'ring:?device_id=X&refresh_token=X'
  secure: rtsps://192.168.1.1:7441/fD6ouM72bWoFijxK
  picture: http://admin:pass@192.168.1.123/cgi-bin/snapshot.cgi
  printed: echo:python3 scripts/hass.py
  금곡IC: rtsp://192.168.1.124/1
";

#[test]
fn a_file_of_go2rtc_is_valid_and_each_thing_without_effect_is_named_once() {
    let output = run(&["check"], GO2RTC);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let mut named: Vec<&str> =
        text.lines().filter_map(|line| line.split("warning: ").nth(1)?.split([' ', ':']).next()).collect();
    named.sort_unstable();
    let expected = [
        "api.base_path",
        "ffmpeg",
        "hass",
        "homekit",
        "log.exec",
        "log.output",
        "ngrok",
        "publish.cam",
        "rtsp.default_query",
        "srtp",
        "streams.cam[1]",
        "streams.homekit",
        "streams.onvif",
        "streams.picture",
        "streams.printed",
        "streams.program",
        "streams.ring",
        "streams.talk[1]",
        "streams.tapo",
        "streams.transcoded",
        "webrtc.filters.udp_ports",
        "webrtc.listen",
    ];
    assert_eq!(named, expected, "{text}");
    assert!(text.contains("12 streams, 22 warnings") && !text.contains("pass@"), "{text}");
}

#[test]
fn json_has_everything_in_fields() {
    let good = json(&run(&["check", "--json"], "hass: {}\n"));
    assert_eq!(
        (&good["valid"], good["warnings"].as_array().unwrap().len()),
        (&Value::Bool(true), 1),
        "{good}"
    );
    let output = run(&["check", "--json"], "log:\n  level: loud\n");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(2), 0));
    let error = &json(&output)["errors"][0];
    assert_eq!(
        (&error["line"], &error["column"], &error["key"]),
        (&2.into(), &10.into(), &"log.level".into()),
        "{error}"
    );
    assert!(error["allowed"].as_str().unwrap().contains("debug"), "{error}");
}

#[test]
fn the_schema_is_printed() {
    let schema = json(&run(&["schema"], ""));
    assert!(schema["properties"]["streams"].is_object() && schema["$schema"].is_string());
}
