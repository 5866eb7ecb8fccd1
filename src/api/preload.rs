//! `/api/preload`: which streams are kept warm.

use super::error::{ApiError, ErrorBody};
use super::request::Query;
use super::streams::codecs;
use super::{Api, blocking, views};
use crate::config::{Config, DEFAULT_PRELOAD};
use crate::graph::preload::FORMAT_NAME;
use crate::graph::{Preload, Wants};
use crate::media::Kind;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const EXAMPLE: &str = "PUT /api/preload?src=front&video&audio";

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list, put, delete))
}

/// What a text of the configuration asks for.
///
/// # Errors
/// What is wrong with it, in words.
fn parse(text: &str) -> Result<Preload, ApiError> {
    let query = Query::parse(text)?;
    if let Some(unknown) = query.unknown(&["video", "audio", "microphone"]) {
        return Err(ApiError::bad_request(format!("unknown parameter {unknown:?}"))
            .hint("video, audio, or both, e.g. video&audio or video=h264"));
    }
    let wants = Wants { video: codecs(&query, Kind::Video)?, audio: codecs(&query, Kind::Audio)? };
    if wants == Wants::default() {
        return Err(ApiError::bad_request("neither video nor audio is wanted").hint("e.g. video&audio"));
    }
    Ok(Preload { query: text.to_owned(), wants })
}

/// The section `preload`, understood.
///
/// # Errors
/// The first that is wrong, by the name of its stream.
pub(super) fn of_config(config: &Config) -> Result<Vec<(String, Preload)>, (String, String)> {
    let read = |(name, text): &(String, String)| match parse(text) {
        Ok(preload) => Ok((name.clone(), preload)),
        Err(why) => Err((name.clone(), why.words())),
    };
    config.preload.iter().map(read).collect()
}

/// What is kept warm
///
/// By the stream's name: `query`, `state`, and the `consumer` that keeps it warm.
#[utoipa::path(get, path = "/api/preload", tag = "streams",
    responses((status = 200, description = "By the stream's name", body = Value)))]
async fn list(State(api): State<Arc<Api>>) -> Json<Value> {
    let view = |(name, preload): (String, Preload)| {
        let stream = api.registry.get(&name);
        let consumer = stream.as_ref().and_then(|stream| {
            let consumers = stream.consumers();
            consumers.iter().find(|c| c.info.lock().format_name == FORMAT_NAME).map(views::consumer)
        });
        let state = stream.map(|stream| stream.state().as_str());
        (name, json!({"query": preload.query, "state": state, "consumer": consumer}))
    };
    Json(Value::Object(api.registry.preloads().into_iter().map(view).collect::<Map<_, _>>()))
}

/// Keeps a stream warm
#[utoipa::path(put, path = "/api/preload", tag = "streams",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("video" = Option<String>, Query, description = "Video: empty for any codec, or a list such as `h264`"),
        ("audio" = Option<String>, Query, description = "The same for sound; neither means both")),
    responses(
        (status = 200, description = "Saved and done", body = Value),
        (status = 404, description = "Unknown stream", body = ErrorBody)))]
async fn put(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    let name = query.require("src", EXAMPLE)?.to_owned();
    if api.registry.get(&name).is_none() {
        return Err(ApiError::unknown_stream(&name));
    }
    let wanted: Vec<String> = query.pairs().filter(|(key, _)| *key != "src").map(written).collect();
    let text = if wanted.is_empty() { DEFAULT_PRELOAD.to_owned() } else { wanted.join("&") };
    parse(&text)?;
    change(api, name, Some(text)).await
}

fn written((key, value): (&str, &str)) -> String {
    let encoded = |text| utf8_percent_encode(text, &const { NON_ALPHANUMERIC.remove(b',').remove(b'_') });
    if value.is_empty() { encoded(key).to_string() } else { format!("{}={}", encoded(key), encoded(value)) }
}

/// Keeps a stream warm no longer
#[utoipa::path(delete, path = "/api/preload", tag = "streams",
    params(("src" = String, Query, description = "The stream's name")),
    responses(
        (status = 200, description = "Saved and done", body = Value),
        (status = 404, description = "It is not kept warm", body = ErrorBody)))]
async fn delete(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    let name = query.require("src", "DELETE /api/preload?src=front")?.to_owned();
    if !api.registry.preloads().contains_key(&name) {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not preloaded")
            .detail(format!("{name:?} is not kept warm"))
            .hint("GET /api/preload lists what is"));
    }
    change(api, name, None).await
}

/// Writes the entry, or takes it out, and makes it so.
async fn change(api: Arc<Api>, name: String, text: Option<String>) -> Result<Response, ApiError> {
    blocking(move || {
        let yaml = |text: &str| serde_yaml::Value::String(text.to_owned());
        let value = text.as_deref().map_or(serde_yaml::Value::Null, yaml);
        let entry = serde_yaml::Mapping::from_iter([(yaml(&name), value)]);
        let patch = serde_yaml::Mapping::from_iter([(yaml("preload"), entry.into())]);
        api.live.merge(patch.into(), None)?;
        tracing::info!(stream = name, preload = text, "preload configured by the API");
        Ok(Json(json!({"src": name, "query": text})).into_response())
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Codec;

    #[test]
    fn a_preload_says_what_is_wanted() {
        let preload = parse("video=h264&audio").unwrap();
        assert_eq!(preload.wants.video, [Codec::H264]);
        assert!(preload.wants.audio.contains(&Codec::Opus));
        for wrong in ["", "video=h266", "src=a", "video&tracks=5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            [("video", "h264,h265"), ("audio", ""), ("a&b", "=")].map(written),
            ["video=h264,h265", "audio", "a%26b=%3D"]
        );
    }
}
