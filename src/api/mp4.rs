//! MP4 over HTTP: a stream that goes on, and one keyframe.

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::request::{Query, text_header};
use super::ws::mse_error;
use crate::consumers::mse::{Chunk, Client, Init, Keyframe, Mse, MseError, Viewer, Way};
use crate::graph::{Stream, Wants};
use crate::media::Codec;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use percent_encoding::utf8_percent_encode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const STREAM_EXAMPLE: &str = "GET /api/stream.mp4?src=front&duration=10";
const FRAME_EXAMPLE: &str = "GET /api/frame.mp4?src=front";
/// Seconds that may be asked for: a day.
const MAX_DURATION: u64 = 86_400;
/// A file with a duration ends when the camera is silent for so long: whoever records waits for the end.
const SILENCE: Duration = Duration::from_secs(5);
/// Characters of a file name at most.
const MAX_FILENAME: usize = 120;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(stream_mp4)).routes(routes!(frame_mp4))
}

/// A stream as MP4 that goes on
#[utoipa::path(get, path = "/api/stream.mp4", tag = "mp4",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("duration" = Option<u64>, Query, description = "Ends it after so many seconds, or 5 s after the camera has fallen silent"),
        ("filename" = Option<String>, Query, description = "Makes it a download of that name"),
        ("mp4" = Option<String>, Query, description = "Empty: only AAC; `flac`: PCMA and PCMU, too; `all`"),
        ("video" = Option<String>, Query, description = "Only these codecs, e.g. `h264`; empty leaves video out"),
        ("audio" = Option<String>, Query, description = "Only these codecs, e.g. `aac,opus`; empty leaves sound out")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "video/mp4", description = "Fragmented MP4 from the cached keyframe on"),
        (status = 302, description = "To HLS, for a client that begins with `Range: bytes=0-1`"),
        (status = 400, description = "A parameter is missing or wrong", body = ErrorBody),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "No codec that is wanted", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "As many viewers as allowed", body = ErrorBody),
        (status = 504, description = "Nothing came in time", body = ErrorBody)))]
async fn stream_mp4(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, stream) = find(&api, &query, STREAM_EXAMPLE)?;
    let duration = duration(&query)?;
    let disposition = disposition(&query);
    if duration.is_none() && disposition.is_none() && wants_a_file_with_an_end(&headers) {
        // Apple's players begin by asking for two bytes and for the length, which a live stream can't tell.
        let filters = query.pairs().filter(|(key, _)| ["video", "audio"].contains(key));
        let mut location = format!("stream.m3u8?src={}", super::hls::encoded(name));
        for (key, value) in filters {
            location.push_str(&format!("&{key}={}", super::hls::encoded(value)));
        }
        let location = HeaderValue::from_str(&location).map_err(|_| ApiError::bad_request("bad query"))?;
        return Ok((StatusCode::FOUND, [(header::LOCATION, location)]).into_response());
    }
    let wants = wants(&query)?;
    let client = client(remote, &headers);
    let refused = |error: MseError| mse_error(name, &error);
    let mut viewer = api.mse.view(&stream, wants, Way::MP4, client).await.map_err(refused)?;
    let init = first(&mut viewer, api.patience).await.map_err(refused)?;
    let file = Playing { viewer, init: init.clone(), next: Some(init.bytes.clone()), duration };
    let body = Body::from_stream(stream::unfold(file, |mut file| async move {
        let bytes = file.bytes().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), file))
    }));
    Ok((known(&init, disposition), body).into_response())
}

/// Waits for the first init segment: then there is media.
async fn first(viewer: &mut Viewer, patience: Duration) -> Result<Arc<Init>, MseError> {
    loop {
        match timeout(patience, viewer.next()).await.unwrap_or(Err(MseError::NoMedia))? {
            Chunk::Init(init) => return Ok(init),
            Chunk::Media(_) => {}
        }
    }
}

/// A response's body.
struct Playing {
    viewer: Viewer,
    init: Arc<Init>,
    next: Option<Bytes>,
    duration: Option<Duration>,
}

impl Playing {
    /// The next bytes, or the end: the duration is over or can't be had, the viewer was ended, or the source's parameters
    /// have changed, which one file can't say.
    async fn bytes(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.next.take() {
            return Some(bytes);
        }
        if self.duration.is_some_and(|duration| self.viewer.length() >= duration.as_secs_f64()) {
            return None;
        }
        let next = match self.duration {
            Some(_) => timeout(SILENCE, self.viewer.next()).await.ok()?,
            None => self.viewer.next().await,
        };
        match next {
            Ok(Chunk::Media(bytes)) => Some(bytes),
            Ok(Chunk::Init(init)) if init.bytes == self.init.bytes => Some(Bytes::new()),
            Ok(Chunk::Init(_)) | Err(_) => None,
        }
    }
}

/// The newest keyframe as MP4
#[utoipa::path(get, path = "/api/frame.mp4", tag = "mp4",
    params(
        ("src" = String, Query, description = "The stream's name"),
        ("filename" = Option<String>, Query, description = "Makes it a download of that name"),
        ("video" = Option<String>, Query, description = "Only these codecs, e.g. `h264`; empty leaves video out")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "video/mp4", description = "One picture that is shown for a second"),
        (status = 400, description = "A parameter is missing or wrong", body = ErrorBody),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "No codec that is wanted", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "As many viewers as allowed", body = ErrorBody),
        (status = 504, description = "Nothing came in time", body = ErrorBody)))]
