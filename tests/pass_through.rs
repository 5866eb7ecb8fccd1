//! What a viewer decrypts is what the camera sent: NAL units byte for byte, through the whole program.

mod common;
mod watching;
#[path = "common/webrtc_client.rs"]
mod webrtc_client;

use common::{Authority, Camera, Clip, Streamgate, eventually};
use std::time::Duration;
use watching::watch;
use webrtc_client::{Transport, ViewerOptions};

/// The camera plays the clip once, from its first frame, to the first client: the viewer's lease is what dials it.
async fn plays_exactly(clip: &'static str, codec: &'static str, transport: Transport) {
    let camera = Camera::start(&format!("clip={clip},once=yes"));
    plays_exactly_at(&camera.url, clip, codec, transport).await;
}

async fn plays_exactly_at(url: &str, clip: &'static str, codec: &'static str, transport: Transport) {
    let streamgate = Streamgate::with_streams(&[("clip", url)]);
    let options = ViewerOptions { transport, video: vec![codec], ..ViewerOptions::default() };
    let viewer = watch(&streamgate, "clip", options).await;
    let h265 = codec == "H265";
    let sent = Clip::named(clip).nals();
    // The camera stops after the clip, so its last unit is the last that can come.
    eventually("the whole clip arrives", Duration::from_secs(30), async || {
        viewer.units(h265).iter().map(|(_, nals)| nals.len()).sum::<usize>() >= sent.len()
    })
    .await;
    let received: Vec<Vec<u8>> = viewer.units(h265).into_iter().flat_map(|(_, nals)| nals).collect();
    assert_eq!(received.len(), sent.len());
    for (index, (received, sent)) in received.iter().zip(&sent).enumerate() {
        assert_eq!(received, sent, "NAL unit {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_reaches_a_viewer_byte_for_byte() {
    plays_exactly("h264_main_g60", "H264", Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_high_profile_reaches_a_viewer_byte_for_byte_over_tcp() {
    plays_exactly("h264_high_g60", "H264", Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_reaches_a_viewer_byte_for_byte() {
    plays_exactly("h265_main_g60", "H265", Transport::Udp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_by_tls_reaches_a_viewer_byte_for_byte_and_is_left() {
    let (clip, authority) = ("h264_main_g60", Authority::new());
    let mounts = [("/cam", &*format!("clip={clip},once=yes"))];
    let camera = Camera::start_secure(&mounts, "digest:user:s3cret", authority.files());
    let url = camera.url_as("user:s3cret").replace("rtsps://", "rtspx://");
    plays_exactly_at(&url, clip, "H264", Transport::Udp).await;
    eventually("the camera is left", Duration::from_secs(30), async || camera.clients() == 0).await;
}
