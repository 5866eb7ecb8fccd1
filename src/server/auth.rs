//! Who may do what while no users are configured: everybody watches, only this machine changes anything.
//!
//! A request that changes something, reads the configuration or the log, or makes the server dial, must come from this
//! machine: from a loopback address, not through a proxy, with a `Host` that names this machine (which stops DNS
//! rebinding), and not from a page of another site (`Origin`, `Sec-Fetch-Site`).

use super::Connection;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::{BoxFuture, Either, FutureExt, ready};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tower::Service;

/// Whether a request may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No: 403.
    Deny(Denial),
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The client is on another machine.
    Remote,
    /// A proxy on this machine passed it on for somebody else.
    Proxied,
    /// `Host` does not name this machine, or is missing or there twice.
    Host,
    /// A page of another site sent it.
    CrossSite,
    /// A page of another site opens a WebSocket: browsers ask nobody before they do.
    ForeignSocket,
}

impl Denial {
    fn detail(self) -> &'static str {
        match self {
            Denial::Remote => {
                "only clients on the server's own machine may do this, and you connect from another one"
            }
            Denial::Proxied => {
                "only clients on the server's own machine may do this, and a proxy passed this on"
            }
            Denial::Host => "only clients that address the server as localhost may do this",
            Denial::CrossSite => "a page of another site may not do this",
            Denial::ForeignSocket => "a page of another site may not open a WebSocket here",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Denial::Remote | Denial::Proxied => {
                "run the command on the server's machine against http://localhost, or edit the configuration file there"
            }
            Denial::Host => "use http://localhost or http://127.0.0.1 with the server's port",
            Denial::CrossSite => "open the server's own page on its own machine",
            Denial::ForeignSocket => {
                "to allow players on other sites, set api: {origin: \"*\"} in the configuration"
            }
        }
    }
}

/// Decides on one request. `peer` is the TCP connection's other end. Pure.
pub fn decide(method: &Method, uri: &Uri, peer: SocketAddr, headers: &HeaderMap) -> Decision {
    if is_open(method, uri.path(), uri.query().unwrap_or_default()) {
        return Decision::Allow;
    }
    if !peer.ip().to_canonical().is_loopback() {
        return Decision::Deny(Denial::Remote);
    }
    if headers.keys().any(is_of_a_proxy) {
        return Decision::Deny(Denial::Proxied);
    }
    let Some(host) = only_host(uri, headers).filter(|host| names_this_machine(host)) else {
        return Decision::Deny(Denial::Host);
    };
    if !is_same_origin(&host, headers) {
        return Decision::Deny(Denial::CrossSite);
    }
    Decision::Allow
}

/// With any of these the client is not who connects.
fn is_of_a_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded")
        || ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"]
            .contains(&name)
}

/// What everybody may do. Whatever is not named here is for this machine only.
///
/// Paths are compared as they are, as the router does: an encoded path reaches no handler that is not open.
fn is_open(method: &Method, path: &str, query: &str) -> bool {
    let below = |base: &str| {
        path.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty())
    };
    match *method {
        Method::OPTIONS => true,
        Method::GET | Method::HEAD => !is_private(path) && !dials(path, query),
        // Watching. `dst` would publish.
        Method::POST => {
            path == "/api/webrtc" && !has_parameter(query, &["dst"]) || below("/whep") || below("/api/webrtc")
        }
        Method::PATCH | Method::DELETE => below("/api/webrtc") || below("/whep"),
        _ => false,
    }
}

/// Reading that shows what viewers need not know.
fn is_private(path: &str) -> bool {
    ["/api/config", "/api/log"].iter().any(|private| {
        path.strip_prefix(private).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    })
}

/// The probe: it makes the server connect to a camera.
fn dials(path: &str, query: &str) -> bool {
    path.starts_with("/api/streams") && has_parameter(query, &["video", "audio", "microphone"])
}

fn has_parameter(query: &str, names: &[&str]) -> bool {
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| names.contains(&name.as_ref()))
}

/// The request's one authority: HTTP/2 and absolute targets have it in the URI, the rest in `Host`.
fn only_host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let header = match (first, second) {
        (_, Some(_)) => return None,
        (first, None) => first.map(|value| value.to_str().map(str::to_ascii_lowercase)).transpose().ok()?,
    };
    let target = uri.authority().map(|authority| authority.as_str().to_ascii_lowercase());
    match (target, header) {
        (Some(target), Some(header)) if target != header => None,
        (target, header) => target.or(header),
    }
}

