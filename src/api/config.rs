//! `/api/config`: the configuration as its YAML text, replaced and merged, in effect at once and on disk before the answer.

use super::error::{ApiError, ErrorBody};
use super::live::{Fault, Live, Report};
use super::request::{media_type, text_header};
use super::{Api, blocking};
use crate::config::{ConfigError, masked};
use crate::telemetry::mask;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(read, replace, merge))
}

/// An answer that is no [`ApiError`] because it has a place.
#[derive(Serialize, utoipa::ToSchema)]
struct Misconfigured {
    error: &'static str,
    detail: String,
    hint: &'static str,
    /// From 1; 0 if the fault is at no place.
    line: usize,
    column: usize,
    key: String,
    /// In words.
    allowed: String,
}

fn misconfigured(status: StatusCode, error: &'static str, hint: &'static str, why: &ConfigError) -> Response {
    let hide = |text: &str| mask(text).into_owned();
    let body = Misconfigured {
        error,
        detail: hide(&why.message),
        hint,
        line: why.line,
        column: why.column,
        key: hide(why.key()),
        allowed: hide(why.allowed()),
    };
    (status, Json(body)).into_response()
}

/// The configuration's YAML text, secrets as `***`
#[utoipa::path(get, path = "/api/config", tag = "configuration",
    responses((status = 200, body = String, content_type = "application/yaml", description = "The text in effect",
        headers(
            ("ETag" = String, description = "For `If-Match`"),
            ("Streamgate-Note" = String, description = "Why the file is not in effect")))))]
async fn read(State(api): State<Arc<Api>>) -> Response {
    let (text, refused) = match blocking(move || api.live.text()).await {
        Ok(read) => read,
        Err(error) => return error.into_response(),
    };
    let Some(shown) = masked(&text, &|text| mask(text).into_owned()) else {
        return ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the configuration cannot be shown")
            .detail("its text is written in a way in which secrets cannot be told from the rest")
            .hint("look at the file itself; indent brackets that close a mapping")
            .into_response();
    };
    let mut response = shown.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(version) = HeaderValue::from_str(&Live::version(&text)) {
        headers.insert(header::ETAG, version);
    }
    if let Some(refused) = refused {
        let note = format!("the file is not in effect: {refused}");
        if let Ok(note) = HeaderValue::from_bytes(mask(&note).replace(char::is_control, " ").as_bytes()) {
            headers.insert("streamgate-note", note);
        }
    }
    response
}

/// A replaced or merged configuration, as the client is told.
fn answer(outcome: Result<Report, Fault>) -> Response {
    match outcome {
        Ok(report) => {
            tracing::info!(
                created = report.created.len(),
                changed = report.changed.len(),
                removed = report.removed.len(),
                restart_required = report.restart_required.join(", "),
                "configuration changed by the API"
            );
            Json(report).into_response()
        }
        Err(Fault::Invalid(why)) => misconfigured(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid configuration",
            "nothing was changed; docs/configuration.md and `streamgate schema` have every key",
            &why,
        ),
        Err(Fault::BrokenFile(why)) => misconfigured(
            StatusCode::CONFLICT,
            "the configuration file is broken",
            "mend the file, or replace it as a whole by POST /api/config",
            &why,
        ),
        Err(fault) => ApiError::from(fault).into_response(),
    }
}

/// Replaces the configuration; saved and in effect before the answer
#[utoipa::path(post, path = "/api/config", tag = "configuration",
    params(("If-Match" = Option<String>, Header, description = "Refused if the text is not the one of that `ETag` any more")),
    request_body(content = String, content_type = "application/yaml"),
    responses(
        (status = 200, body = Report, description = "Saved and in effect"),
        (status = 400, description = "The body can't be read", body = ErrorBody),
        (status = 409, description = "The file on disk is broken or can't be changed that way", body = Misconfigured),
        (status = 412, description = "`If-Match` names another version", body = ErrorBody),
        (status = 413, description = "Over 1 MiB", body = ErrorBody),
        (status = 422, description = "Invalid; nothing was changed", body = Misconfigured),
        (status = 500, description = "It can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn replace(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let text = api.configurations.read_text(&headers, body).await?;
    let if_match = if_match(&headers);
    let outcome = blocking(move || api.live.replace(&text, if_match.as_deref())).await?;
    Ok(answer(outcome))
}

/// Merges into the configuration (RFC 7396): `null` takes a key out
#[utoipa::path(patch, path = "/api/config", tag = "configuration",
    params(("If-Match" = Option<String>, Header, description = "Refused if the text is not the one of that `ETag` any more")),
    request_body(content((String = "application/yaml"), (serde_json::Value = "application/json"),
        (serde_json::Value = "application/merge-patch+json"))),
    responses(
        (status = 200, body = Report, description = "Saved and in effect"),
        (status = 400, description = "The body can't be read", body = ErrorBody),
        (status = 409, description = "The file on disk is broken or can't be changed that way", body = Misconfigured),
        (status = 412, description = "`If-Match` names another version", body = ErrorBody),
        (status = 413, description = "Over 1 MiB", body = ErrorBody),
        (status = 422, description = "Invalid; nothing was changed", body = Misconfigured),
        (status = 500, description = "It can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn merge(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let body = api.configurations.read(&headers, body).await?;
    let patch = match media_type(&headers).as_str() {
        "application/json" | "application/merge-patch+json" => {
            serde_json::from_slice(&body).map_err(|error| error.to_string())
        }
        _ => serde_yaml::from_slice(&body).map_err(|error| error.to_string()),
    };
    // The reader's own words may quote a value.
    let patch: serde_yaml::Value = patch.map_err(|_| {
        ApiError::bad_request("the body is neither YAML nor JSON").hint(r#"e.g. {"log": {"level": "debug"}}"#)
    })?;
    let if_match = if_match(&headers);
    let outcome = blocking(move || api.live.merge(patch, if_match.as_deref())).await?;
    Ok(answer(outcome))
}

fn if_match(headers: &HeaderMap) -> Option<String> {
    Some(text_header(headers, &header::IF_MATCH).to_owned()).filter(|version| !version.is_empty())
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> ApiError {
        match fault {
            Fault::Invalid(why) => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid configuration")
                .detail(why.to_string()),
            Fault::BadSource(why) => ApiError::bad_request("bad source")
                .detail(why)
                .hint("GET /api/schemes lists the schemes that are known"),
            Fault::BrokenFile(why) => ApiError::new(StatusCode::CONFLICT, "the configuration file is broken")
                .detail(why.to_string())
                .hint("mend the file, or replace it as a whole by POST /api/config; nothing was changed"),
            Fault::Impossible(why) => ApiError::new(StatusCode::CONFLICT, "this cannot be saved")
                .detail(why)
                .hint("nothing was changed"),
            Fault::Outdated => {
                ApiError::new(StatusCode::PRECONDITION_FAILED, "the configuration was changed meanwhile")
                    .detail("If-Match names another version")
                    .hint("GET /api/config again and repeat the change")
            }
            Fault::Store(error) => {
                let (status, hint) = match error.no_space {
                    true => (StatusCode::INSUFFICIENT_STORAGE, "free some space; nothing was changed"),
                    false => (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "let Streamgate write the file and its folder; nothing was changed. PATCH /api/streams?name=&src= changes a stream in memory only",
                    ),
                };
                ApiError::new(status, "the configuration could not be saved")
                    .detail(error.to_string())
                    .hint(hint)
            }
        }
    }
}
