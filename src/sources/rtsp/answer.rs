//! What the camera's answers mean: status codes, Session, and where control URLs point.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::time::Duration;

/// What a request line may not carry.
const NOT_IN_URI: &AsciiSet = &CONTROLS.add(b' ');
/// RFC 2326 §12.37.
const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(60);

/// An answer that is no success, in words: `404 Not Found: no such path on the camera`.
pub fn status_in_words(method: &str, code: u16, reason: &str) -> String {
    let (name, hint) = match code {
        301 | 302 | 303 | 305 => ("Redirect", "redirected once too often, or to nowhere"),
        400 => ("Bad Request", "the camera doesn't like the URL"),
        401 => ("Unauthorized", "user name or password is wrong"),
        403 => ("Forbidden", "this user may not watch, or the camera has locked the user out"),
        404 => ("Not Found", "no such path on the camera"),
        405 => ("Method Not Allowed", ""),
        406 => ("Not Acceptable", ""),
        453 => ("Not Enough Bandwidth", "the camera serves too many viewers already"),
        454 => ("Session Not Found", ""),
        455 => ("Method Not Valid in This State", ""),
        459 => ("Aggregate Operation Not Allowed", ""),
        461 => {
            ("Unsupported Transport", "the camera can't send this way; try #transport=udp or #transport=tcp")
        }
        500 => ("Internal Server Error", "the camera has failed; restarting it may help"),
        503 => ("Service Unavailable", "the camera is busy or serves too many viewers already"),
        551 => ("Option not supported", ""),
        _ => ("", ""),
    };
    let reason: String = reason.trim().chars().filter(|c| !c.is_control()).take(60).collect();
    let name = if reason.is_empty() { name } else { reason.as_str() };
    match hint {
        "" => format!("{code} {name}: the camera's answer to {method}"),
        hint => format!("{code} {name}: {hint}"),
    }
}

/// Reads `Session: 12345678;timeout=60` (RFC 2326 §12.37). A timeout that can't be is taken for the default.
pub fn parse_session(value: &str) -> (String, Duration) {
    let mut parts = value.split(';');
    let id = parts.next().unwrap_or_default().trim().to_owned();
    let timeout = parts
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())
        .filter(|seconds| (1..=86_400).contains(seconds))
        .map_or(DEFAULT_SESSION_TIMEOUT, Duration::from_secs);
    (id, timeout)
}

/// The URL that relative control attributes start from (RFC 2326 §C.1.1).
pub fn base_uri(content_base: Option<&str>, content_location: Option<&str>, request_uri: &str) -> String {
    let named = content_base.or(content_location).unwrap_or_default().trim();
    let base = match named {
        "" | "*" => request_uri.to_owned(),
        named if is_absolute(named) => named.to_owned(),
        // Some say a path only, some leave the scheme out (Anjvision).
        path if path.starts_with('/') => {
            let host_end =
                request_uri.get(7..).and_then(|r| r.find('/')).map_or(request_uri.len(), |i| i + 7);
            format!("{}{path}", request_uri.get(..host_end).unwrap_or_default())
        }
        named => format!("rtsp://{named}"),
    };
    clean(&base)
}

/// Joins a control attribute to the base as live555 and ffmpeg do and cameras expect: appended, even to a query.
pub fn join_control(base: &str, control: &str) -> String {
    match control.trim() {
        "" | "*" => base.to_owned(),
        control if is_absolute(control) => clean(control),
        control if control.starts_with('?') => clean(&format!("{base}{control}")),
        control => {
            let (base, control) = (base.trim_end_matches('/'), control.trim_start_matches('/'));
            clean(&format!("{base}/{control}"))
        }
    }
}

fn is_absolute(uri: &str) -> bool {
    uri.split_once("://")
        .is_some_and(|(scheme, _)| scheme.get(..4).is_some_and(|s| s.eq_ignore_ascii_case("rtsp")))
}

/// A URI as a request line can carry it, without user name and password.
fn clean(uri: &str) -> String {
    let uri = uri.split('#').next().unwrap_or_default();
    let (scheme, rest) = uri.split_once("://").unwrap_or(("rtsp", uri));
    let authority = rest.find(['/', '?']).unwrap_or(rest.len());
    let from = rest.get(..authority).and_then(|a| a.rfind('@')).map_or(0, |at| at + 1);
    let rest = rest.get(from..).unwrap_or_default();
    format!("{scheme}://{}", utf8_percent_encode(rest, NOT_IN_URI))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_urls_are_joined_as_cameras_expect() {
        let joined = |base: &str, control: &str| join_control(base, control);
        assert_eq!(joined("rtsp://h/live/", "trackID=1"), "rtsp://h/live/trackID=1");
        assert_eq!(joined("rtsp://h/live", "trackID=1"), "rtsp://h/live/trackID=1");
        assert_eq!(joined("rtsp://h/live/", "/trackID=1"), "rtsp://h/live/trackID=1");
        assert_eq!(joined("rtsp://h/live/", "*"), "rtsp://h/live/");
        assert_eq!(joined("rtsp://h/live", "?track=1"), "rtsp://h/live?track=1");
        assert_eq!(joined("rtsp://h/live/", "rtsp://10.0.0.1/live/t1?x=y"), "rtsp://10.0.0.1/live/t1?x=y");
        let dahua = "rtsp://h/cam/realmonitor?channel=1&subtype=2/";
        assert_eq!(joined(dahua, "trackID=0"), "rtsp://h/cam/realmonitor?channel=1&subtype=2/trackID=0");
        assert_eq!(joined("rtsp://h/a", "rtsp://u:p@h/t 1"), "rtsp://h/t%201");
        assert_eq!(joined("rtsp://h/a", "t\u{1}\r\nX: y"), "rtsp://h/a/t%01%0D%0AX:%20y");
    }

    #[test]
    fn the_base_is_the_header_that_names_it_or_the_request() {
        assert_eq!(base_uri(Some("rtsp://h/b/"), Some("rtsp://h/l"), "rtsp://h/r"), "rtsp://h/b/");
        assert_eq!(base_uri(None, Some("rtsp://h/l"), "rtsp://h/r"), "rtsp://h/l");
        assert_eq!(base_uri(None, None, "rtsp://h/r?a=b"), "rtsp://h/r?a=b");
        assert_eq!(base_uri(Some("10.0.0.1/b/"), None, "rtsp://h/r"), "rtsp://10.0.0.1/b/");
        assert_eq!(base_uri(Some("/b/"), None, "rtsp://h:8554/r"), "rtsp://h:8554/b/");
    }

    #[test]
    fn session_headers_are_read_leniently() {
        assert_eq!(parse_session("12;timeout=30"), ("12".into(), Duration::from_secs(30)));
        assert_eq!(parse_session(" ab ; timeout = 30 "), ("ab".into(), Duration::from_secs(30)));
        for odd in ["12", "12;timeout=0", "12;timeout=-1", "12;timeout=x", "12;other=1"] {
            assert_eq!(parse_session(odd), ("12".into(), Duration::from_secs(60)), "{odd}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        assert_eq!(
            status_in_words("DESCRIBE", 404, "Not Found"),
            "404 Not Found: no such path on the camera"
        );
        assert_eq!(status_in_words("DESCRIBE", 404, ""), "404 Not Found: no such path on the camera");
        assert_eq!(status_in_words("PLAY", 599, "Odd\u{7}"), "599 Odd: the camera's answer to PLAY");
    }
}
