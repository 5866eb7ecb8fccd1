use super::*;
use proptest::prelude::*;

fn env(name: &str) -> Option<String> {
    (name == "PASSWORD").then(|| "hunter2".to_owned())
}

fn stream(sources: &[&str]) -> StreamConfig {
    StreamConfig::new(sources.iter().map(|source| (*source).to_owned()).collect())
}

fn set(text: &str, name: &str, stream: &StreamConfig) -> String {
    let edited =
        apply(text, &Edit::Set { name, stream }, &env).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(find(&edited.loaded.config, name), Some(stream));
    edited.text
}

fn remove(text: &str, name: &str) -> String {
    apply(text, &Edit::Remove { name }, &env).unwrap_or_else(|error| panic!("{error}\n{text}")).text
}

fn merge(text: &str, patch: &str) -> Result<String, EditError> {
    let patch: Value = serde_yaml::from_str(patch).unwrap();
    apply(text, &Edit::Merge(&patch), &env).map(|edited| edited.text)
}

#[test]
fn a_new_stream_is_added_in_every_form_of_text() {
    let new = stream(&["rtsp://n"]);
    for (text, expected) in [
        ("", "streams:\n  new: rtsp://n\n"),
        ("\u{feff}", "\u{feff}streams:\n  new: rtsp://n\n"),
        ("# only\n# comments", "# only\n# comments\nstreams:\n  new: rtsp://n\n"),
        ("---\n", "---\nstreams:\n  new: rtsp://n\n"),
        ("{}", "{streams: {new: \"rtsp://n\"}}"),
        ("api: {}\n# end\n", "api: {}\nstreams:\n  new: rtsp://n\n# end\n"),
        ("api: {}", "api: {}\nstreams:\n  new: rtsp://n"),
        ("streams:\n", "streams:\n  new: rtsp://n\n"),
        (
            "streams: # mine\n  # none yet\nlog: {}\n",
            "streams: # mine\n  new: rtsp://n\n  # none yet\nlog: {}\n",
        ),
        ("streams: ~ # mine\n", "streams: # mine\n  new: rtsp://n\n"),
        ("streams: {} # mine\n", "streams: {new: \"rtsp://n\"} # mine\n"),
        ("streams: {a: 'rtsp://a', }\n", "streams: {a: 'rtsp://a', new: \"rtsp://n\", }\n"),
        ("streams: {\n  a: rtsp://a # one\n}\n", "streams: {\n  a: rtsp://a, new: \"rtsp://n\" # one\n}\n"),
        (
            "streams:\n    a: rtsp://a # one\n    # tail\n\n# log\nlog: {}\n",
            "streams:\n    a: rtsp://a # one\n    new: rtsp://n\n    # tail\n\n# log\nlog: {}\n",
        ),
        (
            "streams:\r\n  a:\r\n  - rtsp://a\r\nlog: {}\r\n",
            "streams:\r\n  a:\r\n  - rtsp://a\r\n  new: rtsp://n\r\nlog: {}\r\n",
        ),
        (
            "streams:\n a: |-\n  rtsp://a\n\n\n# c\n",
            "streams:\n a: |-\n  rtsp://a\n new: rtsp://n\n\n\n# c\n",
        ),
        ("streams: &s\n  a: rtsp://a", "streams: &s\n  a: rtsp://a\n  new: rtsp://n"),
    ] {
        let set = set(text, "new", &new);
        assert_eq!(
            set,
            expected.replace("\"rtsp://n\"", &super::super::write::scalar("rtsp://n", true)),
            "{text}"
        );
        assert!(find(&parse(&remove(&set, "new"), &env).unwrap().config, "new").is_none());
    }
}

#[test]
fn adding_and_removing_gives_the_same_bytes_again() {
    for text in [
        "# a\nstreams:\n  # one\n  a: rtsp://a # x\n\n  # two\n  b:\n    - rtsp://b # y\nlog: {level: info}  # z\n",
        "streams: {a: rtsp://a}\r\n# c\r\n",
        "streams:\r\n  a: {sources: [rtsp://a], audio: no} # x\r\n",
    ] {
        for new in [
            stream(&["rtsp://n"]),
            stream(&["rtsp://n", "x:"]),
            StreamConfig { audio: false, ..stream(&["rtsp://n"]) },
        ] {
            assert_eq!(remove(&set(text, "n", &new), "n"), text);
        }
    }
}

