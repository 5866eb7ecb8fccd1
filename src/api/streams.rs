//! `/api/streams`: list, look at, probe, create, change and delete streams.

use super::edit::{Edit, check_name};
use super::error::{ApiError, ErrorBody, connect_error};
use super::live::Saved;
use super::openapi::StreamName;
use super::request::{Bodies, Name, Query, media_type};
use super::views::{self, StreamView};
use super::{Api, blocking};
use crate::config::{StreamConfig, check_source};
use crate::graph::preload::FORMAT_NAME;
use crate::graph::registry::MAX_STREAMS;
use crate::graph::{Change, Consumer, Producer, Stream, Wants};
use crate::media::{Codec, Kind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list_or_one, put_query, patch_query, publish, delete_query))
        .routes(routes!(one, put_json, patch_json, delete_path))
        .routes(routes!(end_consumer))
}

fn find(api: &Api, name: &str) -> Result<Arc<Stream>, ApiError> {
    api.registry.get(name).ok_or_else(|| ApiError::unknown_stream(name))
}

/// All streams, or the one that `src` names
///
/// With `video` or `audio` the camera is dialled now if it is not running, and the stream is shown then: a probe, which
/// only this machine may ask for.
#[utoipa::path(get, path = "/api/streams", tag = "streams",
    params(
        ("src" = Option<String>, Query, description = "A stream's name; without it all are listed"),
        ("video" = Option<String>, Query, description = "Dial now and want video: empty for any codec, or a list such as `h264,hevc`"),
        ("audio" = Option<String>, Query, description = "The same for sound, e.g. `opus,pcma`")),
    responses(
        (status = 200, description = "By name; with `src`, that one stream itself", body = Listed),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "The stream has no such codec", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn list_or_one(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    if !query.has("src") {
        return Ok(Json(views::streams(&api.registry.list())).into_response());
    }
    let name = query.require("src", "GET /api/streams?src=front")?;
    let stream = find(&api, name)?;
    let wants = Wants { video: codecs(&query, Kind::Video)?, audio: codecs(&query, Kind::Audio)? };
    if wants == Wants::default() {
        return Ok(Json(views::stream(&stream)).into_response());
    }
    // What is selected stays leased until it has been described.
    let _selection =
        stream.connect(&wants, api.patience).await.map_err(|error| connect_error(name, &error))?;
    Ok(Json(views::stream(&stream)).into_response())
}

/// `&video` and `&video=any`: every codec of that kind; `&video=h264,h265`: these.
pub(super) fn codecs(query: &Query, kind: Kind) -> Result<Vec<Codec>, ApiError> {
    let mut wanted = Vec::new();
    for filter in query.all(kind.as_str()) {
        let named = Codec::named(kind, filter);
        wanted.extend(named.map_err(|why| ApiError::bad_request("bad filter").detail(why))?);
    }
    Ok(wanted)
}

/// One stream
#[utoipa::path(get, path = "/api/streams/{name}", tag = "streams", params(StreamName),
    responses(
        (status = 200, body = StreamView, description = "As it is now"),
        (status = 404, description = "Unknown stream", body = ErrorBody)))]
async fn one(State(api): State<Arc<Api>>, Name(name): Name) -> Result<Json<StreamView>, ApiError> {
    Ok(Json(views::stream(&*find(&api, &name)?)))
}

/// Parameters of the query forms. A source's own `?a=1&b=2` that was not percent-encoded would be cut off at the
/// `&` without a word.
fn check_parameters(query: &Query, known: &[&str]) -> Result<(), ApiError> {
    match query.unknown(known) {
        None => Ok(()),
        Some(key) => Err(ApiError::bad_request(format!("unknown query parameter {key:?}"))
            .hint("if it belongs to the source URL, percent-encode that URL: & is %26, # is %23")),
    }
}

const PUT_EXAMPLE: &str = "PUT /api/streams?name=front&src=rtsp%3A%2F%2F192.168.1.10%2Fstream1";

