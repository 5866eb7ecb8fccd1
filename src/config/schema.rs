//! The JSON Schema of the configuration, for editors that complete and check YAML as it is written.

use super::load::Reader;
use super::model::{Filters, IceServer, Log, Pacing, StreamConfig};
use super::sections::{ApiReader, RtspReader, WebrtcReader};
use super::seeds::Section;
use serde_json::{Map, Value, json};

/// The schema (draft 7, which the usual editors know). Its keys come from the readers of the sections.
pub fn schema() -> Value {
    let text = |says: &str| json!({"type": "string", "description": says});
    let list =
        |says: &str, item: Value| json!({"type": ["array", "null"], "items": item, "description": says});
    // `yes` and `${VAR}` are texts to YAML.
    let flag = |says: &str| json!({"type": ["boolean", "string", "null"], "description": says});
    let listen = json!({"type": ["string", "null"], "pattern": r"(:[0-9]{1,5}$)|\$\{|^$", "default": ":1984", "description": "the one port, TCP and UDP: \":1984\", \"127.0.0.1:1984\", \"[::1]:1984\", \"localhost:1984\""});
    let level = json!({"enum": ["trace", "debug", "info", "warn", "error", "off", "fatal", "panic", "disabled", null]});
    let source =
        json!({"type": "string", "minLength": 1, "examples": ["rtsp://user:password@192.168.1.10/stream1"]});
    let sources = json!({"anyOf": [source, {"type": "array", "items": source, "minItems": 1, "maxItems": StreamConfig::MAX_SOURCES}], "description": "one URL or a list, best first"});

    let stream = section::<StreamConfig>(|key| match key {
        "sources" => sources.clone(),
        "on_demand" => flag("false keeps the source running without viewers; default true"),
        "linger" => {
            json!({"type": ["string", "null"], "default": "10s", "description": "how long an on-demand source goes on after the last viewer left: 500ms, 10s, 1m"})
        }
        _ => flag("false leaves the sound out; default true"),
    });
    let filters = section::<Filters>(|key| match key {
        "candidates" => list("the only discovered addresses that are offered", text("an address")),
        "interfaces" => list("the only network interfaces whose addresses are offered", text("a name")),
        "ips" => list("the only addresses of this machine that are offered", text("an IP address")),
        "loopback" => flag("offer 127.0.0.1 and ::1"),
        _ => list("the only networks", json!({"enum": ["udp4", "udp6", "tcp4", "tcp6"]})),
    });
    let amount = |description: &str, default: &str| json!({"type": ["string", "integer", "null"], "default": default, "description": description});
    let pacing = section::<Pacing>(|key| match key {
        "burst" => amount("bytes that a viewer is sent at once, e.g. 32k", "32k"),
        _ => amount("bits a second after that, e.g. 50M", "50M"),
    });
    let ice_server = section::<IceServer>(|key| match key {
        "urls" => {
            json!({"anyOf": [text("stun:host:port or turn:host:port"), {"type": "array", "items": {"type": "string"}}]})
        }
        "username" => json!({"type": ["string", "number", "null"]}),
        _ => json!({"type": ["string", "number", "null"], "description": "the password"}),
    });
    let api = section::<ApiReader>(|key| match key {
        "listen" | "tls_listen" => listen.clone(),
        "origin" => {
            json!({"enum": ["*", "", null], "description": "\"*\": pages on other sites may read and watch"})
        }
        "tls_cert" => text("certificate chain: PEM text or the path of a PEM file"),
        _ => text("private key: PEM text or the path of a PEM file"),
    });
    let webrtc = section::<WebrtcReader>(|key| match key {
        "listen" => {
            json!({"type": ["string", "null"], "description": "media is at api.listen; accepted so that go2rtc's files load"})
        }
        "candidates" => list(
            "more addresses for viewers: 1.2.3.4:1984, home.example.org:1984, stun:1984",
            text("an address with a port"),
        ),
        "ice_servers" => list("what players are told to use", ice_server.clone()),
        "pacing" => nullable(pacing.clone()),
        _ => nullable(filters.clone()),
    });
    let rtsp = section::<RtspReader>(|key| match key {
        "listen" => {
            json!({"type": ["string", "null"], "pattern": r"(:[0-9]{1,5}$)|\$\{|^$", "examples": [":8554"], "description": "RTSP is served at api.listen; this is one more port for it"})
        }
        "udp_ports" => {
            json!({"type": ["string", "null"], "examples": ["50000-50001"], "description": "UDP ports for media; default: the system chooses two"})
        }
        "username" => {
            json!({"type": ["string", "number", "null"], "description": "what players must log in with"})
        }
        _ => json!({"type": ["string", "number", "null"]}),
    });
    let log = section::<Log>(|key| match key {
        "format" => json!({"enum": ["auto", "color", "text", "json", "", null]}),
        _ => level.clone(),
    });
    let mut root = section::<Reader>(|key| match key {
        "api" => nullable(api.clone()),
        "webrtc" => nullable(webrtc.clone()),
        "rtsp" => nullable(rtsp.clone()),
        "streams" => json!({
            "type": ["object", "null"],
            "description": "names and sources",
            "additionalProperties": {"anyOf": [
                source, {"type": "array", "items": source, "minItems": 1}, stream, {"type": "null"},
            ]},
        }),
        "publish" => json!({
            "type": ["object", "null"],
            "description": "for each stream the URLs of servers that it is published to: rtsp://server/name, rtsps:// by TLS, rtspx:// by TLS with any certificate",
            "additionalProperties": {"anyOf": [
                text("a URL"), {"type": "array", "items": {"type": "string"}}, {"type": "null"},
            ]},
        }),
        "preload" => json!({
            "type": ["object", "null"],
            "description": "streams that are kept warm, and which of their tracks",
            "additionalProperties": {"type": ["string", "null"], "default": "video&audio", "examples": ["video&audio", "video", "video=h264&audio=opus"]},
        }),
        _ => nullable(log.clone()),
    });
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("Streamgate's configuration");
    root
}

