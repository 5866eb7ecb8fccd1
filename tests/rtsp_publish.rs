//! Streams that are published to another server: GStreamer's, which records them.

mod common;
mod rtsp_support;

use common::{Camera, Clip, Streamgate, annexb_nals, delete, eventually, eventually_some, request};
use rtsp_support::{SOON, consumers};
use serde_json::Value;

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
