//! The HTTP API and the embedded pages: one file for each resource.
//! May use everything below it.
//! Must never know which port or socket it is served on, nor who may do what: `server` does.

mod config;
mod dot;
pub mod edit;
pub mod error;
mod events;
mod health;
mod hls;
mod ice;
pub mod live;
mod mp4;
mod openapi;
mod pages;
mod pictures;
mod preload;
pub mod request;
mod schemes;
mod status;
mod streams;
pub mod views;
mod webrtc;
pub mod ws;

pub use status::Info;

use crate::consumers::hls::Hls;
use crate::consumers::mse::Mse;
use crate::consumers::pictures::Pictures;
use crate::consumers::rtsp::Publishing;
use crate::consumers::webrtc::WebRtc;
use crate::graph::Registry;
use axum::http::{HeaderValue, header};
use axum::{Extension, Router};
use std::sync::Arc;
use std::time::Duration;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;

/// Body bytes at most, wherever a body is taken. The offers of browsers have some 10 KiB.
pub const MAX_BODY: usize = 64 * 1024;
/// Bytes of all bodies together that are held at the same time: some thousand offers of browsers.
pub const MAX_BODIES: usize = 32 * 1024 * 1024;
/// The same for those that are configurations, which only this machine sends.
pub const MAX_CONFIGURATIONS: usize = 8 * 1024 * 1024;

/// What the handlers work on.
pub struct Api {
    /// The streams.
    pub registry: Arc<Registry>,
    /// WebRTC viewers.
    pub webrtc: Arc<WebRtc>,
    /// HLS viewers.
    pub hls: Arc<Hls>,
    /// Viewers by MSE and of MP4.
    pub mse: Arc<Mse>,
    /// WebSockets.
    pub sockets: Arc<ws::Sockets>,
    /// Streams that are published to other servers.
    pub publishing: Arc<Publishing>,
    /// Snapshots and MJPEG viewers.
    pub pictures: Arc<Pictures>,
    /// What `/api` tells of this process.
    pub info: Info,
    /// The URL schemes that sources can have.
    pub schemes: &'static [&'static str],
    /// How long a request waits for a source.
    pub patience: Duration,
    /// Reads request bodies, within [`MAX_BODY`] and [`MAX_BODIES`].
    pub bodies: request::Bodies,
    /// The same for a whole configuration, within [`crate::config::MAX_FILE_BYTES`] and [`MAX_CONFIGURATIONS`].
    pub configurations: request::Bodies,
    /// The configuration in effect and its file.
    pub live: Arc<live::Live>,
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, error::ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|failure| {
        tracing::error!("a change of the configuration panicked: {failure}");
        error::ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "internal error")
            .hint("this is a fault of Streamgate; its log says more")
    })
}

/// All paths of the API and the pages. A path and its description are one declaration (`#[utoipa::path]` on the handler,
/// `routes!` in its file), so that what is served is what `/api/openapi.json` says.
pub fn router(api: Arc<Api>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(openapi::document())
        .merge(streams::routes())
        .merge(dot::routes())
        .merge(preload::routes())
        .merge(events::routes())
        .merge(webrtc::routes())
        .merge(hls::routes())
        .merge(mp4::routes())
        .merge(ws::routes())
        .merge(pictures::routes())
        .merge(status::routes())
        .merge(health::routes())
        .merge(config::routes())
        .merge(ice::routes())
        .merge(schemes::routes())
        .merge(pages::routes())
        .merge(openapi::routes())
        .split_for_parts();
    router
        .method_not_allowed_fallback(error::method_not_allowed)
        .fallback(error::unknown_path)
        // As one layer: axum boxes what each one calls, for each request.
        .layer(
            ServiceBuilder::new()
                .layer(Extension(openapi::Rendered::new(document, &api.info)))
                .layer(SetResponseHeaderLayer::if_not_present(
                    header::X_CONTENT_TYPE_OPTIONS,
                    HeaderValue::from_static("nosniff"),
                ))
                .layer(CatchPanicLayer::custom(error::panicked)),
        )
        .with_state(api)
}
