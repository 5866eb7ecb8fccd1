//! `/api/openapi.json`: the API described (OpenAPI 3.1), put together from the handlers' own declarations.

use super::error::ErrorBody;
use super::{Api, Info};
use axum::body::Bytes;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use std::sync::Arc;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The name in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described only")]
pub(super) struct StreamName {
    /// The stream's name, percent-encoded UTF-8.
    name: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Streamgate",
        description = "Cameras in, browsers out, on one port. Watching and reading is open to everybody who reaches the port; \
            what changes something, dials a camera, or reads the configuration is for programs on this machine (403 for others). \
            Every error is JSON: what was wrong, with what, what to do.",
        license(name = "MIT", identifier = "MIT")
    ),
    servers((url = "/", description = "This server")),
    components(schemas(ErrorBody)),
    tags(
        (name = "streams", description = "List, look at, create, change and delete streams"),
        (name = "webrtc", description = "Watch with the least delay: WHEP, and go2rtc's forms of it"),
        (name = "hls", description = "Watch where WebRTC can't: HLS and low-latency HLS"),
        (name = "mp4", description = "MSE over go2rtc's WebSocket, and MP4 files"),
        (name = "pictures", description = "Snapshots and MJPEG"),
        (name = "configuration", description = "The YAML file, over HTTP"),
        (name = "application", description = "This program"),
        (name = "pages", description = "For people")
    )
)]
struct Document;

/// The description without paths: those come with the routes.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Does to routes what only axum's own router can; their descriptions stay.
pub(super) fn map_router(
    routes: OpenApiRouter<Arc<Api>>,
    change: impl FnOnce(Router<Arc<Api>>) -> Router<Arc<Api>>,
) -> OpenApiRouter<Arc<Api>> {
    let (router, document) = routes.split_for_parts();
    OpenApiRouter::with_openapi(document).merge(change(router).into())
}

/// The document as it is sent.
#[derive(Clone)]
pub(super) struct Rendered(Bytes);

impl Rendered {
    /// Adds to each operation what holds for all of them.
    pub(super) fn new(mut document: utoipa::openapi::OpenApi, info: &Info) -> Rendered {
        document.info.version = info.version.to_owned();
        for item in document.paths.paths.values_mut() {
            let operations: [&mut Option<Operation>; 6] = [
                &mut item.get,
                &mut item.put,
                &mut item.post,
                &mut item.patch,
                &mut item.delete,
                &mut item.options,
            ];
            for operation in operations.into_iter().flatten() {
                let schema = RefOr::Ref(Ref::from_schema_name(ErrorBody::name()));
                let content = ContentBuilder::new().schema(Some(schema)).build();
                let any = ResponseBuilder::new()
                    .description("Any other error")
                    .content("application/json", content);
                operation.responses.responses.insert("default".to_owned(), RefOr::T(any.build()));
            }
        }
        let json = document.to_json().unwrap_or_else(|error| {
            tracing::error!("the API's description can't be written: {error}");
            String::new()
        });
        Rendered(json.into())
    }
}

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// This description
#[utoipa::path(get, path = "/api/openapi.json", tag = "application",
    responses((status = 200, body = serde_json::Value, description = "OpenAPI 3.1")))]
async fn openapi(Extension(Rendered(json)): Extension<Rendered>) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], json).into_response()
}
