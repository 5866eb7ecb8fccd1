//! The configuration is applied while viewers watch: over `/api/config`, from the edited file, by SIGHUP.

mod common;
mod watching;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Streamgate, eventually, get, get_json, patch, post, put, request};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use watching::{offer, watch};
use webrtc_client::ViewerOptions;

const DEADLINE: Duration = Duration::from_secs(15);
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

const TEXT: &str = "\
# keep: rtsp://old:hunter2@127.0.0.1:9/old
streams:
  cam: 'demo:'   # watched
  door: \"rtsp://user:hunter2@127.0.0.1:9/door\"
webrtc:
  ice_servers:
    - {urls: ['turn:t.example.org'], username: u, credential: hunter2}
";

fn read(streamgate: &Streamgate) -> String {
    std::fs::read_to_string(streamgate.folder().join("streamgate.yaml")).unwrap()
}

fn write(streamgate: &Streamgate, text: &str) {
    std::fs::write(streamgate.folder().join("streamgate.yaml"), text).unwrap();
}

async fn has_stream(streamgate: &Streamgate, name: &str) -> bool {
    get(&streamgate.url(&format!("/api/streams/{name}"))).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_of_unchanged_streams_keep_watching_through_every_kind_of_change() {
    let streamgate = Streamgate::with_config(TEXT);
    let viewer = watch(&streamgate, "cam", ViewerOptions::default()).await;
    let more = async |what: &str| {
        let before = viewer.video().len();
        eventually(what, DEADLINE, async || viewer.video().len() > before + 20).await;
        assert!(!viewer.is_closed() && !viewer.is_gone(), "{what}");
    };
    more("the first pictures").await;
    let replaced = post(&streamgate.url("/api/config"), YAML, TEXT.replace("/door", "/gate")).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    assert_eq!(replaced.json()["changed"], json!(["door"]));
    more("pictures after POST").await;
    let merged =
        patch(&streamgate.url("/api/config"), JSON, r#"{"streams": {"new": "rtsp://127.0.0.1:9/n"}}"#).await;
    assert_eq!((merged.status, &merged.json()["created"]), (200, &json!(["new"])));
    more("pictures after PATCH").await;
    // By hand: another stream, and the watched one's comment.
    write(
        &streamgate,
        &TEXT
            .replace("# watched", "# still watched")
            .replace("  door:", "  hand: rtsp://127.0.0.1:9/h\n  door:"),
    );
    eventually("the edited file is applied", DEADLINE, async || has_stream(&streamgate, "hand").await).await;
    assert!(!has_stream(&streamgate, "new").await, "what is not in the file has ended");
    more("pictures after the edit by hand").await;
    // How long the watched stream's source runs, and all that is no stream.
    let options = json!({"linger": "1m", "on_demand": false}).to_string();
    assert_eq!(patch(&streamgate.url("/api/streams/cam"), JSON, options).await.status, 200);
    let cam = get_json(&streamgate.url("/api/streams/cam")).await;
    assert_eq!(
        (&cam["linger"], &cam["on_demand"], &cam["viewers"]),
        (&json!("60s"), &json!(false), &json!(1))
    );
    more("pictures after other options").await;
    let settings = "\
        hls: {part: 500ms}\nlog: {level: warn}\napi: {origin: '*'}\n\
        webrtc: {candidates: ['192.0.2.1:7'], filters: {networks: [udp4]}, ice_servers: null}\n";
    assert_eq!(patch(&streamgate.url("/api/config"), YAML, settings).await.status, 200);
    more("pictures after other settings").await;
    // Whoever watches a stream that is removed is ended.
    write(&streamgate, "streams: {other: 'rtsp://127.0.0.1:9/o'}\n");
    eventually("the viewer is ended", DEADLINE, async || viewer.is_closed() || viewer.is_gone()).await;
}

#[tokio::test]
async fn a_broken_file_is_refused_with_place_and_allowed_values_and_the_old_one_goes_on() {
    let streamgate = Streamgate::with_config(TEXT);
    write(&streamgate, &TEXT.replace("webrtc:", "log:\n  level: loud\nwebrtc:").replace("  door", "  other"));
    eventually("it is refused", DEADLINE, async || streamgate.log().contains("goes on")).await;
    let log = streamgate.log();
    for part in ["streamgate.yaml:6:10", "log.level", "loud", "trace, debug, info, warn, error or off"] {
        assert!(log.contains(part), "{part}");
    }
    assert!(has_stream(&streamgate, "door").await && !has_stream(&streamgate, "other").await);
    let shown = get(&streamgate.url("/api/config")).await;
    assert!(shown.header("streamgate-note").contains(":6:10"), "{:?}", shown.headers);
    assert!(shown.text().contains("door"), "the one in effect is shown");
    // Nothing can be edited in it, and the answer says where the mistake is.
    let edit = put(&streamgate.url("/api/streams?name=x&src=rtsp://127.0.0.1:9/x"), "", "").await;
    assert_eq!(edit.status, 409, "{}", edit.text());
    assert!(edit.text().contains(":6:10") || edit.text().contains("6:10"), "{}", edit.text());
    assert!(!has_stream(&streamgate, "x").await);
    // A source that can't be one is a mistake at its place, too.
    write(&streamgate, "streams:\n  cam: 'demo:'\n  bad: nonsense://x\n");
    eventually("it is refused", DEADLINE, async || {
        streamgate.log().contains("streamgate.yaml:3:8: streams.bad")
    })
    .await;
    write(&streamgate, TEXT);
    eventually("the note goes", DEADLINE, async || {
        get(&streamgate.url("/api/config")).await.header("streamgate-note").is_empty()
    })
    .await;
    assert_eq!(streamgate.log().matches("goes on").count(), 2, "each mistake is told once");
}

#[tokio::test]
async fn sighup_reads_the_file_and_own_edits_are_not_read_again() {
    let streamgate = Streamgate::with_config(TEXT);
    assert_eq!(
        put(&streamgate.url("/api/streams?name=x&src=rtsp://127.0.0.1:9/x"), "", "").await.status,
        200
    );
    let hand =
        format!("{}# more\n", read(&streamgate).replace("  door:", "  hup: rtsp://127.0.0.1:9/h\n  door:"));
    write(&streamgate, &hand);
    streamgate.signal("HUP");
    eventually("it is applied", DEADLINE, async || has_stream(&streamgate, "hup").await).await;
    // An edit after an edit by hand keeps both.
    assert_eq!(
        put(&streamgate.url("/api/streams?name=late&src=rtsp://127.0.0.1:9/y"), "", "").await.status,
        200
    );
    assert!(
        read(&streamgate).contains("hup:") && read(&streamgate).contains("late: rtsp"),
        "{}",
        read(&streamgate)
    );
    let before = streamgate.log().matches("read again").count();
    streamgate.signal("HUP");
    eventually("SIGHUP is answered", DEADLINE, async || streamgate.log().contains("nothing new")).await;
    assert_eq!(before, 1, "only what was edited by hand: {}", streamgate.log());
    assert_eq!(streamgate.log().matches("read again").count(), before);
}

#[tokio::test]
async fn the_configuration_is_shown_without_secrets_and_comes_back_with_them() {
    let streamgate = Streamgate::with_config(TEXT);
    let url = streamgate.url("/api/config");
    let shown = get(&url).await;
    assert_eq!((shown.status, shown.header("content-type")), (200, "application/yaml"));
    assert!(!shown.text().contains("hunter2"), "{}", shown.text());
    assert!(shown.text().contains("# watched") && shown.text().contains("rtsp://***@127.0.0.1:9/door"));
    // Edited around its secrets, it comes back whole, comments included.
    let edited = shown.text().replace("# watched", "# seen");
    assert_eq!(post(&url, YAML, edited.clone()).await.status, 200);
    assert_eq!(read(&streamgate), TEXT.replace("# watched", "# seen"));
    assert_eq!(get_json(&streamgate.url("/api/ice")).await["ice_servers"][0]["credential"], "hunter2");
    // A placeholder for another address is refused where it is.
    let refused = post(&url, YAML, edited.replace("@127.0.0.1:9/door", "@10.0.0.1/door")).await;
    let json = refused.json();
    assert_eq!((refused.status, &json["line"], &json["column"]), (422, &json!(4), &json!(9)), "{json}");
    assert!(json["detail"].as_str().unwrap().contains("***"));
    // Somebody else was faster.
    let stale = request("POST", &url, &[("if-match", shown.header("etag"))], "streams: {}\n").await;
    assert_eq!(stale.status, 412, "{}", stale.text());
    let current = get(&url).await.header("etag").to_owned();
    let fresh = request("POST", &url, &[("if-match", &current)], edited).await;
    assert_eq!(fresh.status, 200, "{}", fresh.text());
}

#[tokio::test]
async fn changes_of_the_whole_are_checked_first_and_name_what_needs_a_restart() {
    let streamgate = Streamgate::with_config(TEXT);
    let url = streamgate.url("/api/config");
    for (method, body, line, column, key, allowed) in [
        ("POST", "log:\n  level: loud\n", 2, 10, "log.level", "trace, debug, info, warn, error or off"),
        ("POST", "strems: {}\n", 1, 1, "", "api, webrtc, hls, rtsp, streams, publish, preload, log"),
        ("POST", "streams:\n  a: nonsense://x\n", 2, 6, "streams.a", ""),
        ("PATCH", "log: {levl: debug}\n", 0, 0, "", "level"),
        ("PATCH", "streams: {cam: {sources: []}}\n", 0, 0, "streams.cam", "source URL"),
    ] {
        let reply = request(method, &url, &[("content-type", YAML)], body).await;
        let json = reply.json();
        assert_eq!(reply.status, 422, "{body}: {json}");
        if line > 0 {
            assert_eq!((&json["line"], &json["column"]), (&json!(line), &json!(column)), "{json}");
        }
        assert!(json["key"].as_str().unwrap().contains(key), "{json}");
        assert!(json["allowed"].as_str().unwrap().contains(allowed), "{json}");
        assert_eq!(read(&streamgate), TEXT);
    }
    let reply = patch(
        &url,
        YAML,
        "api: {origin: '*'}\nlog: {level: debug}\nwebrtc: {ice_servers: [{urls: 'stun:s'}]}\n",
    )
    .await;
    assert_eq!((reply.status, &reply.json()["restart_required"]), (200, &json!([])), "{}", reply.text());
    assert_eq!(get_json(&streamgate.url("/api/ice")).await["ice_servers"][0]["urls"], json!(["stun:s"]));
    assert!(read(&streamgate).starts_with(TEXT.split("webrtc").next().unwrap()), "{}", read(&streamgate));
    assert_eq!(patch(&url, JSON, "no json").await.status, 400);
    for headers in [
        &[("origin", "http://evil.example")][..],
        &[("x-forwarded-for", "1.2.3.4")],
        &[("host", "evil.example")],
    ] {
        for method in ["GET", "POST", "PATCH"] {
            assert_eq!(request(method, &url, headers, "").await.status, 403, "{method} {headers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_in_effect_for_whoever_comes_next() {
    let streamgate = Streamgate::with_config("streams: {a: 'demo:', b: 'demo:'}\n");
    let change = async |body: &str| {
        let reply = patch(&streamgate.url("/api/config"), YAML, body).await;
        assert_eq!((reply.status, &reply.json()["restart_required"]), (200, &json!([])), "{}", reply.text());
    };
    let sdp = async || offer(&streamgate, "a", ViewerOptions::default()).await.1.text();
    assert!(sdp().await.contains(" tcp ") && !sdp().await.contains("192.0.2.1"));
    change("webrtc: {candidates: ['192.0.2.1:7'], filters: {networks: [udp4]}}").await;
    let answer = sdp().await;
    assert!(answer.contains(" 192.0.2.1 7 ") && !answer.contains(" tcp "), "{answer}");

    let origin = async || {
        let reply = get(&streamgate.url("/api/streams")).await;
        reply.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(origin().await, "");
    change("api: {origin: '*'}").await;
    assert_eq!(origin().await, "*");

    // A playlist that is being played keeps its lengths.
    let media = async |name: &str| {
        let reply = get(&streamgate.url(&format!("/hls/{name}/index.m3u8"))).await;
        let path = reply.text().lines().last().unwrap().to_owned();
        streamgate.url(&format!("/hls/{name}/{path}"))
    };
    let part = async |url: &str| {
        let text = get(url).await.text();
        let line = text.lines().find(|line| line.starts_with("#EXT-X-PART-INF")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{text}"))
    };
    let running = media("a").await;
    let before = part(&running).await;
    change("hls: {part: 500ms}").await;
    let new = media("b").await;
    assert_eq!((part(&running).await, media("a").await), (before.clone(), running));
    assert_ne!(part(&new).await, before);
    assert!(part(&new).await.contains("=0.5"), "{}", part(&new).await);

    assert!(!streamgate.log().contains("DEBUG"));
    change("log: {level: warn, server: debug}").await;
    let refused = request("GET", &streamgate.url("/api/config"), &[("host", "evil.example")], "").await;
    assert_eq!(refused.status, 403);
    eventually("the module's level counts", DEADLINE, async || streamgate.log().contains("DEBUG")).await;
    change("log: {level: info, format: json}").await;
    eventually("lines are JSON", DEADLINE, async || {
        let log = streamgate.log();
        let last = log.lines().last().unwrap();
        serde_json::from_str::<serde_json::Value>(last).is_ok_and(|line| line["level"] == "INFO")
    })
    .await;
    // Another port needs a restart; a flag beats the file here, so nothing has changed.
    change("api: {listen: ':1'}").await;
}

/// A certificate for `localhost` and its key.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// Whether the server proves that it has this certificate.
async fn has_certificate(streamgate: &Streamgate, cert: &str) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", streamgate.port)).await.unwrap();
    let handshake = connector.connect("localhost".try_into().unwrap(), stream);
    tokio::time::timeout(DEADLINE, handshake).await.expect("an answer in time").is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_at_once_and_a_bad_one_never() {
    let streamgate = Streamgate::with_config(TEXT);
    let url = streamgate.url("/api/config");
    let viewer = watch(&streamgate, "cam", ViewerOptions::default()).await;
    let (cert, key) = certificate();
    let files = |cert: &str, key: &str| {
        std::fs::write(streamgate.folder().join("cert.pem"), cert).unwrap();
        std::fs::write(streamgate.folder().join("key.pem"), key).unwrap();
    };
    // Not there yet: the file that names them waits until they are.
    let named = format!("api:\n  tls_cert: cert.pem\n  tls_key: key.pem\n{TEXT}");
    let refused = post(&url, YAML, named.clone()).await;
    let json = refused.json();
    assert_eq!(
        (refused.status, &json["line"], &json["key"]),
        (422, &json!(2), &json!("api.tls_cert")),
        "{json}"
    );
    assert!(json["detail"].as_str().unwrap().contains("cannot be read"), "{json}");
    assert!(!has_certificate(&streamgate, &cert).await);
    write(&streamgate, &named);
    eventually("it is refused", DEADLINE, async || streamgate.log().contains("streamgate.yaml:2:13")).await;
    files(&cert, &key);
    eventually("HTTPS is spoken", DEADLINE, async || has_certificate(&streamgate, &cert).await).await;
    let status = get_json(&streamgate.url("/api")).await;
    assert!(status["listeners"][0]["protocols"].as_array().unwrap().contains(&json!("https")), "{status}");

    // Renewed on the disk; half of it at first.
    let (renewed, renewed_key) = certificate();
    files(&renewed, &key);
    eventually("the pair is refused", DEADLINE, async || {
        streamgate.log().contains("the certificate in use stays")
    })
    .await;
    assert!(has_certificate(&streamgate, &cert).await);
    let edit = put(&streamgate.url("/api/streams?name=x&src=rtsp://127.0.0.1:9/x"), "", "").await;
    assert_eq!(edit.status, 200, "streams change all the same: {}", edit.text());
    files(&renewed, &renewed_key);
    streamgate.signal("HUP");
    eventually("the new one is used", DEADLINE, async || has_certificate(&streamgate, &renewed).await).await;
    assert!(!has_certificate(&streamgate, &cert).await);
    assert_eq!(patch(&url, JSON, r#"{"api": {"tls_cert": null, "tls_key": null}}"#).await.status, 200);
    assert!(!has_certificate(&streamgate, &renewed).await);

    let before = viewer.video().len();
    eventually("the viewer watches on", DEADLINE, async || viewer.video().len() > before + 20).await;
    assert_eq!(streamgate.log().matches("in use stays").count(), 1, "each mistake is told once");
}
