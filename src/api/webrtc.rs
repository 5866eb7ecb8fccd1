//! WebRTC over HTTP: WHEP (draft-ietf-wish-whep, which shares RFC 9725's session rules), and the three other forms of
//! `POST /api/webrtc` that go2rtc's clients use: JSON, form and raw.

use super::error::{ApiError, ErrorBody, method_not_allowed};
use super::openapi::{self, StreamName};
use super::request::{Name, Query, media_type, text_header};
use super::{Api, ice};
use crate::consumers::webrtc::{Answer, Client, OfferError, TrickleError, Trickled};
use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "described only")]
struct SessionName {
    /// From the answer's `Location`.
    session: String,
}

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
/// What the viewer does not get, in words.
const NOTE: HeaderName = HeaderName::from_static("streamgate-note");
const EXAMPLE: &str = "POST /api/webrtc?src=front with the SDP offer as body";

const OFFER_HINT: &str =
    "send what RTCPeerConnection.createOffer() gives after addTransceiver('video', {direction: 'recvonly'})";

/// Clients pad or don't.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    let routes = OpenApiRouter::new()
        .routes(routes!(post_any, endpoint_options))
        .routes(routes!(post_whep, whep_options))
        .routes(routes!(trickle, end, session_options));
    // The refusal of a method is for any origin to read, too.
    openapi::map_router(routes, |router| {
        router.method_not_allowed_fallback(method_not_allowed).layer(middleware::from_fn(allow_any_origin))
    })
}

/// Players on any site may watch; credentials are never sent along, so a site gets no further than its visitor's network.
async fn allow_any_origin(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, Link, ETag, Accept-Patch, Streamgate-Note"),
    );
    response
}

fn preflight(methods: &'static str) -> Response {
    let headers = [
        (header::ALLOW, methods),
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// CORS preflight
#[utoipa::path(options, path = "/api/webrtc", tag = "webrtc", responses((status = 204, description = "What is allowed")))]
async fn endpoint_options() -> Response {
    offers_preflight()
}

/// CORS preflight
#[utoipa::path(options, path = "/whep/{name}", tag = "webrtc", params(StreamName),
    responses((status = 204, description = "What is allowed")))]
async fn whep_options() -> Response {
    offers_preflight()
}

fn offers_preflight() -> Response {
    let mut response = preflight("POST, OPTIONS");
    response.headers_mut().insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    response
}

/// CORS preflight
#[utoipa::path(options, path = "/api/webrtc/{session}", tag = "webrtc", params(SessionName),
    responses((status = 204, description = "What is allowed")))]
async fn session_options() -> Response {
    let mut response = preflight("PATCH, DELETE, OPTIONS");
    response.headers_mut().insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    response
}

/// Watches a stream: an offer is answered
///
/// The media type of the body tells which of four forms it is: WHEP (201), JSON, `data=` of a form with the offer in
/// base64, or the bare SDP under any other type (all 200).
#[utoipa::path(post, path = "/api/webrtc", tag = "webrtc",
    params(("src" = String, Query, description = "The stream's name")),
    request_body(description = "What `RTCPeerConnection.createOffer()` gives", content(
        (String = "application/sdp"), (SessionDescription = "application/json"),
        (String = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The answer, in the form of the offer", content(
            (SessionDescription = "application/json"), (String = "application/sdp"), (String = "text/plain"))),
        (status = 201, body = String, content_type = "application/sdp", description = "The answer (WHEP)", headers(
            ("Location" = String, description = "The session: PATCH and DELETE go there"),
            ("ETag" = String, description = "Names the ICE session"),
            ("Link" = String, description = "ICE servers (RFC 9725 §4.6)"),
            ("Streamgate-Note" = String, description = "What the viewer does not get, such as AAC sound"))),
        (status = 400, description = "The offer can't be read", body = ErrorBody),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 422, description = "B-frames, or no codec in common: use the fallback", body = ErrorBody),
        (status = 501, description = "Publishing (`dst`) is not possible yet", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "As many viewers as allowed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn post_any(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if query.has("dst") && !query.has("src") {
        return Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "publishing by WebRTC is not possible yet")
            .hint("src=NAME watches a stream"));
    }
    let name = query.require("src", EXAMPLE)?;
    let body = api.bodies.read_text(&headers, body).await?;
    match media_type(&headers).as_str() {
        SDP => whep(&api, name, &body, remote, &headers).await,
        "application/json" => {
            let answer = offer(&api, name, &sdp_of_json(&body)?, remote, &headers).await?;
            let sdp = Json(json!({"type": "answer", "sdp": answer.sdp}));
            Ok((notes(&answer), sdp).into_response())
        }
        "application/x-www-form-urlencoded" => {
            let answer = offer(&api, name, &sdp_of_form(&body)?, remote, &headers).await?;
            Ok((notes(&answer), BASE64.encode(&answer.sdp)).into_response())
        }
        _ => {
            let answer = offer(&api, name, &body, remote, &headers).await?;
            Ok((notes(&answer), [(header::CONTENT_TYPE, SDP)], answer.sdp).into_response())
        }
    }
}

