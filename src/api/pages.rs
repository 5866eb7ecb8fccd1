//! The pages and their assets, embedded in the binary.

use super::Api;
use super::error::{ApiError, unknown_path};
use super::openapi::StreamName;
use super::request::text_header;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(RustEmbed)]
#[folder = "www"]
struct Www;

/// Scripts from here only, nothing inline; media from the player's own blobs.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
    media-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'";

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(home))
        .routes(routes!(player))
        .routes(routes!(api_docs))
        // An OpenAPI path can't have a wildcard.
        .route("/assets/{*path}", get(asset))
}

/// The start page
#[utoipa::path(get, path = "/", tag = "pages",
    responses((status = 200, body = String, content_type = "text/html", description = "The page")))]
async fn home(headers: HeaderMap) -> Response {
    page("index.html", &headers)
}

/// A stream's player in the whole window
#[utoipa::path(get, path = "/stream/player/{name}", tag = "pages", params(StreamName),
    responses((status = 200, body = String, content_type = "text/html", description = "The page, whether there is such a stream or not")))]
async fn player(headers: HeaderMap) -> Response {
    page("player.html", &headers)
}

/// This description as a page
#[utoipa::path(get, path = "/api/docs", tag = "pages",
    responses((status = 200, body = String, content_type = "text/html", description = "The page")))]
async fn api_docs(headers: HeaderMap) -> Response {
    page("docs.html", &headers)
}

fn page(path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = Www::get(path) else {
        return ApiError::new(StatusCode::NOT_FOUND, "this build has no pages").into_response();
    };
    let mut response = serve(path, file, headers);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn asset(Path(path): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    // A debug build reads the folder itself: what leaves it, or its part for everybody, is nothing there either.
    let inside = path.split(['/', '\\']).all(|part| part != "..");
    let path = format!("assets/{path}");
    match inside.then(|| Www::get(&path)).flatten() {
        Some(file) => serve(&path, file, &headers),
        None => unknown_path(uri).await.into_response(),
    }
}

/// Kept by browsers, but asked for again each time: a new version of the program shows its pages at once.
fn serve(path: &str, file: EmbeddedFile, headers: &HeaderMap) -> Response {
    let hash = file.metadata.sha256_hash();
    let etag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{etag}\"");
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let kind = if kind.type_() == "text" { format!("{kind}; charset=utf-8") } else { kind.to_string() };
    let known = text_header(headers, &header::IF_NONE_MATCH)
        .split(',')
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*");
    let fields = [(header::ETAG, etag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if known {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    (fields, [(header::CONTENT_TYPE, kind)], file.data.into_owned()).into_response()
}
