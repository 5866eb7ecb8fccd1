//! HLS and LL-HLS over HTTP: playlists, init segments, segments and parts.

use super::Api;
use super::error::{ApiError, ErrorBody, connect_error, method_not_allowed};
use super::openapi::{self, StreamName};
use super::request::{Name, Query, decode_path, text_header};
use crate::consumers::hls::query::Reload;
use crate::consumers::hls::{Content, Hls, HlsError, Text};
use crate::graph::Wants;
use crate::media::{Codec, Kind};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, options};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
const EXAMPLE: &str = "GET /api/stream.m3u8?src=front";
/// What a path segment may have as it is (RFC 3986 §2.3).
pub(super) const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    let routes = OpenApiRouter::new()
        .routes(routes!(by_query))
        .routes(routes!(by_path))
        .routes(routes!(file))
        .route("/api/stream.m3u8", options(preflight))
        .route("/hls/{name}/index.m3u8", options(preflight))
        .route("/hls/{name}/{prefix}/{file}", options(preflight))
        // Where the playlist of /api/ws leads go2rtc's players.
        .route("/api/hls/{name}/{prefix}/{file}", get(file).options(preflight));
    openapi::map_router(routes, |router| {
        router.method_not_allowed_fallback(async |method, uri| {
            open(method_not_allowed(method, uri).await.into_response())
        })
    })
}

/// A name as one segment of a path, or one value of a query.
pub(super) fn encoded(name: &str) -> PercentEncode<'_> {
    utf8_percent_encode(name, UNRESERVED)
}

/// Players on any site may watch, as with WHEP.
fn open(mut response: Response) -> Response {
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

async fn preflight() -> Response {
    let headers = [
        (header::ALLOW, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Range"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    open((StatusCode::NO_CONTENT, headers).into_response())
}

/// The multivariant playlist of a stream; starts the camera
#[utoipa::path(get, path = "/api/stream.m3u8", tag = "hls",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("video" = Option<String>, Query, description = "Only these codecs, e.g. `h264`; empty leaves video out"),
        ("audio" = Option<String>, Query, description = "Only these codecs, e.g. `aac,opus`; empty leaves sound out")),
    responses(
        (status = 200, body = String, content_type = "application/vnd.apple.mpegurl", description = "The multivariant playlist"),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "No codec that MP4 can carry", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "As many streams as allowed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn by_query(State(api): State<Arc<Api>>, query: Query, headers: HeaderMap) -> Response {
    let answer = async {
        let name = query.require("src", EXAMPLE)?;
        let base = format!("../hls/{}/", encoded(name));
        multivariant(&api, name, &query, &base, &headers).await
    };
    open(answer.await.into_response())
}

/// The multivariant playlist of a stream; starts the camera
#[utoipa::path(get, path = "/hls/{name}/index.m3u8", tag = "hls",
    params(
        StreamName,
        ("video" = Option<String>, Query, description = "Only these codecs, e.g. `h264`; empty leaves video out"),
        ("audio" = Option<String>, Query, description = "Only these codecs, e.g. `aac,opus`; empty leaves sound out")),
    responses(
        (status = 200, body = String, content_type = "application/vnd.apple.mpegurl", description = "The multivariant playlist"),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "No codec that MP4 can carry", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "As many streams as allowed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn by_path(
    State(api): State<Arc<Api>>,
    Name(name): Name,
    query: Query,
    headers: HeaderMap,
) -> Response {
    open(multivariant(&api, &name, &query, "", &headers).await.into_response())
}

async fn multivariant(
    api: &Api,
    name: &str,
    query: &Query,
    base: &str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let stream = api.registry.get(name).ok_or_else(|| ApiError::unknown_stream(name))?;
    let wants = wants(query)?;
    let text = api.hls.multivariant(&stream, &wants, base).await.map_err(|error| hls_error(name, &error))?;
    Ok(playlist(&text, takes_gzip(headers)))
}

/// A media playlist, an init segment, a segment or a part
///
/// Players find these by the multivariant playlist. A playlist with `_HLS_msn`, and a part that the playlist hints at,
/// are answered when they are there (blocking reload).
#[utoipa::path(get, path = "/hls/{name}/{prefix}/{file}", tag = "hls",
    params(
        StreamName,
        ("prefix" = String, Path, description = "Names the session, random"),
        ("file" = String, Path, description = "`index.m3u8`, `init0.mp4`, `seg12.mp4`, `part12.3.mp4`"),
        ("_HLS_msn" = Option<u64>, Query, description = "Wait for this segment"),
        ("_HLS_part" = Option<u64>, Query, description = "Wait for this part of it"),
        ("_HLS_skip" = Option<String>, Query, description = "`YES`: a delta update")),
    responses(
        (status = 200, description = "The file", content(
            (String = "application/vnd.apple.mpegurl"), (Vec<u8> = "video/mp4"))),
        (status = 206, description = "The range of a media file", body = Vec<u8>, content_type = "video/mp4"),
        (status = 400, description = "Too far ahead, or no number", body = ErrorBody),
        (status = 404, description = "Over: load the multivariant playlist again", body = ErrorBody),
        (status = 416, description = "The range is beyond the file's end", body = ErrorBody),
        (status = 503, description = "As many waiting requests as allowed, or nothing came in time", body = ErrorBody)))]
