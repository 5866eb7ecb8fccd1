//! Streams that are published to another server: GStreamer's, which records them.

mod common;
mod rtsp_support;

use common::{
    Authority, Camera, Clip, Streamgate, annexb_nals, delete, eventually, eventually_some, request,
};
use rcgen::{Certificate, KeyPair};
use rtsp_support::{SOON, consumers};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The state and the last error of the one publication of a stream.
async fn state(streamgate: &Streamgate, stream: &str) -> Option<(String, Value)> {
    let listed = consumers(streamgate, stream).await;
    let [one] = listed.as_slice() else { return None };
    Some((one["state"].as_str()?.to_owned(), one["last_error"].clone()))
}

async fn becomes(streamgate: &Streamgate, stream: &str, wanted: &str) -> Value {
    eventually_some(&format!("{stream} is {wanted}"), SOON, async || {
        state(streamgate, stream).await.filter(|(state, _)| state == wanted).map(|(_, error)| error)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_stream_is_recorded_byte_for_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("recorded.264");
    let recorder = Camera::start_protected("digest:user:s3cret", &format!("record={}", file.display()));
    let camera = Camera::start("clip=h264_main_g60,once=yes");
    let target = recorder.url_as("user:s3cret");
    let streamgate = Streamgate::with_config(&format!(
        "streams: {{clip: '{}'}}\npublish: {{clip: '{target}'}}\n",
        camera.url
    ));
    becomes(&streamgate, "clip", "live").await;
    let listed = consumers(&streamgate, "clip").await;
    let url = listed[0]["url"].as_str().expect("its URL");
    assert!(url.contains("***@127.0.0.1") && !url.contains("s3cret"), "{url}");

    let pictures = |nals: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
        nals.into_iter().filter(|nal| nal.first().is_some_and(|first| !matches!(first & 31, 7..=9))).collect()
    };
    let sent = pictures(Clip::named("h264_main_g60").nals());
    // The last NAL unit in the file may be cut.
    let enough = sent.len() - 4;
    let recorded = eventually_some("the clip is recorded", SOON, async || {
        let recorded = pictures(annexb_nals(&std::fs::read(&file).unwrap_or_default()));
        (recorded.len() > enough).then_some(recorded)
    })
    .await;
    for (index, (recorded, sent)) in recorded[..enough].iter().zip(&sent).enumerate() {
        assert!(recorded == sent, "NAL unit {index}");
    }
    assert!(!streamgate.log().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_retried_and_can_be_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = format!("record={},audio=pcmu", folder.path().join("recorded.264").display());
    let mut recorder = Camera::start(&spec);
    let camera = Camera::start("video=h264,gop=25,audio=pcmu");
    let streamgate = Streamgate::with_streams(&[("cam", &camera.url)]);
    let api = |query: &str| streamgate.url(&format!("/api/streams?src=cam&dst={query}"));
    let encoded = recorder.url.replace(':', "%3A").replace('/', "%2F");
    for (target, status) in [("rtmp%3A%2F%2Fh%2Fapp%2Fkey", 400), ("nonsense", 400), (encoded.as_str(), 200)]
    {
        let reply = request("POST", &api(target), &[], "").await;
        assert_eq!(reply.status, status, "{target}: {}", reply.text());
        assert!(status == 200 || !reply.text().contains("key"));
    }
    assert_eq!(becomes(&streamgate, "cam", "live").await, Value::Null);
    let sent = || async { consumers(&streamgate, "cam").await[0]["packets"].as_u64().unwrap_or(0) };
    eventually("media is sent", SOON, async || sent().await > 50).await;

    recorder.kill();
    let why = becomes(&streamgate, "cam", "retrying").await;
    assert!(why.is_string(), "{why}");
    recorder.restart();
    assert_eq!(becomes(&streamgate, "cam", "live").await, Value::Null);

    assert_eq!(delete(&api(&encoded)).await.status, 200);
    eventually("it is not listed any more", SOON, async || consumers(&streamgate, "cam").await.is_empty())
        .await;
    assert_eq!(delete(&api(&encoded)).await.status, 404);
    eventually("the recorder is left", SOON, async || recorder.clients() == 0).await;
}

/// Streamgate publishing its demo camera, and trusting this authority.
fn publishing(authority: &Authority, targets: &[&str]) -> Streamgate {
    let list: String = targets.iter().map(|target| format!("    - {target}\n")).collect();
    let yaml = format!("streams: {{cam: 'demo:'}}\npublish:\n  cam:\n{list}");
    Streamgate::with_config_and(&yaml, &authority.trusted())
}

/// The consumer that is this target's, once it is in this state.
async fn target(streamgate: &Streamgate, shown: &str, wanted: &str) -> Value {
    eventually_some(&format!("{shown} is {wanted}"), SOON, async || {
        let listed = consumers(streamgate, "cam").await;
        listed
            .into_iter()
            .find(|one| one["url"].as_str().is_some_and(|url| url.ends_with(shown)) && one["state"] == wanted)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_server_with_a_good_certificate_is_published_to() {
    let authority = Authority::new();
    let specs = ["checked", "any"].map(|name| {
        (
            format!("/{name}"),
            format!("record={},audio=opus", authority.file(&format!("{name}.264")).display()),
        )
    });
    let mounts = specs.each_ref().map(|(path, spec)| (path.as_str(), spec.as_str()));
    let mut recorder = Camera::start_secure(&mounts, "digest:user:s3cret", authority.files());
    let checked = recorder.url_as("user:s3cret");
    let address = checked.replace("localhost", "127.0.0.1");
    let any = format!("rtspx://user:s3cret@127.0.0.1:{}/any", recorder.port);
    let streamgate = publishing(&authority, &[&checked, &any, &address]);

    let port = recorder.port;
    let [shown_checked, shown_any] = [
        format!("rtsps://***:***@localhost:{port}/checked"),
        format!("rtspx://***:***@127.0.0.1:{port}/any"),
    ];
    for shown in [&shown_checked, &shown_any] {
        assert_eq!(target(&streamgate, shown, "live").await["last_error"], Value::Null);
    }
    for name in ["checked.264", "any.264"] {
        eventually("it is recorded", SOON, async || {
            annexb_nals(&std::fs::read(authority.file(name)).unwrap_or_default()).len() > 30
        })
        .await;
    }
    // The certificate is for the name. An address is checked just the same.
    let refused = target(&streamgate, &format!("@127.0.0.1:{port}/checked"), "retrying").await;
    let why = refused["last_error"].as_str().expect("an error");
    assert!(why.contains("is for localhost, not for 127.0.0.1") && why.contains("rtspx://"), "{why}");

    recorder.kill();
    target(&streamgate, &shown_checked, "retrying").await;
    recorder.restart();
    target(&streamgate, &shown_checked, "live").await;
    target(&streamgate, &shown_any, "live").await;
    for url in [&checked, &any] {
        let encoded = url.replace(':', "%3A").replace('/', "%2F").replace('@', "%40");
        assert_eq!(delete(&streamgate.url(&format!("/api/streams?src=cam&dst={encoded}"))).await.status, 200);
    }
    eventually("the recorder is left", SOON, async || recorder.clients() == 0).await;
    let listed = Value::from(consumers(&streamgate, "cam").await).to_string();
    assert!(!listed.contains("s3cret") && !streamgate.log().contains("s3cret"));
}

/// What a server does with those who connect.
enum Conduct {
    Tls(Certificate, KeyPair),
    /// It says this at once.
    Plain(&'static str),
    Closes,
    SaysNothing,
}

/// A server for one case: its port, and the bytes and the connections that it got.
async fn server(conduct: Conduct) -> (u16, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (told.clone(), connections.clone());
    let acceptor = match &conduct {
        Conduct::Tls(certificate, key) => {
            let made = streamgate::server::tls::server_config(&certificate.pem(), &key.serialize_pem());
            Some(TlsAcceptor::from(made.unwrap()))
        }
        _ => None,
    };
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.fetch_add(1, Relaxed);
            match &conduct {
                Conduct::Tls(..) => {
                    let handshake = acceptor.as_ref().unwrap().accept(stream).await;
                    if let Ok(mut stream) = handshake {
                        let got = stream.read(&mut [0; 1000]).await.unwrap_or(0);
                        told.fetch_add(got, Relaxed);
                    }
                }
                Conduct::Plain(words) => stream.write_all(words.as_bytes()).await.unwrap_or(()),
                Conduct::Closes => {}
                Conduct::SaysNothing => silent.push(stream),
            }
        }
    });
    (port, counted.0, counted.1)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_server_that_proves_nothing_is_told_nothing() {
    let authority = Authority::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let self_signed = Conduct::Tls(made.cert, made.signing_key);
    let (certificate, key) = authority.certificate(|params| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let expired = Conduct::Tls(certificate, key);
    let (certificate, key) =
        authority.certificate(|params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    let early = Conduct::Tls(certificate, key);
    let (certificate, key) = authority
        .certificate(|params| params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let authoritative = Conduct::Tls(certificate, key);
    let no_tls = Conduct::Plain("RTSP/1.0 400 Bad Request\r\nCSeq: 0\r\n\r\n");
    let cases = [
        (
            self_signed,
            "is not trusted: no authority that is trusted here has signed it (SSL_CERT_FILE ",
            true,
        ),
        (expired, "has expired ", true),
        (early, "is not valid for another ", true),
        (authoritative, "basicConstraints=CA:FALSE", true),
        (no_tls, "doesn't speak TLS: is it rtsp://", false),
        (Conduct::Closes, "it closed the connection during the handshake", false),
        (Conduct::SaysNothing, "doesn't answer: no TLS handshake in 1 s", false),
    ];
    let mut servers = Vec::new();
    for (conduct, expected, is_certificate) in cases {
        servers.push((server(conduct).await, expected, is_certificate));
    }
    let targets: Vec<String> = servers
        .iter()
        .map(|((port, ..), ..)| format!("rtsps://user:s3cret@localhost:{port}/x#timeout=1"))
        .collect();
    let streamgate = publishing(&authority, &targets.iter().map(String::as_str).collect::<Vec<_>>());
    for ((port, told, connections), expected, is_certificate) in &servers {
        let shown = format!("@localhost:{port}/x#timeout=1");
        let refused = target(&streamgate, &shown, "retrying").await;
        let why = refused["last_error"].as_str().expect("an error");
        assert!(why.contains(expected) && why.contains(&format!("localhost:{port}")), "{why}");
        assert_eq!(why.contains("rtspx://"), *is_certificate, "{why}");
        eventually("it is tried again", SOON, async || connections.load(Relaxed) > 1).await;
        assert_eq!(told.load(Relaxed), 0, "{expected}");
    }
    let listed = Value::from(consumers(&streamgate, "cam").await).to_string();
    assert!(!listed.contains("s3cret") && !streamgate.log().contains("s3cret"));

    let (port, ..) = server(Conduct::SaysNothing).await;
    let yaml = format!("streams: {{cam: 'demo:'}}\npublish: {{cam: 'rtsps://localhost:{port}/x'}}\n");
    let trusting_nobody = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|name| (name, "/no/such/file".to_owned()));
    let streamgate = Streamgate::with_config_and(&yaml, &trusting_nobody);
    let why = becomes(&streamgate, "cam", "retrying").await;
    let why = why.as_str().expect("an error");
    assert!(
        why.contains("no authority's certificate is trusted here") && why.contains("/no/such/file"),
        "{why}"
    );
}
