//! The HTTP API and the embedded pages: one file for each resource.
//! May use everything below it.
//! Must never know which port or socket it is served on, nor who may do what: `server` does.

pub mod edit;
pub mod error;
mod health;
mod hls;
mod ice;
mod pages;
pub mod request;
mod schemes;
mod status;
mod streams;
pub mod views;
mod webrtc;

pub use status::Info;

use crate::config::IceServer;
use crate::consumers::hls::Hls;
use crate::consumers::webrtc::WebRtc;
use crate::graph::Registry;
use axum::Router;
use axum::http::{HeaderValue, header};
use std::sync::Arc;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

/// Body bytes at most, wherever a body is taken. The offers of browsers have some 10 KiB.
pub const MAX_BODY: usize = 64 * 1024;
/// Bytes of all bodies together that are held at the same time: some thousand offers of browsers.
pub const MAX_BODIES: usize = 32 * 1024 * 1024;

/// What the handlers work on.
pub struct Api {
    /// The streams.
    pub registry: Arc<Registry>,
    /// WebRTC viewers.
    pub webrtc: Arc<WebRtc>,
    /// HLS viewers.
    pub hls: Arc<Hls>,
    /// What `/api` tells of this process.
    pub info: Info,
    /// What players are told to use.
    pub ice_servers: Vec<IceServer>,
    /// The URL schemes that sources can have.
    pub schemes: &'static [&'static str],
    /// How long a request waits for a source.
    pub patience: Duration,
    /// Reads request bodies, within [`MAX_BODY`] and [`MAX_BODIES`].
    pub bodies: request::Bodies,
    /// One change of streams at a time: `PATCH` reads, changes and writes.
    pub changes: parking_lot::Mutex<()>,
}

/// All paths of the API and the pages.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .merge(streams::routes())
        .merge(webrtc::routes())
        .merge(hls::routes())
        .merge(status::routes())
        .merge(health::routes())
        .merge(ice::routes())
        .merge(schemes::routes())
        .merge(pages::routes())
        .method_not_allowed_fallback(error::method_not_allowed)
        .fallback(error::unknown_path)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .with_state(api)
}