/// Watches a stream by WHEP
#[utoipa::path(post, path = "/whep/{name}", tag = "webrtc", params(StreamName),
    request_body(content = String, content_type = "application/sdp"),
    responses(
        (status = 201, body = String, content_type = "application/sdp", description = "The answer", headers(
            ("Location" = String, description = "The session: PATCH and DELETE go there"),
            ("ETag" = String, description = "Names the ICE session"),
            ("Link" = String, description = "ICE servers (RFC 9725 §4.6)"),
            ("Streamgate-Note" = String, description = "What the viewer does not get, such as AAC sound"))),
        (status = 400, description = "The offer can't be read", body = ErrorBody),
        (status = 404, description = "Unknown stream", body = ErrorBody),
        (status = 415, description = "Offers are sent as `application/sdp`", body = ErrorBody),
        (status = 422, description = "B-frames, or no codec in common: use the fallback", body = ErrorBody),
        (status = 502, description = "The camera can't be reached, refused or failed", body = ErrorBody),
        (status = 503, description = "As many viewers as allowed", body = ErrorBody),
        (status = 504, description = "The camera did not answer in time", body = ErrorBody)))]
async fn post_whep(
    State(api): State<Arc<Api>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    Name(name): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let body = api.bodies.read_text(&headers, body).await?;
    match media_type(&headers).as_str() {
        SDP => whep(&api, &name, &body, remote, &headers).await,
        other => Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media type not supported")
            .detail(format!("Content-Type is {other:?}"))
            .hint("WHEP offers are sent as application/sdp")
            .header(ACCEPT_POST, HeaderValue::from_static(SDP))),
    }
}

/// WHEP's 201: the answer, where the session is, and what a player needs to know.
async fn whep(
    api: &Api,
    name: &str,
    sdp: &str,
    remote: SocketAddr,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let answer = offer(api, name, sdp, remote, headers).await?;
    let known = [
        (header::CONTENT_TYPE, SDP.to_owned()),
        (header::LOCATION, format!("/api/webrtc/{}", answer.session)),
        (header::ETAG, format!("\"{}\"", answer.etag)),
        (ACCEPT_PATCH, FRAGMENT.to_owned()),
    ];
    let mut response = (StatusCode::CREATED, known, notes(&answer), answer.sdp).into_response();
    for link in ice::links(&api.live.ice_servers()) {
        response.headers_mut().append(header::LINK, link);
    }
    Ok(response)
}

/// What the viewer does not get. A note that is no header text is left out; the API's list of viewers has it.
fn notes(answer: &Answer) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for note in answer.notes.iter().filter_map(|note| HeaderValue::from_str(note).ok()) {
        headers.append(NOTE, note);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
}