/// `localhost`, `127.x.x.x` or `[::1]`, with or without a port.
fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let ip = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').and_then(|v6| v6.parse().ok()).map(IpAddr::V6),
        None => name.parse().ok().map(IpAddr::V4),
    };
    name == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback())
}

fn is_same_origin(host: &str, headers: &HeaderMap) -> bool {
    let same_origin = headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == Some(host))
    });
    // `same-site` is another port of this machine. Old browsers and tools send none.
    let site = HeaderName::from_static("sec-fetch-site");
    let same_site = headers.get_all(site).iter().all(|site| site == "same-origin" || site == "none");
    same_origin && same_site
}

/// Whether a WebSocket is opened by a page of another site. As with go2rtc, a `Host` without a port (some proxies drop it)
/// is met by an origin of any port.
fn is_foreign_socket(uri: &Uri, headers: &HeaderMap) -> bool {
    if uri.path() != "/api/ws" {
        return false;
    }
    let host = only_host(uri, headers);
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        let from = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
        let name = |from: &str| from.rsplit_once(':').map_or(from, |(name, _)| name).to_owned();
        from.is_none() || (from != host.as_deref() && from.map(name) != host)
    })
}

/// Puts the decision before every route of `router`. With `any_origin` (`api.origin: "*"`, which may change) pages on
/// other sites may read and watch; what [`decide`] keeps for this machine is never opened to them.
pub fn protect(router: Router, any_origin: Arc<AtomicBool>) -> Protected {
    Protected { router, any_origin }
}

/// A router with [`decide`] before it. Not a middleware of axum's: those box twice what they call, for each request, and
/// this has nothing to await.
#[derive(Debug, Clone)]
pub struct Protected {
    router: Router,
    any_origin: Arc<AtomicBool>,
}

type Answered<F> = Either<F, BoxFuture<'static, Result<Response, Infallible>>>;

impl<B> Service<Request<B>> for Protected
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
    <Router as Service<Request<B>>>::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answered<<Router as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.router.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let any_origin = self.any_origin.load(Ordering::Relaxed);
        if let Decision::Deny(denial) = check(&request, any_origin) {
            tracing::debug!(method = %request.method(), path = request.uri().path(), ?denial, "request refused");
            return Either::Right(ready(Ok(forbidden(&request, denial))).boxed());
        }
        if !any_origin {
            return Either::Left(self.router.call(request));
        }
        let preflight = *request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let methods = open_methods(request.uri());
        let answer = self.router.call(request);
        Either::Right(answer.map(move |answer| answer.map(|answer| open(answer, preflight, methods))).boxed())
    }
}

fn check<B>(request: &Request<B>, any_origin: bool) -> Decision {
    let uri = request.uri();
    let decision = match request.extensions().get::<Connection>() {
        Some(connection) => decide(request.method(), uri, connection.peer, request.headers()),
        // Nobody knows who asks: as a stranger.
        None if is_open(request.method(), uri.path(), uri.query().unwrap_or_default()) => Decision::Allow,
        None => Decision::Deny(Denial::Remote),
    };
    match decision {
        Decision::Allow if !any_origin && is_foreign_socket(uri, request.headers()) => {
            Decision::Deny(Denial::ForeignSocket)
        }
        decision => decision,
    }
}

/// Lets pages on other sites read an answer.
fn open(mut response: Response, preflight: bool, methods: &'static str) -> Response {
    // Whoever knows the resource better has answered already (WHEP).
    if response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        return response;
    }
    if preflight && !response.status().is_success() {
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
        headers
            .insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("content-type, if-match"));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// What a page on another site may use on this path.
fn open_methods(uri: &Uri) -> &'static str {
    let query = uri.query().unwrap_or_default();
    match (is_open(&Method::POST, uri.path(), query), is_open(&Method::DELETE, uri.path(), query)) {
        (_, true) => "GET, HEAD, POST, PATCH, DELETE",
        (true, false) => "GET, HEAD, POST",
        (false, false) => "GET, HEAD",
    }
}