/// Creates or replaces a stream; saved before the answer
///
/// Percent-encode the source: `&` is `%26`, `#` is `%23`.
#[utoipa::path(put, path = "/api/streams", tag = "streams",
    params(
        ("name" = String, Query, description = "The stream's name"),
        ("src" = Vec<String>, Query, description = "A source URL; given up to 16 times, best first")),
    responses(
        (status = 200, body = StreamView, description = "The stream", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 400, description = "A name or source that can't be one", body = ErrorBody),
        (status = 409, description = "The file is broken or can't be changed that way", body = ErrorBody),
        (status = 500, description = "The change can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn put_query(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    check_parameters(&query, &["name", "src"])?;
    let name = query.require("name", PUT_EXAMPLE)?.to_owned();
    let config = Edit::sources(query.all("src"))?.create()?;
    let changed = change(api, name, SAVED, |_| Ok(config)).await?;
    Ok(changed.answer(StatusCode::OK))
}

/// Gives a stream other sources, in memory only, as in go2rtc; creates it if it is not there
#[utoipa::path(patch, path = "/api/streams", tag = "streams",
    params(
        ("name" = String, Query, description = "The stream's name"),
        ("src" = Vec<String>, Query, description = "A source URL; given up to 16 times, best first")),
    responses(
        (status = 200, body = StreamView, description = "The stream", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 400, description = "A name or source that can't be one", body = ErrorBody)))]
async fn patch_query(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    const EXAMPLE: &str = "PATCH /api/streams?name=front&src=rtsp%3A%2F%2F192.168.1.10%2Fstream2";
    check_parameters(&query, &["name", "src"])?;
    let name = query.require("name", EXAMPLE)?.to_owned();
    let edit = Edit::sources(query.all("src"))?;
    // As in go2rtc, a stream that is not there is made, and nothing is written down.
    let changed = change(api, name, !SAVED, |old| match old {
        Some(old) => Ok(edit.merge(old.clone())),
        None => edit.create(),
    });
    Ok(changed.await?.answer(StatusCode::OK))
}

/// Creates or replaces a stream; saved before the answer
#[utoipa::path(put, path = "/api/streams/{name}", tag = "streams", params(StreamName),
    request_body(content((Edit = "application/json"), (Edit = "application/merge-patch+json"))),
    responses(
        (status = 200, body = StreamView, description = "Replaced", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 201, body = StreamView, description = "Created", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 400, description = "A name, key or source that can't be one", body = ErrorBody),
        (status = 415, description = "The body is no JSON by its Content-Type", body = ErrorBody),
        (status = 409, description = "The file is broken or can't be changed that way", body = ErrorBody),
        (status = 500, description = "The change can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn put_json(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let config = read_edit(&api.bodies, &headers, body).await?.create()?;
    let changed = change(api, name, SAVED, |_| Ok(config)).await?;
    let status = if changed.change == Change::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(changed.answer(status))
}

/// Changes what is given of a stream; saved before the answer
#[utoipa::path(patch, path = "/api/streams/{name}", tag = "streams", params(StreamName),
    request_body(content((Edit = "application/json"), (Edit = "application/merge-patch+json"))),
    responses(
        (status = 200, body = StreamView, description = "The stream", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 400, description = "A key or source that can't be one", body = ErrorBody),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 415, description = "The body is no JSON by its Content-Type", body = ErrorBody),
        (status = 409, description = "The file is broken or can't be changed that way", body = ErrorBody),
        (status = 500, description = "The change can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn patch_json(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let edit = read_edit(&api.bodies, &headers, body).await?;
    let unknown = ApiError::unknown_stream(&name);
    let changed = change(api, name, SAVED, |old| match old {
        Some(old) => Ok(edit.merge(old.clone())),
        None => Err(unknown),
    });
    Ok(changed.await?.answer(StatusCode::OK))
}

/// Pages on other sites can't send this media type without being asked first (CORS): so it is required.
async fn read_edit(bodies: &Bodies, headers: &HeaderMap, body: Body) -> Result<Edit, ApiError> {
    let body = bodies.read(headers, body).await?;
    match media_type(headers).as_str() {
        "application/json" | "application/merge-patch+json" => Edit::parse(&body),
        other => Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media type not supported")
            .detail(format!("Content-Type is {other:?}"))
            .hint("send Content-Type: application/json")),
    }
}

/// What `GET /api/streams` shows: all streams by name, or one.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "described only")]
enum Listed {
    All(BTreeMap<String, StreamView>),
    One(Box<StreamView>),
}

