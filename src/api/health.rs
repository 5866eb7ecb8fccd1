//! `/healthz`: the process answers. `/readyz`: and the streams that are to run always are live.

use super::Api;
use crate::graph::State as StreamState;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use serde_json::json;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

async fn healthz() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

/// Whoever gets an answer has reached the listener, so only the streams are left to look at.
async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let streams = api.registry.list();
    let missing: Vec<&str> = streams
        .iter()
        .filter(|stream| !stream.config().on_demand && stream.state() != StreamState::Live)
        .map(|stream| stream.name())
        .collect();
    if missing.is_empty() {
        return Json(json!({"status": "ready"})).into_response();
    }
    let body = json!({
        "error": "not ready",
        "detail": format!("not live: {}", missing.join(", ")),
        "hint": "GET /api/streams says why",
        "streams": missing,
    });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}