fn forbidden<B>(request: &Request<B>, denial: Denial) -> Response {
    let body = serde_json::json!({
        "error": format!("{} {} is not allowed", request.method(), request.uri().path()),
        "detail": denial.detail(),
        "hint": denial.hint(),
    });
    let headers = [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (StatusCode::FORBIDDEN, headers, axum::Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "127.0.0.1:5000";
    const HERE: &[(&str, &str)] = &[("host", "localhost:1984")];

    fn ask(method: &str, uri: &str, peer: &str, headers: &[(&str, &str)]) -> Decision {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        decide(&method.parse().unwrap(), &uri.parse().unwrap(), peer.parse().unwrap(), &map)
    }

    #[test]
    fn everybody_may_read_and_watch() {
        for (method, uri) in [
            ("GET", "/"),
            ("GET", "/api"),
            ("HEAD", "/api/streams"),
            ("GET", "/api/streams?src=front"),
            ("GET", "/api/streams/front"),
            ("GET", "/api/configuration-of-nothing"),
            ("GET", "/api/ws?src=front"),
            ("GET", "/api/stream.mp4?src=front&video=h264&audio"),
            ("HEAD", "/api/stream.mp4?src=front"),
            ("GET", "/api/frame.mp4?src=front"),
            ("GET", "/api/frame.jpeg?src=front&w=320"),
            ("GET", "/api/stream.mjpeg?src=front"),
            ("GET", "/api/stream.m3u8?src=front&video"),
            ("GET", "/api/events"),
            ("GET", "/api/streams.dot"),
            ("GET", "/api/preload"),
            ("GET", "/stream/player/%EA%B8%88"),
            ("OPTIONS", "/api/streams"),
            ("POST", "/api/webrtc?src=front"),
            ("POST", "/whep/front"),
            ("PATCH", "/api/webrtc/session"),
            ("DELETE", "/whep/front/session"),
        ] {
            for headers in [
                &[][..],
                &[
                    ("host", "cam.example.org"),
                    ("origin", "https://other.example"),
                    ("sec-fetch-site", "cross-site"),
                ],
            ] {
                assert_eq!(ask(method, uri, "203.0.113.9:1", headers), Decision::Allow, "{method} {uri}");
            }
        }
    }

    #[test]
    fn only_own_pages_open_websockets() {
        for (host, origin, foreign) in [
            ("cam.example:1984", Some("http://cam.example:1984"), false),
            ("cam.example:1984", None, false),
            ("cam.example", Some("https://cam.example:8443"), false),
            ("[::1]:1984", Some("http://[::1]:1984"), false),
            ("cam.example:1984", Some("http://cam.example:80"), true),
            ("cam.example:1984", Some("http://evil.example"), true),
            ("cam.example", Some("http://evilcam.example"), true),
            ("cam.example", Some("null"), true),
            ("cam.example", Some("file://"), true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            let socket = Uri::from_static("/api/ws?src=a");
            assert_eq!(is_foreign_socket(&socket, &headers), foreign, "{host} {origin:?}");
            assert!(!is_foreign_socket(&Uri::from_static("/api/streams"), &headers));
        }
    }

    const GUARDED: &[(&str, &str)] = &[
        ("PUT", "/api/streams?name=a&src=rtsp://b"),
        ("PATCH", "/api/streams?name=a&src=rtsp://b"),
        ("DELETE", "/api/streams?src=a"),
        ("DELETE", "/api/streams/a/consumers/1"),
        ("POST", "/api/streams?src=a&dst=rtmp://b"),
        ("DELETE", "/api/streams?src=a&dst=rtsp://b"),
        ("PUT", "/api/preload?src=a"),
        ("DELETE", "/api/preload?src=a"),
        ("POST", "/api/preload?src=a"),
        ("POST", "/api/ws?src=a"),
        ("POST", "/api/events"),
        ("POST", "/api/webrtc?dst=a"),
        ("POST", "/api/webrtc?src=a&d%73t=a"),
        ("DELETE", "/api/webrtc"),
        ("DELETE", "/api/webrtc/"),
        ("DELETE", "/whep/"),
        ("POST", "/api/webrtcx"),
        ("POST", "/whip/a"),
        ("POST", "/api/restart"),
        ("POST", "/api/exit?code=1"),
        ("POST", "//api/webrtc"),
        ("PUT", "/"),
        ("GET", "/api/config"),
        ("HEAD", "/api/config"),
        ("GET", "/api/config/"),
        ("GET", "/api/config.yaml"),
        ("GET", "/api/log"),
        ("DELETE", "/api/log"),
        ("GET", "/api/streams?src=a&video"),
        ("GET", "/api/streams?src=a&vide%6f=all"),
        ("GET", "/api/streams/a?audio"),
        ("CONNECT", "/"),
        ("PROPFIND", "/api/streams"),
    ];

    #[test]
    fn only_this_machine_may_do_the_rest() {
        for (method, uri) in GUARDED {
            for peer in [LOCAL, "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
                assert_eq!(ask(method, uri, peer, HERE), Decision::Allow, "{method} {uri} {peer}");
            }
            for peer in ["192.168.1.5:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1", "[::]:1"] {
                assert_eq!(
                    ask(method, uri, peer, HERE),
                    Decision::Deny(Denial::Remote),
                    "{method} {uri} {peer}"
                );
            }
        }
    }

    #[test]
    fn a_proxied_client_is_remote() {
        for name in [
            "forwarded",
            "x-forwarded-for",
            "X-Forwarded-Host",
            "x-forwarded-server",
            "x-real-ip",
            "via",
            "cf-connecting-ip",
            "true-client-ip",
            "x-client-ip",
        ] {
            let headers = [HERE, &[(name, "127.0.0.1")]].concat();
            assert_eq!(
                ask("PUT", "/api/streams?name=a", LOCAL, &headers),
                Decision::Deny(Denial::Proxied),
                "{name}"
            );
        }
    }

    #[test]
    fn the_host_must_name_this_machine() {
        for host in
            ["localhost", "LOCALHOST:1984", "127.0.0.1", "127.0.0.1:80", "127.1.2.3:1", "[::1]", "[::1]:1984"]
        {
            assert_eq!(ask("PUT", "/x", LOCAL, &[("host", host)]), Decision::Allow, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:1984",
            "localhost.evil.example",
            "localhost@evil.example",
            "127.0.0.1.evil.example",
            "192.168.1.5:1984",
            "[::1",
            "::1",
            "[2001:db8::1]",
            "0.0.0.0:1984",
            "localhost:",
            "localhost:x",
        ] {
            assert_eq!(ask("PUT", "/x", LOCAL, &[("host", host)]), Decision::Deny(Denial::Host), "{host:?}");
        }
        assert_eq!(ask("PUT", "/x", LOCAL, &[]), Decision::Deny(Denial::Host));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(ask("PUT", "/x", LOCAL, &twice), Decision::Deny(Denial::Host));
        // HTTP/2 has the authority in the URI.
        assert_eq!(ask("PUT", "http://localhost:1984/x", LOCAL, &[]), Decision::Allow);
        assert_eq!(ask("PUT", "http://evil.example/x", LOCAL, &[]), Decision::Deny(Denial::Host));
        let differing = ask("PUT", "http://localhost:1984/x", LOCAL, &[("host", "evil.example")]);
        assert_eq!(differing, Decision::Deny(Denial::Host));
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        for (name, value, allowed) in [
            ("origin", "http://localhost:1984", true),
            ("origin", "https://localhost:1984", true),
            ("origin", "http://LOCALHOST:1984", true),
            ("origin", "http://localhost:3000", false),
            ("origin", "http://localhost", false),
            ("origin", "http://127.0.0.1:1984", false),
            ("origin", "https://evil.example", false),
            ("origin", "null", false),
            ("origin", "", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "same-site", false),
            ("sec-fetch-site", "cross-site", false),
        ] {
            for (method, uri) in GUARDED {
                let headers = [HERE, &[(name, value)]].concat();
                let expected = if allowed { Decision::Allow } else { Decision::Deny(Denial::CrossSite) };
                assert_eq!(ask(method, uri, LOCAL, &headers), expected, "{method} {uri} {name}: {value}");
            }
        }
        let twice =
            [HERE, &[("origin", "http://localhost:1984"), ("origin", "https://evil.example")]].concat();
        assert_eq!(ask("PUT", "/x", LOCAL, &twice), Decision::Deny(Denial::CrossSite));
    }

    #[test]
    fn preflights_name_only_open_methods() {
        let methods = |uri: &str| open_methods(&uri.parse().unwrap());
        assert_eq!(methods("/api/streams"), "GET, HEAD");
        assert_eq!(methods("/api/webrtc?src=a"), "GET, HEAD, POST");
        assert_eq!(methods("/whep/a"), "GET, HEAD, POST, PATCH, DELETE");
    }
}