#[derive(serde::Serialize, utoipa::ToSchema)]
struct Deleted {
    /// The stream's name.
    deleted: String,
}

/// Whether a change is written into the configuration's file.
const SAVED: bool = true;

/// A stream that was changed.
struct Changed {
    change: Change,
    saved: Saved,
    view: StreamView,
    /// Sources without effect.
    notes: Vec<String>,
}

impl Changed {
    fn answer(self, status: StatusCode) -> Response {
        noted((status, Json(self.view)).into_response(), &self.saved, self.notes)
    }
}

/// Says what a client might not expect of where a change is kept, and of its effect.
fn noted(mut response: Response, saved: &Saved, mut notes: Vec<String>) -> Response {
    match saved {
        Saved::Yes | Saved::InMemory => {}
        Saved::NewFile(path) => notes.insert(0, format!("saved in the new file {path}")),
        Saved::ByFlag => {
            notes.insert(0, "not saved: a flag gave this stream when the program was started".to_owned());
        }
    }
    // A path may have any bytes.
    if let Ok(note) = HeaderValue::from_bytes(notes.join("; ").as_bytes())
        && !note.is_empty()
    {
        response.headers_mut().insert("streamgate-note", note);
    }
    response
}

/// Makes a stream's configuration from the one it has, saves and applies it.
async fn change(
    api: Arc<Api>,
    name: String,
    saved: bool,
    make: impl FnOnce(Option<&StreamConfig>) -> Result<StreamConfig, ApiError> + Send + 'static,
) -> Result<Changed, ApiError> {
    check_name(&name)?;
    blocking(move || {
        let (change, saved) = api.live.set_stream(&name, saved, |old| {
            if old.is_none() && api.registry.list().len() >= MAX_STREAMS {
                return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many streams")
                    .detail(format!("there are {MAX_STREAMS}, that is the limit")));
            }
            make(old)
        })?;
        tracing::info!(stream = name, ?change, ?saved, "stream configured by the API");
        let stream = find(&api, &name)?;
        let sources = stream.producers().iter().enumerate();
        let without_effect = |(index, source): (usize, &Arc<Producer>)| {
            Some(format!("source {}: {}", index + 1, source.unsupported()?))
        };
        let notes = sources.filter_map(without_effect).collect();
        Ok(Changed { change, saved, view: views::stream(&stream), notes })
    })
    .await?
}

const PUBLISH_EXAMPLE: &str = "POST /api/streams?src=front&dst=rtsp%3A%2F%2Fserver%2Fname";

/// What was ended.
#[derive(serde::Serialize, utoipa::ToSchema)]
struct Ended {
    /// A stream that is not published there any more, or the id of a consumer.
    ended: String,
}

/// Publishes a stream to another server by RTSP, until the program ends
///
/// Percent-encode the URL: `&` is `%26`, `#` is `%23`.
#[utoipa::path(post, path = "/api/streams", tag = "streams",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("dst" = String, Query, description = "Where to: rtsp(s)://user:password@server/name")),
    responses(
        (status = 200, body = StreamView, description = "The stream; the server is one of its consumers"),
        (status = 400, description = "Streams can't be published there", body = ErrorBody),
        (status = 404, description = "Unknown stream", body = ErrorBody)))]
async fn publish(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    check_parameters(&query, &["src", "dst"])?;
    let name = query.require("src", PUBLISH_EXAMPLE)?;
    let stream = find(&api, name)?;
    let refused = |why: String| ApiError::bad_request("can't publish there").detail(why);
    let target = query.require("dst", PUBLISH_EXAMPLE)?.trim();
    check_source(target).map_err(refused)?;
    api.publishing.start(name, target).map_err(refused)?;
    Ok(Json(views::stream(&stream)).into_response())
}

/// Ends one consumer: a viewer, or a publication
#[utoipa::path(delete, path = "/api/streams/{name}/consumers/{id}", tag = "streams",
    params(
        ("name" = String, Path, description = "The stream's name"),
        ("id" = String, Path, description = "The consumer's id, as the stream shows it")),
    responses(
        (status = 200, body = Ended, description = "It was told to go"),
        (status = 404, description = "Unknown stream or consumer", body = ErrorBody),
        (status = 409, description = "It is a preload", body = ErrorBody)))]
