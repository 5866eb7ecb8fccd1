use super::*;
use crate::config::{IceServer, LogFormat, LogLevel, StreamConfig};
use std::time::Duration;

fn env(name: &str) -> Option<String> {
    match name {
        "CAM" => Some("rtsp://u:p@cam/1".to_owned()),
        "HOSTILE" => Some("x\nevil: rtsp://y # z: [a]".to_owned()),
        "TRICKY" => Some("x: y # z ${CAM}".to_owned()),
        "PORT" => Some("8080".to_owned()),
        "NO" => Some("false".to_owned()),
        "BIG" => Some("x".repeat(4000)),
        _ => None,
    }
}

fn read(text: &str) -> Loaded {
    parse(text, &env).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn refused(text: &str) -> ConfigError {
    parse(text, &env).expect_err(text)
}

#[test]
fn nothing_at_all_is_the_default() {
    for text in ["", "\n", "# only a comment\n", "---\n", "api:\nstreams:\nlog: ~\nwebrtc: null\n", "{}"] {
        assert_eq!(read(text), Loaded::default(), "{text:?}");
    }
    assert_eq!(Config::default().api.listen.to_string(), ":1984");
}

#[test]
fn every_key_arrives() {
    let loaded = read(
        "api: {listen: '127.0.0.1:1', origin: '*', tls_cert: c.pem, tls_key: k.pem}\n\
         webrtc:\n  candidates: ['1.2.3.4:1984', 'stun:1984']\n  ice_servers:\n    - urls: stun:s:3478\n    \
         - {urls: ['turn:t:3478'], username: u, credential: 1234}\n  \
         filters: {candidates: [], interfaces: [eth0], ips: ['10.0.0.1', '::1'], loopback: yes, networks: [udp4]}\n  \
         pacing: {burst: 1500, rate: 25M}\n\
         hls: {part: 500ms, segment: 4s, window: 5, linger: 1m}\n\
         log: {level: warn, format: json, webrtc: trace, api: disabled}\n\
         streams:\n  b: rtsp://b\n  a: [rtsp://a1, rtsp://a2]\n  \
         금곡IC: {sources: rtsp://c, on_demand: false, linger: 500ms, audio: false}\n",
    );
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let config = loaded.config;
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:1");
    assert!(config.api.any_origin);
    assert_eq!(config.api.tls, Some(Tls { cert: "c.pem".to_owned(), key: "k.pem".to_owned() }));
    assert_eq!(config.webrtc.candidates, ["1.2.3.4:1984", "stun:1984"]);
    let turn = IceServer {
        urls: vec!["turn:t:3478".to_owned()],
        username: "u".to_owned(),
        credential: "1234".to_owned(),
    };
    assert_eq!(config.webrtc.ice_servers.get(1), Some(&turn));
    assert_eq!(config.webrtc.ice_servers.len(), 2);
    assert_eq!(config.webrtc.filters.candidates, Some(vec![]));
    assert_eq!(config.webrtc.filters.interfaces, Some(vec!["eth0".to_owned()]));
    assert_eq!(config.webrtc.filters.ips.map(|ips| ips.len()), Some(2));
    assert_eq!(config.webrtc.filters.loopback, Some(true));
    assert_eq!(config.webrtc.filters.networks, Some(vec!["udp4".to_owned()]));
    assert_eq!((config.webrtc.pacing.burst, config.webrtc.pacing.rate), (1_500, 25_000_000));
    let hls = &config.hls;
    assert_eq!((hls.part, hls.segment), (Duration::from_millis(500), Duration::from_secs(4)));
    assert_eq!((hls.window, hls.linger, hls.target()), (5, Duration::from_secs(60), 6));
    assert_eq!((config.log.level, config.log.format), (LogLevel::Warn, LogFormat::Json));
    assert_eq!(
        config.log.modules,
        [("webrtc".to_owned(), LogLevel::Trace), ("api".to_owned(), LogLevel::Off)]
    );
    let expected = [
        ("b".to_owned(), StreamConfig::new(vec!["rtsp://b".to_owned()])),
        ("a".to_owned(), StreamConfig::new(vec!["rtsp://a1".to_owned(), "rtsp://a2".to_owned()])),
        (
            "금곡IC".to_owned(),
            StreamConfig {
                sources: vec!["rtsp://c".to_owned()],
                on_demand: false,
                linger: Duration::from_millis(500),
                audio: false,
            },
        ),
    ];
    assert_eq!(config.streams, expected);
}

#[test]
fn the_example_loads_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.yaml");
    let loaded = load(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
}

#[test]
fn the_example_names_every_key() {
    let text = include_str!("../../config.example.yaml");
    for key in <ApiReader as Section>::KEYS
        .iter()
        .chain(<WebrtcReader as Section>::KEYS)
        .chain(<crate::config::Filters as Section>::KEYS)
        .chain(<IceServer as Section>::KEYS)
        .chain(<StreamConfig as Section>::KEYS)
        .chain(<crate::config::Log as Section>::KEYS)
        .filter(|key| **key != "tls_listen")
    {
        assert!(text.contains(&format!("{key}:")), "{key} is not in config.example.yaml");
    }
}

#[test]
fn variables_fill_values_and_typed_fields() {
    let loaded = read(
        "api: {listen: ':${PORT}'}\nstreams:\n  a: ${CAM}\n  b: {sources: ['${NONE:rtsp://x}'], audio: '${NO}'}\n",
    );
    assert_eq!(loaded.config.api.listen.port, 8080);
    let sources: Vec<_> = loaded.config.streams.iter().map(|(_, stream)| stream.sources.concat()).collect();
    assert_eq!(sources, ["rtsp://u:p@cam/1", "rtsp://x"]);
    assert!(!loaded.config.streams.iter().any(|(name, stream)| name == "b" && stream.audio));
}

#[test]
fn a_variable_cannot_become_structure() {
    let config = read("streams:\n  a: ${TRICKY}\n").config;
    assert_eq!(config.streams, [("a".to_owned(), StreamConfig::new(vec!["x: y # z ${CAM}".to_owned()]))]);
    assert!(refused("streams:\n  a: ${HOSTILE}\n").message.contains("control characters"));
}

#[test]
fn comments_are_not_expanded() {
    assert_eq!(read("# ${NONE}\nstreams:\n  a: rtsp://x # ${NONE}\n").config.streams.len(), 1);
}

#[test]
fn errors_have_place_key_and_expectation() {
    for (text, line, column, parts) in [
        ("api:\n  listen: 1984\n", 2, 11, &["api.listen", "1984", ":1984"][..]),
        ("api:\n  lisen: ':1'\n", 2, 3, &["api", "lisen", "did you mean \"listen\""]),
        ("stream:\n  a: b\n", 1, 1, &["\"stream\"", "did you mean \"streams\""]),
        (
            "nonsense: 1\n",
            1,
            1,
            &["nonsense", "expected one of api, webrtc, hls, rtsp, streams, publish, preload, log"],
        ),
        ("streams:\n  a: rtsp://x\n  a: rtsp://y\n", 3, 3, &["\"a\"", "twice"]),
        ("streams:\n  a: []\n", 2, 6, &["streams.a", "no source"]),
        ("streams:\n  a: [[x]]\n", 2, 7, &["streams.a[0]", "sequence", "a source URL"]),
        ("streams:\n  a/b: rtsp://x\n", 2, 3, &["a/b", "'/'"]),
        ("streams:\n  a: {sources: rtsp://x, linger: 10}\n", 2, 34, &["streams.a.linger", "10s"]),
        ("streams:\n  a: {sources: rtsp://x, on_demand: maybe}\n", 2, 37, &["on_demand", "true or false"]),
        ("streams:\n  a: ${NONE}\n", 2, 6, &["streams.a", "NONE", "not set"]),
        ("log: {level: loud}\n", 1, 14, &["log.level", "loud", "debug"]),
        ("webrtc: {filters: {ips: [a]}}\n", 1, 26, &["webrtc.filters.ips[0]", "no IP address"]),
        ("webrtc: {pacing: {burst: 1G}}\n", 1, 26, &["webrtc.pacing.burst", "no amount"]),
        ("webrtc: {pacing: {rate: 1k}}\n", 1, 25, &["webrtc.pacing.rate", "out of bounds"]),
        ("webrtc: {candidates: [':1']}\n", 1, 23, &["candidates[0]", "stun:1984"]),
        ("webrtc: {ice_servers: [{username: x}]}\n", 1, 23, &["ice_servers", "urls"]),
        ("hls: {part: 5s}\n", 1, 13, &["hls.part", "out of bounds", "100ms to 2s"]),
        ("hls: {window: 2}\n", 1, 15, &["hls.window", "3 to 200"]),
        ("api: {password: x}\n", 1, 7, &["api.password", "restricts access"]),
        ("api: {\n", 2, 1, &["parsing"]),
        ("- a\n", 1, 1, &["mapping", "api, webrtc, hls, rtsp, streams, publish, preload, log"]),
    ] {
        let error = refused(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        for part in parts {
            assert!(error.message.contains(part), "{text}: {error} has no {part:?}");
        }
        assert!(!error.message.contains(" at line "), "{error}");
    }
}

#[test]
fn errors_never_show_a_source() {
    for text in [
        "streams: rtsp://u:hunter2@x\n",
        "streams:\n  a: {sources: {x: rtsp://u:hunter2@x}}\n",
        "streams:\n  a: \"rtsp://u:hunter2@x\\ny\"\n",
        "streams:\n  a: [rtsp://u:hunter2@x, \"\"]\n",
        "streams:\n  a: rtsp://u:hunter2@x\n b: c\n",
        "api: rtsp://u:hunter2@x\n",
        "rtsp://u:hunter2@x\n",
        "webrtc: {ice_servers: [{urls: 'rtsp://u:hunter2@x'}]}\n",
        "webrtc: {ice_servers: rtsp://u:hunter2@x}\n",
        "streams:\n  a: !tag rtsp://u:hunter2@x\n  a: b\n",
    ] {
        let error = refused(text);
        assert!(!error.to_string().contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn sections_of_go2rtc_that_do_nothing_here_warn_once_each() {
    let loaded = read(
        "ffmpeg: {bin: x}\nrtmp: {listen: ':1935'}\napi: {base_path: /x}\nwebrtc: {listen: ':8555/tcp'}\n",
    );
    let warnings = loaded.warnings.join("\n");
    for part in ["ffmpeg ", "rtmp ", "api.base_path ", "webrtc.listen "] {
        assert_eq!(warnings.matches(part).count(), 1, "{warnings}");
    }
    assert_eq!(read("webrtc: {listen: ':1984'}\n").warnings, Vec::<String>::new());
}

#[test]
fn a_stream_without_source_is_left_out_with_a_warning() {
    let loaded = read("streams:\n  a: rtsp://x\n  b:\n  c: ~\n");
    assert_eq!(loaded.config.streams.len(), 1);
    assert_eq!(loaded.warnings.len(), 2);
    assert!(loaded.warnings.iter().all(|warning| warning.contains("no source")), "{:?}", loaded.warnings);
}

#[test]
fn a_certificate_needs_its_key() {
    assert!(refused("api: {tls_cert: x}\n").message.contains("tls_key"));
    assert!(refused("api: {tls_key: x}\n").message.contains("tls_cert"));
}

#[test]
fn the_file_is_named_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.yaml");
    std::fs::write(&file, "a: b\n").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("x.yaml:1:1: "), "{}", load(&file).unwrap_err());
    std::fs::write(&file, b"api: {}\n# \xff\n").unwrap();
    assert!(load(&file).unwrap_err().to_string().contains("x.yaml:2:3: "), "{}", load(&file).unwrap_err());
    std::fs::write(&file, vec![b'#'; MAX_FILE_BYTES + 1]).unwrap();
    assert!(load(&file).unwrap_err().message.contains("larger"));
    assert!(load(&dir.path().join("none.yaml")).unwrap_err().message.contains("cannot be read"));
}

/// Aliases that double at each level, and one long list that thousands of streams share.
#[test]
fn alias_bombs_are_refused_quickly() {
    let started = std::time::Instant::now();
    let mut doubling = "a0: &a0 [x, x]\n".to_owned();
    for level in 1..60 {
        doubling.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
    }
    for key in ["streams:\n", "ffmpeg:\n"] {
        let indented: String = doubling.lines().map(|line| format!("  {line}\n")).collect();
        let _ = parse(&format!("{key}{indented}"), &env);
    }
    let mut shared = format!("streams:\n  s: &s [{}]\n", vec!["x".repeat(4000); 16].join(", "));
    for stream in 0..9_000 {
        shared.push_str(&format!("  s{stream}: *s\n"));
    }
    assert!(refused(&shared).message.contains("add up to"), "{}", refused(&shared));
    let mut expanding = "streams:\n".to_owned();
    for stream in 0..9_000 {
        expanding.push_str(&format!("  s{stream}: ${{BIG}}\n"));
    }
    assert!(refused(&expanding).message.contains("add up to"));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn deep_and_broken_yaml_ends_in_an_error() {
    for text in [
        "[".repeat(200_000),
        "{".repeat(200_000),
        "- ".repeat(20_000),
        "streams: ".repeat(1000),
        "&a [*a]".to_owned(),
        "streams: &a {a: *a}".to_owned(),
        "*a".to_owned(),
        "\0".to_owned(),
        "\u{feff}".to_owned() + "nonsense: 1",
        "? [a]\n: b".to_owned(),
        "a: b\n---\nc: d\n".to_owned(),
        "streams: !!binary aGk=\n".to_owned(),
        "\t".to_owned(),
    ] {
        let shown: String = text.chars().take(20).collect();
        let error = parse(&text, &env).expect_err(&shown);
        assert!(!error.message.is_empty(), "{shown}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_gives_a_configuration_or_an_error(text in "[a-z\\[\\]{}:,&*!'\"\\-#$|> \n\u{e9}]{0,200}") {
        let _ = parse(&text, &env);
    }

    #[test]
    fn any_stream_text_gives_a_configuration_or_an_error(text in "streams:\n( {1,2}[a-c]: [a-z\\[\\]{}:,&*!$ ]{0,20}\n){0,8}") {
        let _ = parse(&text, &env);
    }
}