// What each viewer asks for several times a second: nothing is copied out of the request but what is needed, and it is
// gone while the answer is waited for.
async fn file(State(api): State<Arc<Api>>, request: Request) -> Response {
    let gzip = takes_gzip(request.headers());
    let range = text_header(request.headers(), &header::RANGE).to_owned();
    let uri = request.uri().clone();
    drop(request);
    open(answer(&api, &uri, gzip, &range).await.unwrap_or_else(ApiError::into_response))
}

async fn answer(api: &Api, uri: &Uri, gzip: bool, range: &str) -> Result<Response, ApiError> {
    let path = uri.path().strip_prefix("/api").unwrap_or(uri.path());
    let mut pieces = path.splitn(5, '/').skip(2);
    let (Some(name), Some(prefix), Some(file)) = (pieces.next(), pieces.next(), pieces.next()) else {
        return Err(ApiError::bad_request("the path is none of HLS"));
    };
    let name = decode_path(name)?;
    let parameters = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let reload = Reload::parse(parameters)
        .map_err(|why| ApiError::bad_request("bad delivery directive").detail(why))?;
    let content = api.hls.file(&name, prefix, file, reload).await;
    match content.map_err(|error| hls_error(&name, &error))? {
        Content::Playlist(text) => Ok(playlist(&text, gzip)),
        Content::Media(bytes) => Ok(media(bytes, range, api.hls.max_age().as_secs())),
    }
}

/// `video=` and `audio=` narrow the codecs, as with go2rtc: lists separated by commas; an empty one leaves the kind out.
pub(super) fn wants(query: &Query) -> Result<Wants, ApiError> {
    let narrow = |kind: Kind, all: Vec<Codec>| {
        let key = kind.as_str();
        let Some(value) = query.all(key).next() else { return Ok(all) };
        let names: Vec<&str> = value.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let known = |name: &&str| all.iter().any(|codec| codec.name().eq_ignore_ascii_case(name));
        if let Some(unknown) = names.iter().find(|name| **name != "all" && !known(name)) {
            let possible: Vec<String> = all.iter().map(|codec| codec.name().to_ascii_lowercase()).collect();
            return Err(ApiError::bad_request(format!("unknown {key} codec"))
                .detail(format!("{unknown:?} is not one of {}", possible.join(", "))));
        }
        let wanted = |codec: &Codec| {
            names.iter().any(|name| *name == "all" || codec.name().eq_ignore_ascii_case(name))
        };
        Ok(all.into_iter().filter(wanted).collect())
    };
    let all = Hls::wants();
    Ok(Wants { video: narrow(Kind::Video, all.video)?, audio: narrow(Kind::Audio, all.audio)? })
}