async fn end_consumer(
    State(api): State<Arc<Api>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<Ended>, ApiError> {
    let stream = find(&api, &name)?;
    let id_of = |consumer: &Arc<Consumer>| consumer.id.to_string() == id;
    if stream.consumers().iter().any(|c| id_of(c) && c.info.lock().format_name == FORMAT_NAME) {
        return Err(ApiError::new(StatusCode::CONFLICT, "this is no viewer")
            .detail(format!("it keeps {name:?} warm, as the configuration says"))
            .hint("DELETE /api/preload?src=NAME ends that"));
    }
    let is_ended = id.parse().is_ok_and(|id| stream.kick(id));
    if !is_ended {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no such consumer")
            .detail(id)
            .hint("GET /api/streams/{name} lists them by id"));
    }
    tracing::info!(stream = name, consumer = id, "consumer ended by the API");
    Ok(Json(Ended { ended: id }))
}

/// Ends a stream and takes it out of the file; with `dst`, ends its publication there
#[utoipa::path(delete, path = "/api/streams", tag = "streams",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("dst" = Option<String>, Query, description = "Only its publication to this URL")),
    responses(
        (status = 200, body = Deleted, description = "Gone, its viewers and its connection too", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 404, description = "Unknown stream, or not published there", body = ErrorBody),
        (status = 409, description = "The file is broken or can't be changed that way", body = ErrorBody),
        (status = 500, description = "The change can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn delete_query(State(api): State<Arc<Api>>, query: Query) -> Result<Response, ApiError> {
    if query.has("dst") {
        let name = query.require("src", "DELETE /api/streams?src=front&dst=…")?;
        let target = query.require("dst", PUBLISH_EXAMPLE)?.trim();
        find(&api, name)?;
        if !api.publishing.stop(name, target) {
            return Err(ApiError::new(StatusCode::NOT_FOUND, "not published there")
                .hint("GET /api/streams/{name} lists consumers; one can be ended by its id as well"));
        }
        return Ok(Json(Ended { ended: name.to_owned() }).into_response());
    }
    let name = query.require("src", "DELETE /api/streams?src=front")?.to_owned();
    delete(api, name).await
}

/// Ends a stream and takes it out of the file
#[utoipa::path(delete, path = "/api/streams/{name}", tag = "streams", params(StreamName),
    responses(
        (status = 200, body = Deleted, description = "Gone, its viewers and its connection too", headers(("Streamgate-Note" = String, description = "What was not saved, or has no effect"))),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 409, description = "The file is broken or can't be changed that way", body = ErrorBody),
        (status = 500, description = "The change can't be saved", body = ErrorBody),
        (status = 507, description = "The disk is full", body = ErrorBody)))]
async fn delete_path(State(api): State<Arc<Api>>, Name(name): Name) -> Result<Response, ApiError> {
    delete(api, name).await
}

async fn delete(api: Arc<Api>, name: String) -> Result<Response, ApiError> {
    blocking(move || {
        let saved = api.live.remove_stream(&name)?.ok_or_else(|| ApiError::unknown_stream(&name))?;
        tracing::info!(stream = name, ?saved, "stream deleted by the API");
        Ok(noted(Json(Deleted { deleted: name }).into_response(), &saved, Vec::new()))
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_name_codecs_or_take_any() {
        let query = |text| Query::parse(text).unwrap();
        assert_eq!(codecs(&query("src=a"), Kind::Video).unwrap(), []);
        assert_eq!(
            codecs(&query("src=a&video"), Kind::Video).unwrap(),
            [Codec::H264, Codec::H265, Codec::Jpeg]
        );
        assert_eq!(codecs(&query("video=hevc,H264"), Kind::Video).unwrap(), [Codec::H265, Codec::H264]);
        assert_eq!(codecs(&query("audio=any"), Kind::Audio).unwrap().len(), 4);
        assert_eq!(codecs(&query("audio=pcma&audio=opus"), Kind::Audio).unwrap(), [Codec::Pcma, Codec::Opus]);
        assert!(codecs(&query("audio=h264"), Kind::Audio).is_err());
    }
}
