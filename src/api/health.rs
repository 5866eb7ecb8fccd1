//! `/healthz`: the process answers. `/readyz`: and the streams that are to run always are live.

use super::Api;
use crate::graph::State as StreamState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz))
}

#[derive(Serialize, utoipa::ToSchema)]
struct Health {
    /// `ok` or `ready`.
    status: &'static str,
}

#[derive(Serialize, utoipa::ToSchema)]
struct NotReady {
    error: &'static str,
    detail: String,
    hint: &'static str,
    /// Those that are missing.
    streams: Vec<String>,
}

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "application",
    responses((status = 200, body = Health, description = "It does")))]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the streams that are to run always are live
///
/// Whoever gets an answer has reached the listener, so only the streams are left to look at.
#[utoipa::path(get, path = "/readyz", tag = "application",
    responses(
        (status = 200, body = Health, description = "They are"),
        (status = 503, body = NotReady, description = "Some are not")))]
async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let (streams, preloads) = (api.registry.list(), api.registry.preloads());
    let missing: Vec<String> = streams
        .iter()
        .filter(|stream| !stream.config().on_demand || preloads.contains_key(stream.name()))
        .filter(|stream| stream.state() != StreamState::Live)
        .map(|stream| stream.name().to_owned())
        .collect();
    if missing.is_empty() {
        return Json(Health { status: "ready" }).into_response();
    }
    let body = NotReady {
        error: "not ready",
        detail: format!("not live: {}", missing.join(", ")),
        hint: "GET /api/streams says why",
        streams: missing,
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