/// A mapping with exactly the keys that its reader takes.
fn section<S: Section>(describe: impl Fn(&str) -> Value) -> Value {
    let mut properties = Map::new();
    for key in S::KEYS {
        properties.insert((*key).to_owned(), describe(key));
    }
    for key in S::IGNORED {
        properties.insert((*key).to_owned(), json!({"description": "go2rtc's; accepted without effect"}));
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn nullable(mut section: Value) -> Value {
    section["type"] = json!(["object", "null"]);
    section
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    /// The keys of the schema at that place.
    fn keys(schema: &Value) -> Vec<&str> {
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_loader_takes_every_key_of_the_schema_and_refuses_others() {
        let schema = schema();
        let at = |section: &str| &schema["properties"][section];
        let known = |yaml: &str| {
            let unknown = parse(yaml, &|_| None).err().filter(|error| error.message.contains("unknown key"));
            unknown.is_none()
        };
        assert!(keys(&schema).into_iter().all(|key| known(&format!("{key}:\n"))));
        for section in ["api", "webrtc", "rtsp", "log"] {
            assert!(keys(at(section)).len() >= 4);
            for key in keys(at(section)) {
                assert!(known(&format!("{section}: {{{key}: }}")), "{section}.{key}");
            }
            assert!(!known(&format!("{section}: {{nonsense: }}")));
            assert_eq!(at(section)["additionalProperties"], false);
        }
        let filters = &at("webrtc")["properties"]["filters"];
        assert!(keys(filters).into_iter().all(|key| known(&format!("webrtc: {{filters: {{{key}: }}}}"))));
        let pacing = &at("webrtc")["properties"]["pacing"];
        assert!(keys(pacing).into_iter().all(|key| known(&format!("webrtc: {{pacing: {{{key}: }}}}"))));
        let ice = &at("webrtc")["properties"]["ice_servers"]["items"];
        assert!(keys(ice).into_iter().all(|key| known(&format!("webrtc: {{ice_servers: [{{{key}: }}]}}"))));
        let stream = &at("streams")["additionalProperties"]["anyOf"][2];
        assert!(keys(stream).into_iter().all(|key| known(&format!("streams: {{a: {{{key}: }}}}"))));
    }

    #[test]
    fn every_allowed_word_of_the_schema_is_allowed() {
        let schema = schema();
        let log = &schema["properties"]["log"]["properties"];
        for (key, words) in [
            ("level", &log["level"]["enum"]),
            ("format", &log["format"]["enum"]),
            ("api", &log["api"]["enum"]),
        ] {
            for word in words.as_array().unwrap() {
                parse(&format!("log: {{{key}: {word}}}"), &|_| None).unwrap();
            }
        }
    }

    #[test]
    fn the_schema_in_the_documentation_is_this_one() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config.schema.json");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == format!("{:#}\n", schema()), "run: streamgate schema > docs/config.schema.json");
    }
}
