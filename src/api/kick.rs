//! `DELETE /api/streams/{name}/consumers/{id}`: ends one viewer.

use super::Api;
use super::error::ApiError;
use crate::graph::preload::FORMAT_NAME;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Json, Router, routing::delete};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/streams/{name}/consumers/{id}", delete(kick))
}

async fn kick(
    State(api): State<Arc<Api>>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path((name, id)) = path.map_err(|_| ApiError::bad_request("the name in the path is no UTF-8"))?;
    let stream = api.registry.get(&name).ok_or_else(|| ApiError::unknown_stream(&name))?;
    let unknown = || {
        ApiError::new(StatusCode::NOT_FOUND, "unknown viewer")
            .detail(format!("{name:?} has no viewer with the id {id:?}"))
            .hint("GET /api/streams?src=NAME lists them under consumers")
    };
    let consumers = stream.consumers();
    let consumer = consumers.iter().find(|consumer| consumer.id.to_string() == id).ok_or_else(unknown)?;
    if consumer.info.lock().format_name == FORMAT_NAME {
        return Err(ApiError::new(StatusCode::CONFLICT, "this is no viewer")
            .detail(format!("it keeps {name:?} warm, as the configuration says"))
            .hint("DELETE /api/preload?src=NAME ends that"));
    }
    if !stream.kick(consumer.id) {
        return Err(unknown());
    }
    tracing::info!(stream = name, viewer = consumer.id, "viewer ended by the API");
    Ok(Json(json!({"kicked": consumer.id})))
}
