//! `/api/schemes`: which URLs sources can have.

use super::Api;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(schemes))
}

/// Which URL schemes sources can have
#[utoipa::path(get, path = "/api/schemes", tag = "application",
    responses((status = 200, body = Vec<String>, description = "e.g. `rtsp`")))]
async fn schemes(State(api): State<Arc<Api>>) -> Json<Vec<&'static str>> {
    Json(api.schemes.to_vec())
}