#[test]
fn a_changed_stream_keeps_its_form_its_comments_and_its_variables() {
    let two = stream(&["rtsp://u:hunter2@a", "rtsp://b"]);
    let silent = |stream: &StreamConfig| StreamConfig { audio: false, ..stream.clone() };
    let one = stream(&["rtsp://u:hunter2@a"]);
    for (text, new, expected) in [
        // A URL stays one, becomes a list when it must, a mapping for options.
        ("streams:\n  a: rtsp://x # c\n", stream(&["rtsp://y"]), "streams:\n  a: rtsp://y # c\n"),
        (
            "streams:\n  a: rtsp://x # c\n",
            stream(&["rtsp://y", "rtsp://z"]),
            "streams:\n  a: # c\n    - rtsp://y\n    - rtsp://z\n",
        ),
        (
            "streams:\n  a: rtsp://u:${PASSWORD}@a # c\n  # d\n",
            silent(&one),
            "streams:\n  a:\n    sources: rtsp://u:${PASSWORD}@a # c\n    audio: false\n  # d\n",
        ),
        // A list keeps the items that stay.
        (
            "streams:\n  a: # c\n    # main\n    - rtsp://u:${PASSWORD}@a # d\n    # sub\n    - rtsp://x # e\n",
            two.clone(),
            "streams:\n  a: # c\n    # main\n    - rtsp://u:${PASSWORD}@a # d\n    # sub\n    - rtsp://b # e\n",
        ),
        (
            "streams:\n  a:\n  - rtsp://u:${PASSWORD}@a # d\nlog: {}\n",
            two.clone(),
            "streams:\n  a:\n  - rtsp://u:${PASSWORD}@a # d\n  - rtsp://b\nlog: {}\n",
        ),
        (
            "streams:\n  a:\n  - rtsp://u:${PASSWORD}@a\n  # c\n  - rtsp://x\n  - rtsp://y\n",
            one.clone(),
            "streams:\n  a:\n  - rtsp://u:${PASSWORD}@a\n  # c\n",
        ),
        (
            "streams:\n  a: [\"rtsp://u:${PASSWORD}@a\", x] # c\n",
            one.clone(),
            "streams:\n  a: [\"rtsp://u:${PASSWORD}@a\"] # c\n",
        ),
        (
            "streams:\r\n  a: # c\r\n    # main\r\n    - rtsp://u:${PASSWORD}@a\r\n\r\n    - rtsp://b # e\r\n",
            silent(&two),
            "streams:\r\n  a: # c\r\n    sources:\r\n      # main\r\n      - rtsp://u:${PASSWORD}@a\r\n\r\n      - rtsp://b # e\r\n    audio: false\r\n",
        ),
        (
            "streams: {a: \"rtsp://u:${PASSWORD}@a\"}\n",
            silent(&one),
            "streams: {a: {sources: \"rtsp://u:${PASSWORD}@a\", audio: false}}\n",
        ),
        // A mapping keeps its keys.
        (
            "streams:\n  a:\n    # never\n    audio: true # a\n    sources: rtsp://u:${PASSWORD}@a\n",
            silent(&one),
            "streams:\n  a:\n    # never\n    audio: false # a\n    sources: rtsp://u:${PASSWORD}@a\n",
        ),
        (
            "streams:\n  a: {linger: 1s, sources: ['rtsp://u:${PASSWORD}@a']}\n",
            StreamConfig { linger: Duration::from_millis(1500), ..two.clone() },
            "streams:\n  a: {linger: 1500ms, sources: ['rtsp://u:${PASSWORD}@a', rtsp://b]}\n",
        ),
        // What is the same already is not touched at all.
        ("streams: {a:   'rtsp://u:${PASSWORD}@a'  }", one, "streams: {a:   'rtsp://u:${PASSWORD}@a'  }"),
        // An entry without source gets one.
        ("streams:\n  a:\n  b: x\n", stream(&["rtsp://y"]), "streams:\n  a: rtsp://y\n  b: x\n"),
        // An alias is resolved where it was.
        (
            "streams:\n  b: &b rtsp://b\n  a: *b # c\n",
            stream(&["rtsp://y"]),
            "streams:\n  b: &b rtsp://b\n  a: rtsp://y # c\n",
        ),
        (
            "streams:\n  b: &b rtsp://b\n  a: *b # c\n",
            silent(&stream(&["rtsp://b"])),
            "streams:\n  b: &b rtsp://b\n  a:\n    sources: *b # c\n    audio: false\n",
        ),
    ] {
        let flow = |text: &str| {
            text.replace(", rtsp://b]", &format!(", {}]", super::super::write::scalar("rtsp://b", true)))
        };
        assert_eq!(set(text, "a", &new), flow(expected), "{text}");
    }
}

