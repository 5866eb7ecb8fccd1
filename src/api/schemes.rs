//! `/api/schemes`: which URLs sources can have.

use super::Api;
use axum::extract::State;
use axum::{Json, Router, routing::get};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/api/schemes", get(schemes))
}

async fn schemes(State(api): State<Arc<Api>>) -> Json<Vec<&'static str>> {
    Json(api.schemes.to_vec())
}