fn playlist(text: &Text, gzip: bool) -> Response {
    let compressed = if gzip { text.gzip() } else { None };
    let encoded = compressed.is_some();
    let mut response = Response::new(Body::from(compressed.unwrap_or_else(|| text.plain.clone())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PLAYLIST));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if encoded {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// RFC 9110 §12.5.3.
fn takes_gzip(headers: &HeaderMap) -> bool {
    text_header(headers, &header::ACCEPT_ENCODING).split(',').any(|item| {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = matches!(weight.trim().strip_prefix("q="), Some("0" | "0.0" | "0.00" | "0.000"));
        let coding = coding.trim();
        (coding.eq_ignore_ascii_case("gzip") || coding == "*") && !refused
    })
}

/// What never changes: whole, or the one range that was asked for (RFC 9110 §14).
fn media(bytes: Bytes, asked: &str, max_age: u64) -> Response {
    let length = bytes.len();
    let (status, body, content_range) = match range(asked, length) {
        None => (StatusCode::OK, bytes, None),
        Some(Err(())) => {
            let refused = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "the range is beyond the end")
                .detail(format!("the file has {length} bytes"));
            return match HeaderValue::try_from(format!("bytes */{length}")) {
                Ok(size) => refused.header(header::CONTENT_RANGE, size).into_response(),
                Err(_) => refused.into_response(),
            };
        }
        Some(Ok((from, to))) => {
            let what = format!("bytes {from}-{}/{length}", to - 1);
            (StatusCode::PARTIAL_CONTENT, bytes.slice(from..to), HeaderValue::try_from(what).ok())
        }
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    if let Ok(cache) = HeaderValue::try_from(format!("public, max-age={max_age}, immutable")) {
        headers.insert(header::CACHE_CONTROL, cache);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(content_range) = content_range {
        headers.insert(header::CONTENT_RANGE, content_range);
    }
    response
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n`, as a half-open range. `None` where there is none that is understood: several
/// ranges and other units are ignored, as they may be.
fn range(value: &str, length: usize) -> Option<Result<(usize, usize), ()>> {
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<usize>().ok());
    let (from, to) = match (from, to) {
        ("", last) => (length.saturating_sub(number(last)??), length),
        (from, "") => (number(from)??, length),
        (from, to) => (number(from)??, number(to)??.checked_add(1)?.min(length)),
    };
    Some(if from < to { Ok((from, to)) } else { Err(()) })
}

fn hls_error(name: &str, error: &HlsError) -> ApiError {
    let text = error.to_string();
    let busy = |what: &str| {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, what)
            .detail(text.clone())
            .header(header::RETRY_AFTER, HeaderValue::from_static("2"))
    };
    match error {
        HlsError::Connect(error) => connect_error(name, error),
        HlsError::NoMedia => ApiError::new(StatusCode::GATEWAY_TIMEOUT, "source timed out").detail(text),
        HlsError::Gone => ApiError::new(StatusCode::NOT_FOUND, "unknown playlist")
            .detail(text)
            .hint("load /hls/NAME/index.m3u8 again: it says where the media playlist is now"),
        HlsError::NoFile => ApiError::new(StatusCode::NOT_FOUND, "unknown file").detail(text),
        HlsError::TooFarAhead { .. } => ApiError::bad_request("bad delivery directive").detail(text),
        HlsError::Stalled => busy("source stalled"),
        HlsError::Busy => busy("too many viewers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_can_be_narrowed() {
        let wants = |query: &str| wants(&Query::parse(query).unwrap());
        assert_eq!(wants("src=a").unwrap(), Hls::wants());
        let narrow = wants("video=h264&audio=aac,OPUS").unwrap();
        assert_eq!((narrow.video, narrow.audio), (vec![Codec::H264], vec![Codec::Aac, Codec::Opus]));
        assert_eq!(wants("video=all&audio=").unwrap(), Wants { audio: vec![], ..Hls::wants() });
        assert_eq!(wants("video=vp8").unwrap_err().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (accept, taken) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("*", true),
            ("identity", false),
            ("gzip;q=0", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(takes_gzip(&headers), taken, "{accept}");
        }
    }

    #[test]
    fn one_range_is_served_and_nonsense_is_ignored() {
        for (value, expected) in [
            ("bytes=0-9", Some(Ok((0, 10)))),
            ("bytes=90-", Some(Ok((90, 100)))),
            ("bytes=90-500", Some(Ok((90, 100)))),
            ("bytes=-10", Some(Ok((90, 100)))),
            ("bytes=100-", Some(Err(()))),
            ("bytes=-0", Some(Err(()))),
            ("bytes=5-4", Some(Err(()))),
            ("bytes=0-1,3-4", None),
            ("items=0-1", None),
            ("bytes=+1-2", None),
            ("", None),
        ] {
            assert_eq!(range(value, 100), expected, "{value}");
        }
    }

    #[test]
    fn errors_have_fitting_statuses() {
        use crate::graph::{ConnectError, SourceError};
        for (error, status) in [
            (HlsError::Connect(ConnectError::Removed), 404),
            (HlsError::Connect(SourceError::Refused("x".into()).into()), 502),
            (HlsError::Connect(SourceError::TimedOut("x".into()).into()), 504),
            (HlsError::NoMedia, 504),
            (HlsError::Gone, 404),
            (HlsError::NoFile, 404),
            (HlsError::TooFarAhead { last: 7 }, 400),
            (HlsError::Stalled, 503),
            (HlsError::Busy, 503),
        ] {
            assert_eq!(hls_error("a", &error).status().as_u16(), status, "{error:?}");
        }
    }
}