#[test]
fn a_removed_stream_leaves_everything_else() {
    for (text, expected) in [
        (
            "streams:\n  # one\n  a: rtsp://a # x\n  # two\n  b: rtsp://b\n",
            "streams:\n  # one\n  # two\n  b: rtsp://b\n",
        ),
        ("streams:\n  b: x\n  a:\n    - rtsp://a\n    - rtsp://b\n\n# end", "streams:\n  b: x\n\n# end"),
        ("streams:\n  a: rtsp://a", "streams:\n"),
        ("streams:\n  b: x\n  a: >-\n    rtsp://\n    a\nlog: {}\n", "streams:\n  b: x\nlog: {}\n"),
        ("streams: {a: x, b: y}\n", "streams: {b: y}\n"),
        ("streams: {b: y, a: x}\n", "streams: {b: y}\n"),
        ("streams: {b: y, a: [x, y]  , }\n", "streams: {b: y, }\n"),
        ("streams: {a: x}\n", "streams: {}\n"),
        ("streams:\n  ? a\n  : x\n  b: y\n", "streams:\n  b: y\n"),
        ("streams:\n  b: y\n", "streams:\n  b: y\n"),
        (
            "\u{feff}streams:\r\n  a: {sources: x,\r\n    audio: no}\r\n  b: y\r\n",
            "\u{feff}streams:\r\n  b: y\r\n",
        ),
    ] {
        assert_eq!(remove(text, "a"), expected, "{text}");
    }
}

#[test]
fn any_name_is_found_again() {
    let long = "n".repeat(200);
    for name in [
        "금곡IC",
        "yes",
        "No",
        "1",
        "0x1F",
        "1e3",
        "null",
        "~",
        "a: b",
        "a #b",
        " leading",
        "trailing ",
        "😀",
        "-",
        "- a",
        "?x",
        "*a",
        "&a",
        "!t",
        "%d",
        "@x",
        "`x",
        "'q'",
        "\"q\"",
        "\\",
        "{a}",
        "[a]",
        ",",
        "a,b",
        "<<",
        "=",
        "|",
        ">",
        "\u{2028}",
        "\u{feff}x",
        "\u{fffe}",
        "\u{a0}",
        "---",
        "...",
        ".inf",
        "streams",
        "on",
        "2026-01-01",
        "12:30:45",
        &long,
    ] {
        if super::super::check_stream_name(name).is_err() {
            continue;
        }
        for text in ["", "streams: {x: y}\n", "# c\nstreams:\n  x: y # d\n"] {
            let added = set(text, name, &stream(&["rtsp://a"]));
            let changed =
                set(&added, name, &StreamConfig { on_demand: false, ..stream(&["rtsp://b", "x: #y"]) });
            let removed = remove(&changed, name);
            assert!(find(&parse(&removed, &env).unwrap().config, name).is_none(), "{name:?}: {removed}");
            assert!(text.is_empty() || removed == text, "{name:?}: {removed}");
        }
    }
}

