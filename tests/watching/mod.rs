//! Watching a stream of the real program as a browser does: WHEP, then WebRTC.
#![allow(dead_code, reason = "each test file uses a part of this")]

use crate::common::{Reply, Streamgate, request};
use crate::webrtc_client::{Offering, Viewer, ViewerOptions};

/// Posts a viewer's offer; the answer may be an error.
pub async fn offer(streamgate: &Streamgate, stream: &str, options: ViewerOptions) -> (Offering, Reply) {
    let offering = Offering::new(options);
    let url = streamgate.url(&format!("/api/webrtc?src={stream}"));
    let reply = request("POST", &url, &[("content-type", "application/sdp")], offering.offer.clone()).await;
    (offering, reply)
}

/// A viewer that has been answered and is connecting.
pub async fn watch(streamgate: &Streamgate, stream: &str, options: ViewerOptions) -> Viewer {
    let (offering, reply) = offer(streamgate, stream, options).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    offering.connect(&reply.text())
}