/// A client that hangs up while the camera is waited for drops this future, and with it all that it holds.
async fn offer(
    api: &Api,
    name: &str,
    sdp: &str,
    remote: SocketAddr,
    headers: &HeaderMap,
) -> Result<Answer, ApiError> {
    let stream = api.registry.get(name).ok_or_else(|| ApiError::unknown_stream(name))?;
    let user_agent: String = text_header(headers, &header::USER_AGENT).chars().take(200).collect();
    let client = Client { remote, user_agent };
    api.webrtc.offer(&stream, sdp, client).await.map_err(|error| {
        tracing::info!(stream = name, %remote, "WebRTC viewer refused: {error}");
        offer_error(name, &error)
    })
}

fn offer_error(name: &str, error: &OfferError) -> ApiError {
    match error {
        OfferError::BadOffer(why) => ApiError::bad_request("bad SDP offer").detail(why).hint(OFFER_HINT),
        OfferError::NoMedia => {
            ApiError::bad_request("bad SDP offer").detail(error.to_string()).hint(OFFER_HINT)
        }
        OfferError::Incompatible { reason } => {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "the stream can't be played over WebRTC here")
                .detail(reason)
        }
        OfferError::Source(error) => error.into(),
        OfferError::Removed => ApiError::unknown_stream(name),
        OfferError::Busy => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many viewers")
            .detail(error.to_string())
            .header(header::RETRY_AFTER, HeaderValue::from_static("10")),
    }
}

/// An offer or an answer, as `RTCSessionDescription` has it.
#[derive(Deserialize, utoipa::ToSchema)]
struct SessionDescription {
    /// `offer` or `answer`.
    r#type: Option<String>,
    sdp: String,
}

fn sdp_of_json(body: &str) -> Result<String, ApiError> {
    let bad = |why: String| {
        ApiError::bad_request("bad JSON offer").detail(why).hint(r#"{"type": "offer", "sdp": "v=0…"}"#)
    };
    let offer: SessionDescription = serde_json::from_str(body).map_err(|error| bad(error.to_string()))?;
    match offer.r#type.as_deref() {
        None | Some("offer") => Ok(offer.sdp),
        Some(other) => Err(bad(format!("type is {other:?}, not \"offer\""))),
    }
}

fn sdp_of_form(body: &str) -> Result<String, ApiError> {
    let bad = |why: &str| {
        ApiError::bad_request("bad form offer")
            .detail(why)
            .hint("send data=<base64 of the SDP>, or the SDP itself with Content-Type: application/sdp")
    };
    let (_, data) = url::form_urlencoded::parse(body.as_bytes())
        .find(|(key, _)| key == "data")
        .ok_or_else(|| bad("there is no field \"data\""))?;
    // A `+` that was not percent-encoded has become a space.
    let data = data.trim_matches(['\r', '\n']).replace(' ', "+");
    let sdp = BASE64.decode(data).map_err(|_| bad("\"data\" is no base64"))?;
    String::from_utf8(sdp).map_err(|_| bad("\"data\" is no UTF-8 text"))
}

/// Trickles candidates or restarts ICE (RFC 9725 §4.3)
#[utoipa::path(patch, path = "/api/webrtc/{session}", tag = "webrtc",
    params(SessionName, ("If-Match" = String, Header, description = "The session's `ETag`, or `*` to restart ICE")),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag"),
    responses(
        (status = 200, body = String, content_type = "application/trickle-ice-sdpfrag", description = "ICE restarted",
            headers(("ETag" = String, description = "Names the new ICE session"))),
        (status = 204, description = "Candidates taken"),
        (status = 400, description = "The fragment can't be read", body = ErrorBody),
        (status = 404, description = "Unknown session", body = ErrorBody),
        (status = 412, description = "Another ICE session", body = ErrorBody),
        (status = 415, description = "Another media type is needed", body = ErrorBody),
        (status = 428, description = "`If-Match` is missing", body = ErrorBody)))]