#[test]
fn what_cannot_be_written_is_refused() {
    let anchored = "streams:\n  a: &a rtsp://a\n  b: *a\n";
    for edit in [
        Edit::Remove { name: "a" },
        Edit::Set { name: "a", stream: &stream(&["rtsp://x"]) },
        Edit::Set { name: "n", stream: &stream(&["rtsp://${PASSWORD}@x"]) },
    ] {
        assert!(matches!(apply(anchored, &edit, &env), Err(EditError::Impossible(_))), "{edit:?}");
    }
    let shared = "ffmpeg: &x {y: z}\nstreams: *x\n";
    assert!(apply(shared, &Edit::Set { name: "n", stream: &stream(&["x"]) }, &env).is_err());
    assert!(matches!(apply("nonsense: 1\n", &Edit::Remove { name: "a" }, &env), Err(EditError::Broken(_))));
    // `${` that is no variable stays what it is.
    set("", "n", &stream(&["rtsp://${}x", "y${"]));
}

#[test]
fn merging_changes_what_is_named() {
    let text = "# top\nlog:\n  level: info # l\nstreams:\n  a: rtsp://u:${PASSWORD}@a # x\n  b: [rtsp://b]\n";
    for (patch, expected) in [
        ("{log: {level: debug}}", text.replace("info", "debug")),
        ("{log: {format: json}}", text.replace("info # l\n", "info # l\n  format: json\n")),
        ("{log: null}", text.replace("log:\n  level: info # l\n", "")),
        ("{streams: {b: null}}", text.replace("  b: [rtsp://b]\n", "")),
        ("{streams: {b: rtsp://c}}", text.replace("[rtsp://b]", "rtsp://c")),
        (
            "{streams: {a: {audio: false}}}",
            text.replace(
                " rtsp://u:${PASSWORD}@a # x\n",
                "\n    sources: rtsp://u:${PASSWORD}@a # x\n    audio: false\n",
            ),
        ),
        ("{streams: {c: {sources: [x], audio: null}}}", format!("{text}  c:\n    sources:\n      - x\n")),
        (
            "{webrtc: {ice_servers: [{urls: ['stun:x'], credential: 1}]}}",
            format!("{text}webrtc:\n  ice_servers:\n    - {{urls: [\"stun:x\"], credential: 1}}\n"),
        ),
        ("{}", text.to_owned()),
        ("{api: null}", text.to_owned()),
    ] {
        assert_eq!(
            merge(text, patch).unwrap_or_else(|error| panic!("{patch}: {error}")),
            expected,
            "{patch}"
        );
    }
    let error = merge(text, "{log: {level: loud}}").unwrap_err();
    assert!(
        matches!(&error, EditError::Invalid(error) if (error.line, error.column) == (3, 10)),
        "{error:?}"
    );
    assert!(matches!(merge(text, "{logs: {}}"), Err(EditError::Invalid(_))));
    assert!(matches!(merge(text, "[1]"), Err(EditError::Invalid(_))));
}

fn any_name() -> impl Strategy<Value = String> {
    "[a-c]|[가-갃]|yes|1|[ -~&&[^/?#]]{1,5}|\\PC{1,4}"
        .prop_filter("a possible name", |name: &String| super::super::check_stream_name(name).is_ok())
}

fn any_stream() -> impl Strategy<Value = StreamConfig> {
    let source = "rtsp://[a-z]{1,5}(:[!-~]{1,6}@h)?(#media=video)?|[ -~]{1,8}|[가-갃😀\"'\\\\]{1,3}"
        .prop_map(|source: String| source.trim().replace("${", "$"))
        .prop_filter("a possible source", |source: &String| super::super::check_source(source).is_ok());
    (proptest::collection::vec(source, 1..4), any::<bool>(), 0..3000u64, any::<bool>()).prop_map(
        |(sources, on_demand, linger, audio)| StreamConfig {
            sources,
            on_demand,
            linger: Duration::from_millis(linger * 500),
            audio,
        },
    )
}

