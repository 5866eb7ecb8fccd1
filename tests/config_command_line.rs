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
        ("streams:\n  a: rtps://u:hunter2@h/1\n", "streamgate.yaml:2:6: streams.a: "),
        ("streams: [\n", "streamgate.yaml:1:10: "),
    ] {
        let bad = run(&["check", "-c", "streamgate.yaml"], file);
        let text = String::from_utf8_lossy(&bad.stderr).into_owned();
        assert_eq!(bad.status.code(), Some(2), "{text}");
        assert!(text.contains(place) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(run(&["check", "-c", "none.yaml"], "").status.code(), Some(2));
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