async fn trickle(
    State(api): State<Arc<Api>>,
    Name(session): Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let fragment = api.bodies.read_text(&headers, body).await?;
    let media_type = media_type(&headers);
    if media_type != FRAGMENT {
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media type not supported")
            .detail(format!("Content-Type is {media_type:?}"))
            .hint(format!("candidates are sent as {FRAGMENT}"))
            .header(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT)));
    }
    let if_match = headers.get(header::IF_MATCH).and_then(|value| value.to_str().ok()).ok_or_else(|| {
        ApiError::new(StatusCode::PRECONDITION_REQUIRED, "If-Match is missing")
            .hint("send the ETag of the answer, or * to restart ICE")
    })?;
    match api.webrtc.trickle(&session, Some(if_match), &fragment) {
        Ok(Trickled::NoContent) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Trickled::Restarted { etag, fragment }) => {
            let headers =
                [(header::CONTENT_TYPE, FRAGMENT.to_owned()), (header::ETAG, format!("\"{etag}\""))];
            Ok((headers, fragment).into_response())
        }
        Err(TrickleError::NotFound) => Err(unknown_session()),
        Err(error @ TrickleError::EtagMismatch) => {
            Err(ApiError::new(StatusCode::PRECONDITION_FAILED, "another ICE session")
                .detail(error.to_string()))
        }
        Err(TrickleError::Bad(why)) => Err(ApiError::bad_request("bad SDP fragment").detail(why)),
    }
}

/// Ends the viewer at once
#[utoipa::path(delete, path = "/api/webrtc/{session}", tag = "webrtc", params(SessionName),
    responses(
        (status = 200, description = "Ended"),
        (status = 404, description = "Unknown session", body = ErrorBody)))]
async fn end(State(api): State<Arc<Api>>, Name(session): Name) -> Result<StatusCode, ApiError> {
    if api.webrtc.close(&session) { Ok(StatusCode::OK) } else { Err(unknown_session()) }
}

fn unknown_session() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown session")
        .detail("there is no such WebRTC session, or no more")
        .hint("POST a new offer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::SourceError;

    #[test]
    fn json_offers_are_read() {
        assert_eq!(sdp_of_json(r#"{"type":"offer","sdp":"v=0\r\n"}"#).unwrap(), "v=0\r\n");
        assert_eq!(sdp_of_json(r#"{"sdp":"v=0","ice_servers":[]}"#).unwrap(), "v=0");
        for bad in ["", "[]", "{}", r#"{"type":"answer","sdp":"v=0"}"#, r#"{"sdp":1}"#] {
            assert_eq!(sdp_of_json(bad).unwrap_err().status(), StatusCode::BAD_REQUEST, "{bad}");
        }
    }

    #[test]
    fn form_offers_are_read_with_and_without_padding() {
        for data in ["dj0wDQo=", "dj0wDQo", "dj0wDQo%3D"] {
            assert_eq!(sdp_of_form(&format!("data={data}")).unwrap(), "v=0\r\n", "{data}");
        }
        // 0xfb 0xef needs a plus sign in base64: sent bare it arrives as a space.
        assert_eq!(sdp_of_form("data=w7/Dvz4+").unwrap(), "ÿÿ>>");
        for bad in ["", "v=0", "data=*", "data=%ff", "data=/w=="] {
            assert!(sdp_of_form(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refused_offers_have_fitting_statuses() {
        for (error, status) in [
            (OfferError::BadOffer("x".into()), 400),
            (OfferError::NoMedia, 400),
            (OfferError::Incompatible { reason: "B-frames".into() }, 422),
            (OfferError::Source(SourceError::TimedOut("x".into())), 504),
            (OfferError::Source(SourceError::Refused("x".into())), 502),
            (OfferError::Removed, 404),
            (OfferError::Busy, 503),
        ] {
            assert_eq!(offer_error("a", &error).status().as_u16(), status, "{error:?}");
        }
    }

    #[test]
    fn notes_are_headers() {
        let answer = Answer {
            session: "s".into(),
            etag: "e".into(),
            sdp: String::new(),
            notes: vec!["audio left out".into(), "line\nend".into()],
        };
        let headers = notes(&answer);
        assert_eq!(headers.get_all(NOTE).iter().count(), 1);
    }
}