/// A valid text in one of the many ways to write it, with a comment wherever one may be.
fn any_text() -> impl Strategy<Value = String> {
    let streams = proptest::collection::vec((any_name(), any_stream(), 0..6usize), 0..5);
    (streams, 0..6usize, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(streams, frame, crlf, bom, open_end)| {
            let quoted = super::super::write::quoted;
            let mut seen = std::collections::HashSet::new();
            let streams: Vec<_> =
                streams.into_iter().filter(|(name, ..)| seen.insert(name.clone())).collect();
            let mut text = String::new();
            let head = [
                "",
                "# head\n",
                "---\n# head\n",
                "api: {origin: '*'} # first\n\n",
                "ffmpeg:\n  bin: |\n    x\n\n",
                "log:\n- \n",
            ][frame.min(4)];
            text.push_str(head);
            if frame == 3 {
                text.push_str("streams: { # flow");
                for (name, stream, form) in &streams {
                    let list =
                        stream.sources.iter().map(|source| quoted(source)).collect::<Vec<_>>().join(" , ");
                    let options = format!("audio: {}, on_demand: {}", stream.audio, stream.on_demand);
                    let value = if form % 2 == 0 {
                        format!("[{list}]")
                    } else {
                        format!("{{sources: [{list}], {options}}}")
                    };
                    text.push_str(&format!("\n  # c\n  {}: {value},", quoted(name)));
                }
                text.push_str("\n  } # end\n");
            } else {
                text.push_str("streams: # block\n");
                for (name, stream, form) in &streams {
                    let key = super::super::write::scalar(name, false);
                    let first = quoted(&stream.sources[0]);
                    let list = |indent: &str| {
                        stream
                            .sources
                            .iter()
                            .map(|s| format!("{indent}- {} # i\n", quoted(s)))
                            .collect::<String>()
                    };
                    text.push_str("  # above\n");
                    text.push_str(&match form {
                        0 => format!("  {key}: {first} # c\n"),
                        1 => format!("  {key}: # c\n{}", list("    ")),
                        2 => format!("  {key}:\n{}\n", list("  ")),
                        3 => format!(
                            "  {key}:\n    audio: {} # o\n    sources:\n{}    # inside\n    linger: 5s\n",
                            stream.audio,
                            list("      ")
                        ),
                        4 => {
                            format!("  {key} : {{sources: {first}, on_demand: {}}}   # c\n", stream.on_demand)
                        }
                        _ => format!("  ? {key}\n  : {first}\n"),
                    });
                }
                text.push_str("# tail\n");
            }
            if frame == 1 {
                text.push_str("log: {level: warn} # last");
            }
            if open_end {
                text.truncate(text.trim_end().len());
            }
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            if bom { format!("\u{feff}{text}") } else { text }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_edit_of_any_valid_text_reads_as_it_was_meant(
        text in any_text(), other in any_name(), new in any_stream(), pick in 0..8usize, delete in any::<bool>()
    ) {
        let old = parse(&text, &env).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?.config;
        let name = old.streams.get(pick).map_or(other, |(name, _)| name.clone());
        let edit = if delete { Edit::Remove { name: &name } } else { Edit::Set { name: &name, stream: &new } };
        let edited = apply(&text, &edit, &env).map_err(|error| TestCaseError::fail(format!("{edit:?}: {error}\n{text}")))?;
        // Read again, the text says what was meant …
        let read = parse(&edited.text, &env).unwrap().config;
        let meant = (!delete).then_some(&new);
        prop_assert!(is_changed_only(&old, &read, &name, meant), "{edit:?}\n{text}\n=>\n{}", edited.text);
        // … and every line that does not belong to the entry is there as it was, in its order.
        let foreign = |line: &&str| line.contains("# above") || line.contains("# tail") || line.contains("# head") || line.contains("# block");
        let kept: Vec<&str> = text.split('\n').filter(foreign).map(str::trim_end).collect();
        let still: Vec<&str> = edited.text.split('\n').filter(foreign).map(str::trim_end).collect();
        prop_assert_eq!(kept, still);
        if !delete && !old.streams.iter().any(|(other, _)| *other == name) {
            let back = apply(&edited.text, &Edit::Remove { name: &name }, &env).unwrap().text;
            prop_assert_eq!(parse(&back, &env).unwrap().config, old);
        }
    }
}
