//! Errors as clients get them: `{"error": "what", "detail": "with what", "hint": "what to do"}` and a fitting status.

use crate::graph::{ConnectError, SourceError};
use crate::telemetry::mask;
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::any::Any;
use std::borrow::Cow;

/// An error as the client gets it. Credentials in URLs are hidden when it is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    error: String,
    detail: String,
    hint: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of every error.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct ErrorBody<'a> {
    /// What was wrong.
    error: &'a str,
    /// With what.
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    /// What to do about it.
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
}

impl ApiError {
    /// An error of that status; `error` says what was wrong.
    pub fn new(status: StatusCode, error: impl Into<String>) -> ApiError {
        ApiError {
            status,
            error: error.into(),
            detail: String::new(),
            hint: String::new(),
            headers: Vec::new(),
        }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(error: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, error)
    }

    /// 404 for a stream.
    pub fn unknown_stream(name: &str) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "unknown stream")
            .detail(format!("there is no stream called {name:?}"))
            .hint("GET /api/streams lists them, PUT /api/streams?name=NAME&src=URL adds one")
    }

    /// Says what exactly it was about.
    pub fn detail(mut self, detail: impl Into<String>) -> ApiError {
        self.detail = detail.into();
        self
    }

    /// Says what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.hint = hint.into();
        self
    }

    /// Sends a header with it.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> ApiError {
        self.headers.push((name, value));
        self
    }

    /// All it says, in one line.
    pub fn words(&self) -> String {
        let parts = [&self.error, &self.detail, &self.hint].into_iter().filter(|part| !part.is_empty());
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// Characters of one text of an error at most: it may quote what the client sent.
const MAX_TEXT: usize = 1000;

fn shortened(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => text,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let [error, detail, hint] = [&self.error, &self.detail, &self.hint].map(|text| shortened(mask(text)));
        let mut response =
            (self.status, Json(ErrorBody { error: &error, detail: &detail, hint: &hint })).into_response();
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<&SourceError> for ApiError {
    fn from(error: &SourceError) -> ApiError {
        match error {
            SourceError::TimedOut(why) => {
                ApiError::new(StatusCode::GATEWAY_TIMEOUT, "source timed out").detail(why)
            }
            SourceError::Unreachable(why) => ApiError::new(StatusCode::BAD_GATEWAY, "source not reachable")
                .detail(why)
                .hint("check the camera's address and that it is switched on"),
            SourceError::Refused(why) => ApiError::new(StatusCode::BAD_GATEWAY, "source refused").detail(why),
            SourceError::Ended(why) => ApiError::new(StatusCode::BAD_GATEWAY, "source failed").detail(why),
        }
    }
}

/// For the stream of that name.
pub fn connect_error(name: &str, error: &ConnectError) -> ApiError {
    match error {
        ConnectError::NoCommonCodec { .. } => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "no codec in common").detail(error.to_string())
        }
        ConnectError::Source(error) => error.into(),
        ConnectError::Removed => ApiError::unknown_stream(name),
    }
}

/// 404 for a path that is nothing.
pub async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown path").detail(format!("there is nothing at {}", uri.path()))
}

/// 405; the router adds `Allow`.
pub async fn method_not_allowed(method: axum::http::Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        .detail(format!("{} is not possible at {}", method, uri.path()))
        .hint("the header Allow lists what is")
}

/// 500 for a handler that panicked: the connection and everybody else go on.
pub fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!("a request handler panicked: {message}");
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        .hint("this is a fault of Streamgate; its log says more")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: Response) -> serde_json::Value {
        let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test]
    async fn errors_are_json_without_credentials() {
        let error = ApiError::bad_request("bad source").detail("rtsp://u:hunter2@cam/1 is wrong");
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(
            body(response).await,
            serde_json::json!({"error": "bad source", "detail": "rtsp://***@cam/1 is wrong"})
        );
    }

    #[tokio::test]
    async fn what_a_client_sent_is_not_sent_back_without_end() {
        let body = body(ApiError::unknown_stream(&"금".repeat(20_000)).into_response()).await;
        let detail = body["detail"].as_str().unwrap();
        assert_eq!(detail.chars().count(), MAX_TEXT + 1);
        assert!(detail.ends_with('…'));
    }

    #[test]
    fn a_failed_source_is_a_gateway_error() {
        for (error, status) in [
            (SourceError::TimedOut("x".into()), 504),
            (SourceError::Unreachable("x".into()), 502),
            (SourceError::Refused("x".into()), 502),
            (SourceError::Ended("x".into()), 502),
        ] {
            assert_eq!(ApiError::from(&error).status().as_u16(), status, "{error:?}");
        }
        assert_eq!(connect_error("a", &ConnectError::Removed).status(), StatusCode::NOT_FOUND);
        let none = ConnectError::NoCommonCodec { offered: vec![], wanted: vec![] };
        assert_eq!(connect_error("a", &none).status(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[tokio::test]
    async fn a_panic_is_a_500() {
        assert_eq!(panicked(Box::new("boom")).status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