async fn frame_mp4(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, stream) = find(&api, &query, FRAME_EXAMPLE)?;
    let wants = Wants { audio: Vec::new(), ..wants(&query)? };
    let way = Way::MP4;
    let refused = |error: MseError| mse_error(name, &error);
    let mut keyframes =
        Keyframe::of(&api.mse, &stream, wants, way, client(remote, &headers)).await.map_err(refused)?;
    let (init, bytes) = keyframes.first(api.patience).await.map_err(refused)?;
    Ok((known(&init, disposition(&query)), bytes).into_response())
}

fn find<'a>(api: &Api, query: &'a Query, example: &str) -> Result<(&'a str, Arc<Stream>), ApiError> {
    let name = query.require("src", example)?;
    let stream = api.registry.get(name).ok_or_else(|| ApiError::unknown_stream(name))?;
    Ok((name, stream))
}

fn client(remote: SocketAddr, headers: &HeaderMap) -> Client {
    let user_agent = text_header(headers, &header::USER_AGENT).chars().take(200).collect();
    Client { remote_addr: remote.to_string(), user_agent }
}

/// `mp4` is go2rtc's short form: H.264, H.265 and AAC; `mp4=flac` with G.711, `mp4=all` with Opus, too. Else `video=` and
/// `audio=` narrow what is possible.
fn wants(query: &Query) -> Result<Wants, ApiError> {
    let mut wants = super::hls::wants(query)?;
    if let Some(value) = query.all("mp4").next() {
        let allowed: &[Codec] = match value {
            "" => &[Codec::Aac],
            "flac" => &[Codec::Aac, Codec::Pcma, Codec::Pcmu],
            _ => &Mse::wants().audio,
        };
        wants.audio.retain(|codec| allowed.contains(codec));
    }
    Ok(wants)
}

fn duration(query: &Query) -> Result<Option<Duration>, ApiError> {
    let Some(text) = query.get("duration") else { return Ok(None) };
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u64>().ok();
    let seconds = seconds.filter(|seconds| (1..=MAX_DURATION).contains(seconds)).ok_or_else(|| {
        ApiError::bad_request("bad duration")
            .detail(format!("{text:?} is no number of seconds from 1 to {MAX_DURATION}"))
            .hint(format!("e.g. {STREAM_EXAMPLE}"))
    })?;
    Ok(Some(Duration::from_secs(seconds)))
}

/// `Content-Disposition` (RFC 6266) for `filename=`: never a path, and safe for whoever reads only the plain form.
fn disposition(query: &Query) -> Option<HeaderValue> {
    let safe = |c: char| if c.is_control() || "/\\:*?\"<>|".contains(c) { '_' } else { c };
    let name: String = query.get("filename")?.chars().take(MAX_FILENAME).map(safe).collect();
    let name = name.trim_matches(['.', ' ']);
    let name = if name.is_empty() { "stream.mp4" } else { name };
    let plain: String = name.chars().map(|c| if c.is_ascii() && c != '%' { c } else { '_' }).collect();
    let value = format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{}",
        utf8_percent_encode(name, super::hls::UNRESERVED)
    );
    HeaderValue::from_str(&value).ok()
}

/// AVFoundation's first request, by Safari and by apps.
fn wants_a_file_with_an_end(headers: &HeaderMap) -> bool {
    text_header(headers, &header::RANGE).trim() == "bytes=0-1"
}

fn known(init: &Init, disposition: Option<HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: HeaderValue| headers.insert(name, value);
    set(
        header::CONTENT_TYPE,
        HeaderValue::from_str(&init.mime).unwrap_or(HeaderValue::from_static("video/mp4")),
    );
    set(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    set(header::ACCEPT_RANGES, HeaderValue::from_static("none"));
    if let Some(disposition) = disposition {
        set(header::CONTENT_DISPOSITION, disposition);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text).unwrap()
    }

    #[test]
    fn go2rtcs_filters_are_understood() {
        let audio = |text: &str| wants(&query(text)).unwrap().audio;
        assert_eq!(audio("mp4"), [Codec::Aac]);
        assert_eq!(audio("mp4=flac"), [Codec::Aac, Codec::Pcma, Codec::Pcmu]);
        assert_eq!(audio("mp4=all"), Mse::wants().audio);
        assert_eq!(audio("audio=opus&mp4=all"), [Codec::Opus]);
        assert_eq!(audio(""), Mse::wants().audio);
        assert_eq!(wants(&query("video=h265")).unwrap().video, [Codec::H265]);
    }

    #[test]
    fn durations_are_whole_seconds() {
        assert_eq!(duration(&query("duration=15")).unwrap(), Some(Duration::from_secs(15)));
        assert_eq!(duration(&query("duration=15s")).unwrap(), Some(Duration::from_secs(15)));
        assert_eq!(duration(&query("duration=")).unwrap(), None);
        for bad in ["0", "-1", "1.5", "abc", "86401", "99999999999999999999"] {
            let error = duration(&query(&format!("duration={bad}"))).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn file_names_are_no_paths() {
        let named = |name: &str| disposition(&query(&format!("filename={name}")));
        let plain = |name: &str| named(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(
            plain("record.mp4").unwrap(),
            "attachment; filename=\"record.mp4\"; filename*=UTF-8''record.mp4"
        );
        assert!(plain("../../etc/passwd").unwrap().contains("filename=\"_.._etc_passwd\""));
        assert!(plain("a%0D%0ASet-Cookie:x").unwrap().contains("filename=\"a__Set-Cookie_x\""));
        assert!(plain("%EA%B8%88.mp4").unwrap().ends_with("filename*=UTF-8''%EA%B8%88.mp4"));
        assert!(plain("%22").unwrap().contains("filename=\"_\""));
        assert!(plain("...").unwrap().contains("filename=\"stream.mp4\""));
        assert_eq!(plain(""), None);
        assert!(plain(&"x".repeat(10_000)).unwrap().len() < 400);
    }
}
