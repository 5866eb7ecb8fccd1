//! `GET /api/frame.jpeg` and `GET /api/stream.mjpeg`: pictures.

use super::Api;
use super::error::{ApiError, ErrorBody, connect_error};
use super::request::{Query, text_header};
use crate::config::parse_duration;
use crate::consumers::pictures::{DecodeError, Motion, PictureError, Request, Size};
use crate::graph::{ConsumerInfo, Stream};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const FRAME: &str = "GET /api/frame.jpeg?src=front";
const MOTION: &str = "GET /api/stream.mjpeg?src=front";
/// Between the parts of an MJPEG answer. go2rtc's: some clients look for it.
const BOUNDARY: &str = "\r\n--frame\r\n";

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(frame)).routes(routes!(motion))
}

/// The newest keyframe as a JPEG
#[utoipa::path(get, path = "/api/frame.jpeg", tag = "pictures",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("w" = Option<u16>, Query, description = "Width in pixels; alone it keeps the aspect ratio"),
        ("h" = Option<u16>, Query, description = "Height in pixels"),
        ("cache" = Option<String>, Query, description = "A picture no older than this will do, e.g. `10s`"),
        ("live" = Option<String>, Query, description = "Only if the stream is live anyway: nothing is dialled for it")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/jpeg", description = "The picture"),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "The stream has no video", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "ffmpeg is missing or failed, or as many requests as allowed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn frame(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, stream) = find(&api, &query, FRAME)?;
    let request = Request { size: size(&query)?, max_age: max_age(&query)?, only_live: query.has("live") };
    let made = api.pictures.snapshot(&stream, &request, viewer(remote, &headers)).await;
    let jpeg = made.map_err(|error| picture_error(&name, &error))?;
    let known = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store")];
    Ok((known, jpeg).into_response())
}

/// Pictures one after another: all of an MJPEG camera, the keyframes of others
#[utoipa::path(get, path = "/api/stream.mjpeg", tag = "pictures",
    params(
        ("w" = Option<u16>, Query, description = "Width in pixels; alone it keeps the aspect ratio"),
        ("h" = Option<u16>, Query, description = "Height in pixels"),
        ("src" = String, Query, description = "The stream's name")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "multipart/x-mixed-replace", description = "JPEGs, boundary `frame`"),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "The stream has no video", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "ffmpeg is missing or failed, or as many requests as allowed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn motion(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, stream) = find(&api, &query, MOTION)?;
    let made = api.pictures.motion(&stream, size(&query)?, viewer(remote, &headers)).await;
    let motion = made.map_err(|error| picture_error(&name, &error))?;
    let known = [
        (header::CONTENT_TYPE, "multipart/x-mixed-replace; boundary=frame"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((known, [("x-accel-buffering", "no")], Body::from_stream(parts(motion))).into_response())
}

/// Each picture is followed by the boundary at once: browsers show it only then.
fn parts(motion: Motion) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
    futures_util::stream::unfold((motion, true), |(mut motion, is_first)| async move {
        let jpeg = motion.next().await.ok()?;
        let before = if is_first { BOUNDARY.trim_start() } else { "" };
        let head = format!("{before}Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
        let part = [head.as_bytes(), &jpeg, BOUNDARY.as_bytes()].concat();
        Some((Ok(part.into()), (motion, false)))
    })
}

fn viewer(remote: SocketAddr, headers: &HeaderMap) -> ConsumerInfo {
    let user_agent = text_header(headers, &header::USER_AGENT).chars().take(200).collect();
    ConsumerInfo { protocol: "http", remote_addr: remote.to_string(), user_agent, ..ConsumerInfo::default() }
}

fn find(api: &Api, query: &Query, example: &str) -> Result<(String, Arc<Stream>), ApiError> {
    let name = query.require("src", example)?;
    let stream = api.registry.get(name).ok_or_else(|| ApiError::unknown_stream(name))?;
    Ok((name.to_owned(), stream))
}

/// go2rtc takes the long names, too.
fn size(query: &Query) -> Result<Size, ApiError> {
    let side =
        |keys: [&str; 2]| {
            let Some((key, text)) = keys.into_iter().find_map(|key| Some((key, query.get(key)?))) else {
                return Ok(None);
            };
            match text.parse() {
                Ok(pixels) if Size::RANGE.contains(&pixels) => Ok(Some(pixels)),
                _ => Err(ApiError::bad_request(format!("{key}={text} is no size of a picture")).hint(
                    format!("a whole number of pixels from {} to {}", Size::RANGE.start(), Size::RANGE.end()),
                )),
            }
        };
    Ok(Size { width: side(["w", "width"])?, height: side(["h", "height"])? })
}

fn max_age(query: &Query) -> Result<Option<Duration>, ApiError> {
    let read = |text| parse_duration(text).map_err(|why| ApiError::bad_request("bad cache").detail(why));
    query.get("cache").map(read).transpose()
}

fn picture_error(name: &str, error: &PictureError) -> ApiError {
    let text = error.to_string();
    let unavailable = |what: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what).detail(text.clone());
    let again = |error: ApiError| error.header(header::RETRY_AFTER, HeaderValue::from_static("2"));
    match error {
        PictureError::Connect(error) => connect_error(name, error),
        PictureError::NoKeyframe(_) => {
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, "source timed out").detail(text)
        }
        PictureError::NotLive => {
            unavailable("not live").hint("leave out the parameter live: then the stream is started")
        }
        PictureError::Busy(_) => again(unavailable("too many requests for pictures")),
        PictureError::Ended(_) => unavailable("ended"),
        PictureError::Decode(DecodeError::NoDecoder { .. }) => unavailable("no decoder").hint(
            "install ffmpeg on the server (apt install ffmpeg, apk add ffmpeg) so that it is found in PATH; cameras that \
             send MJPEG need none",
        ),
        PictureError::Decode(DecodeError::TooLarge(..)) => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "picture too large").detail(text)
        }
        PictureError::Decode(DecodeError::Failed { .. }) => unavailable("not decoded"),
        PictureError::Decode(DecodeError::TimedOut(_)) => again(unavailable("decoding took too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_checked() {
        let query = |text| Query::parse(text).unwrap();
        assert_eq!(size(&query("src=a")).unwrap(), Size::default());
        let both = Size { width: Some(320), height: Some(90) };
        assert_eq!(size(&query("w=320&height=90")).unwrap(), both);
        for wrong in ["w=0", "w=-1", "h=5000", "h=x", "width=99999999999"] {
            assert_eq!(size(&query(wrong)).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
        assert_eq!(max_age(&query("cache=10s")).unwrap(), Some(Duration::from_secs(10)));
        assert!(max_age(&query("cache=ten")).is_err());
    }
}
