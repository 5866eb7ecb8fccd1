//! URLs of cameras and servers: `rtsp://user:password@host:port/path?query#option=value…`.

use crate::media::Kind;
use crate::net::{ConnectError, Security};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::time::Duration;

/// What a request URI may not carry as it is: RTSP/1.0 (RFC 2326 §3.2) knows only visible ASCII.
const NOT_IN_URI: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`');

/// The port of RFC 2326 §3.2.
const DEFAULT_PORT: u16 = 554;
/// The port for RTSP over TLS (RFC 7826 §4.2).
const DEFAULT_TLS_PORT: u16 = 322;
/// The stall and connect deadline that no `#timeout=` changes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const KNOWN_OPTIONS: &str = "transport=tcp|udp, media=video|audio, timeout=SECONDS";
/// go2rtc's options that have no meaning here: accepted, so that its configurations load as they are.
const IGNORED_OPTIONS: &[&str] =
    &["backchannel", "video", "audio", "input", "hardware", "gop", "prefetch", "raw", "query", "proto"];

/// User name and password. Its `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name, percent-decoded.
    pub user: String,
    /// Password, percent-decoded.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(***)")
    }
}

/// How RTP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection (RFC 2326 §10.12).
    Tcp,
    /// A pair of UDP ports for each track.
    Udp,
}

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtspUrl {
    /// By its scheme: `rtsp`, `rtsps`, or go2rtc's `rtspx`, which is TLS whose certificate is not looked at.
    pub security: Security,
    /// Host name or address; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The URI to ask for: without credentials and options, percent-encoded where it must be.
    pub request_uri: String,
    /// From the URL's user part.
    pub credentials: Option<Credentials>,
    /// `#transport=`.
    pub transport: Transport,
    /// `#timeout=`: to connect, and without media until the run ends.
    pub timeout: Duration,
    /// `#media=`: what is wanted; empty means everything.
    pub media: Vec<Kind>,
    /// As it may be shown.
    pub shown: String,
    /// Texts that must not be shown even if the camera says them: the password in its spellings, values masked in the URL.
    secrets: Vec<String>,
}

impl RtspUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// One line that says what is wrong and what is known instead; it never contains credentials.
    pub fn parse(text: &str) -> Result<RtspUrl, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or("not a URL: expected rtsp://host/path")?;
        // Asked for is rtsps:// by rtspx:// as well, which no server knows.
        let (security, shown_scheme, scheme) = match scheme.to_ascii_lowercase().as_str() {
            "rtsp" => (Security::Plain, "rtsp", "rtsp"),
            "rtsps" => (Security::Tls, "rtsps", "rtsps"),
            "rtspx" => (Security::TlsUnverified, "rtspx", "rtsps"),
            _ => return Err(format!("scheme {scheme:?} is not RTSP: expected rtsp://host/path")),
        };
        let (address, options) = rest.split_once('#').unwrap_or((rest, ""));
        if options.contains('@') {
            return Err(
                "a # begins the options; in a user name or password it must be written %23 (and @ as %40)"
                    .to_owned(),
            );
        }
        let (user_part, host_part, path) = split_address(address);
        let (host, port) = parse_host(host_part)?;
        let port = port.unwrap_or(match security {
            Security::Plain => DEFAULT_PORT,
            Security::Tls | Security::TlsUnverified => DEFAULT_TLS_PORT,
        });
        let credentials = user_part.map(parse_credentials);

        let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        let path = if path.starts_with('?') { format!("/{path}") } else { path };
        let request_uri = format!("{scheme}://{host_part}{}", utf8_percent_encode(&path, NOT_IN_URI));
        let mut secrets = Vec::new();
        let (shown_path, masked) = mask_values(&path);
        secrets.extend(masked);
        if let (Some(user_part), Some(c)) = (user_part, &credentials) {
            secrets.push(c.password.clone());
            secrets.extend(user_part.split_once(':').map(|(_, raw)| raw.to_owned()));
        }
        // Shorter ones can't be told from ordinary text.
        secrets.retain(|s| s.chars().count() >= 3);
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        secrets.dedup();

        let stars = if credentials.is_some() { "***:***@" } else { "" };
        let mut url = RtspUrl {
            security,
            shown: format!("{shown_scheme}://{stars}{host_part}{shown_path}"),
            host,
            port,
            request_uri,
            credentials,
            transport: Transport::Tcp,
            timeout: DEFAULT_TIMEOUT,
            media: Vec::new(),
            secrets,
        };
        for option in options.split(['#', '&']).filter(|o| !o.is_empty()) {
            url.option(option)?;
        }
        if url.transport == Transport::Udp && security != Security::Plain {
            return Err(format!(
                "transport=udp goes with rtsp:// only: by UDP nothing of {shown_scheme}:// would be encrypted"
            ));
        }
        if !options.is_empty() {
            url.shown = format!("{}#{options}", url.shown);
        }
        Ok(url)
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, value) {
            ("transport", "tcp") => self.transport = Transport::Tcp,
            ("transport", "udp") => self.transport = Transport::Udp,
            ("media", "video") => self.media.push(Kind::Video),
            ("media", "audio") => self.media.push(Kind::Audio),
            ("timeout", seconds) => {
                let seconds: u64 =
                    seconds.trim_end_matches('s').parse().ok().filter(|s| (1..=300).contains(s)).ok_or_else(
                        || format!("timeout={seconds:?}: expected 1 to 300 seconds, e.g. #timeout=10"),
                    )?;
                self.timeout = Duration::from_secs(seconds);
            }
            (name, _) if IGNORED_OPTIONS.contains(&name) => {}
            ("transport" | "media", value) => {
                return Err(format!(
                    "option {name}={value:?} is not known; known options are {KNOWN_OPTIONS}"
                ));
            }
            (name, _) => {
                return Err(format!("option {name:?} is not known; known options are {KNOWN_OPTIONS}"));
            }
        }
        Ok(())
    }

    /// The URL a redirect's `Location` leads to, with this one's options. Credentials follow only to the same host.
    ///
    /// # Errors
    /// As [`RtspUrl::parse`]; and where it leads from TLS to none, or the other way.
    pub fn redirected(&self, location: &str) -> Result<RtspUrl, String> {
        let mut to = RtspUrl::parse(location.split('#').next().unwrap_or(location))?;
        if to.security != self.security {
            return Err(format!("it leads from {} to {}", self.shown, to.shown));
        }
        if to.credentials.is_none() && to.host.eq_ignore_ascii_case(&self.host) {
            to.credentials = self.credentials.clone();
        }
        to.secrets.extend(self.secrets.iter().cloned());
        to.transport = self.transport;
        to.timeout = self.timeout;
        to.media = self.media.clone();
        Ok(to)
    }

    /// Takes secrets out of a text that the camera sent.
    pub fn hide(&self, text: &str) -> String {
        let mut text = mask_user_parts(text);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "***");
        }
        text.split_inclusive(char::is_whitespace).map(|word| mask_values(word).0).collect()
    }

    /// `host:port`, for messages.
    pub fn peer(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no connection to such a URL, and what to do about it.
pub fn not_connected(error: &ConnectError) -> String {
    match error {
        ConnectError::Certificate { .. } => {
            format!("{error}; write rtspx:// if you trust it without a certificate")
        }
        ConnectError::NoTls { .. } => format!("{error}: is it rtsp:// at this port?"),
        _ => error.to_string(),
    }
}

/// Splits `user:password@host:port/path` in three. A raw `@` in the password is fine; so are a raw `/` and `?` where
/// what is before them can't be a host.
fn split_address(address: &str) -> (Option<&str>, &str, &str) {
    let cut = |text: &'_ str| text.find(['/', '?']).unwrap_or(text.len());
    let (authority, path) = address.split_at(cut(address));
    if let Some((user, host)) = authority.rsplit_once('@') {
        return (Some(user), host, path);
    }
    if parse_host(authority).is_err()
        && let Some((user, rest)) = address.rsplit_once('@')
    {
        let (host, path) = rest.split_at(cut(rest));
        return (Some(user), host, path);
    }
    (None, authority, path)
}

fn parse_host(text: &str) -> Result<(String, Option<u16>), String> {
    let bad_port = || "the port is not a number from 1 to 65535".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("the [ of an IPv6 address is not closed")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("what is in [ ] is not an IPv6 address".to_owned());
            }
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(bad_port)?),
            };
            (host, port)
        }
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("the host is missing: expected rtsp://host/path".to_owned());
    }
    if !text.starts_with('[') && !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(
            "the host has characters that no host name has; in a user name or password they must be \
                    percent-encoded (/ as %2F, # as %23, ? as %3F)"
                .to_owned(),
        );
    }
    let port = match port {
        None => None,
        Some(port) => Some(port.parse().ok().filter(|p| *p != 0).ok_or_else(bad_port)?),
    };
    Ok((host.to_owned(), port))
}

fn parse_credentials(user_part: &str) -> Credentials {
    let decode = |s: &str| percent_decode_str(s).decode_utf8_lossy().into_owned();
    let (user, password) = user_part.split_once(':').unwrap_or((user_part, ""));
    Credentials { user: decode(user), password: decode(password) }
}

/// Whether a parameter of that name holds a user name, a password or the like.
fn is_secret(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "user",
        "usr",
        "username",
        "login",
        "loginuse",
        "account",
        "password",
        "passwd",
        "pass",
        "pwd",
        "pw",
        "loginpas",
        "token",
        "auth",
        "authorization",
        "authbasic",
        "secret",
        "apikey",
        "api_key",
        "key",
        "access_token",
        "psw",
    ];
    NAMES.contains(&name.to_ascii_lowercase().as_str())
}

/// Masks the values of parameters that hold secrets, in a query (`?user=a&password=b`) as in a path
/// (`/user=a_password=b_channel=1`), and tells what was masked.
fn mask_values(text: &str) -> (String, Vec<String>) {
    let mut shown = String::with_capacity(text.len());
    let mut masked = Vec::new();
    let mut rest = text;
    let mut in_query = false;
    while let Some(equals) = rest.find('=') {
        let (before, value) = (&rest[..equals], &rest[equals + 1..]);
        in_query |= before.contains('?');
        let name_start = before.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |i| i + 1);
        let long_start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        shown.push_str(&rest[..equals + 1]);
        rest = value;
        if is_secret(&before[name_start..]) || is_secret(&before[long_start..]) {
            let end = value_end(value, in_query);
            if end > 0 {
                masked.push(value[..end].to_owned());
                masked.push(percent_decode_str(&value[..end]).decode_utf8_lossy().into_owned());
                shown.push_str("***");
            }
            rest = &value[end..];
        }
    }
    shown.push_str(rest);
    (shown, masked)
}

/// Where a parameter's value ends: at `&` in a query; in a path also at a slash or at `_name=`.
fn value_end(value: &str, in_query: bool) -> usize {
    let hard = value.find(['&', ' ', '\r', '\n', '\t']).unwrap_or(value.len());
    if in_query {
        return hard;
    }
    let hard = value[..hard].find(['/', '?', ';']).unwrap_or(hard);
    let underscore_name = value[..hard].match_indices('_').map(|(i, _)| i).find(|i| {
        let name = &value[i + 1..hard];
        name.find('=').is_some_and(|e| e > 0 && name[..e].bytes().all(|b| b.is_ascii_alphanumeric()))
    });
    underscore_name.unwrap_or(hard)
}

/// Masks `user:password@` in whatever looks like a URL.
fn mask_user_parts(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(i) = rest.find("://") {
        let (before, after) = rest.split_at(i + 3);
        shown.push_str(before);
        let authority =
            after.find(|c: char| c.is_whitespace() || c == '/' || c == '"').unwrap_or(after.len());
        rest = match after[..authority].rfind('@') {
            Some(at) => {
                shown.push_str("***:***");
                &after[at..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RtspUrl {
        RtspUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn error(text: &str) -> String {
        RtspUrl::parse(text).expect_err(text)
    }

    fn credentials(url: &str) -> (String, String) {
        let c = parse(url).credentials.expect(url);
        (c.user, c.password)
    }

    #[test]
    fn a_plain_url_is_asked_for_as_it_is() {
        let url = parse("rtsp://cam.local/Streaming/Channels/101?transportmode=unicast&profile=Profile_1");
        assert_eq!((url.host.as_str(), url.port), ("cam.local", 554));
        assert_eq!(
            url.request_uri,
            "rtsp://cam.local/Streaming/Channels/101?transportmode=unicast&profile=Profile_1"
        );
        assert_eq!(url.shown, url.request_uri);
        assert_eq!(
            (url.transport, url.timeout, url.media.len()),
            (Transport::Tcp, Duration::from_secs(5), 0)
        );
        assert_eq!(parse("rtsp://h:8554").request_uri, "rtsp://h:8554/");
        assert_eq!(parse("RTSP://h?a=b").request_uri, "rtsp://h/?a=b");
        assert_eq!(parse("rtsp://h/한글 1").request_uri, "rtsp://h/%ED%95%9C%EA%B8%80%201");
    }

    #[test]
    fn credentials_are_decoded_and_never_in_the_request_uri() {
        let url = parse("rtsp://admin:p%40ss%3A%2F%23%25@10.0.0.1:8554/live");
        assert_eq!(url.request_uri, "rtsp://10.0.0.1:8554/live");
        assert_eq!(url.shown, "rtsp://***:***@10.0.0.1:8554/live");
        assert_eq!(url.credentials.as_ref().map(|c| c.password.as_str()), Some("p@ss:/#%"));
        assert!(!format!("{:?}", url.credentials).contains("p@ss"));
        let korean = "rtsp://%EA%B4%80%EB%A6%AC%EC%9E%90:%EB%B9%84%EB%B0%80%EB%B2%88%ED%98%B8@h/";
        assert_eq!(credentials(korean), ("관리자".into(), "비밀번호".into()));
        assert_eq!(credentials("rtsp://관리자:비밀@h/"), ("관리자".into(), "비밀".into()));
        assert_eq!(credentials("rtsp://admin@h/"), ("admin".into(), String::new()));
    }

    #[test]
    fn raw_special_characters_in_the_password_are_understood() {
        assert_eq!(credentials("rtsp://admin:p@ss@h/x"), ("admin".into(), "p@ss".into()));
        assert_eq!(credentials("rtsp://admin:a:b@h/x"), ("admin".into(), "a:b".into()));
        assert_eq!(credentials("rtsp://admin:100%@h/x"), ("admin".into(), "100%".into()));
        let slash = parse("rtsp://admin:pa/s?s@h:8554/x");
        assert_eq!(slash.credentials.as_ref().map(|c| c.password.as_str()), Some("pa/s?s"));
        assert_eq!((slash.request_uri.as_str(), slash.port), ("rtsp://h:8554/x", 8554));
        assert_eq!(parse("rtsp://h/mail@x").credentials, None);
    }

    #[test]
    fn ipv6_addresses_are_read() {
        let url = parse("rtsp://a:b@[fe80::1]:8554/x");
        assert_eq!((url.host.as_str(), url.port), ("fe80::1", 8554));
        assert_eq!(url.peer(), "[fe80::1]:8554");
        assert!(error("rtsp://[fe80::1/x").contains("not closed"));
        assert!(error("rtsp://[zz]/x").contains("IPv6"));
    }

    #[test]
    fn tls_is_said_by_the_scheme() {
        for (text, security, port, asked, shown) in [
            ("rtsp://h/x", Security::Plain, 554, "rtsp://h/x", "rtsp://h/x"),
            ("RTSPS://h/x", Security::Tls, 322, "rtsps://h/x", "rtsps://h/x"),
            ("rtspx://h/x", Security::TlsUnverified, 322, "rtsps://h/x", "rtspx://h/x"),
            (
                "rtspx://[::1]:7441",
                Security::TlsUnverified,
                7441,
                "rtsps://[::1]:7441/",
                "rtspx://[::1]:7441/",
            ),
        ] {
            let url = parse(text);
            assert_eq!((url.security, url.port), (security, port), "{text}");
            assert_eq!((url.request_uri.as_str(), url.shown.as_str()), (asked, shown));
        }
        let url = parse("rtspx://a:s3cret@h/x?token=t0ken");
        assert_eq!(url.shown, "rtspx://***:***@h/x?token=***");
        assert_eq!(url.hide("rtsps://a:s3cret@h/x?token=t0ken"), "rtsps://***:***@h/x?token=***");
    }

    #[test]
    fn options_follow_hashes_or_ampersands() {
        let url = parse("rtsp://h/x#transport=udp#media=video&timeout=12#backchannel=0");
        assert_eq!(
            (url.transport, url.timeout, url.media.as_slice()),
            (Transport::Udp, Duration::from_secs(12), [Kind::Video].as_slice())
        );
        assert_eq!(parse("rtsp://h/x#media=video#media=audio").media, [Kind::Video, Kind::Audio]);
        assert_eq!(url.shown, "rtsp://h/x#transport=udp#media=video&timeout=12#backchannel=0");
    }

    #[test]
    fn wrong_options_are_refused_with_what_is_known() {
        assert!(error("rtsp://h/x#colour=red").contains("known options are transport=tcp|udp"));
        assert!(error("rtsp://h/x#transport=sctp").contains("known options are"));
        assert!(error("rtsp://h/x#timeout=0").contains("1 to 300"));
        assert!(error("rtsp://h/x#timeout=-5").contains("1 to 300"));
        assert!(error("rtsps://h/x#transport=udp").contains("rtsp:// only"));
        let hash = error("rtsp://admin:se#cret@h/x");
        assert!(hash.contains("%23") && !hash.contains("cret"), "{hash}");
    }

    #[test]
    fn other_schemes_and_broken_urls_are_refused_in_words() {
        assert!(error("rtspu://h/x").contains("is not RTSP"));
        assert!(error("http://h/x").contains("rtsp://host/path"));
        assert!(error("h/x").contains("rtsp://host/path"));
        assert!(error("rtsp:///x").contains("host is missing"));
        assert!(error("rtsp://h:99999/x").contains("port"));
        assert!(error("rtsp://h:0/x").contains("port"));
    }

    #[test]
    fn secret_parameters_are_masked_in_query_and_path() {
        assert_eq!(
            parse("rtsp://h/11?user=admin&password=a/b&channel=1").shown,
            "rtsp://h/11?user=***&password=***&channel=1"
        );
        assert_eq!(
            parse("rtsp://h/user=admin_password=tlJ_wpbo6_channel=1_stream=0.sdp?real_stream").shown,
            "rtsp://h/user=***_password=***_channel=1_stream=0.sdp?real_stream"
        );
        assert_eq!(parse("rtsp://h/user=a&password=&ch=1").shown, "rtsp://h/user=***&password=&ch=1");
        assert_eq!(parse("rtsp://h/x?access_token=abc").shown, "rtsp://h/x?access_token=***");
        assert!(parse("rtsp://h/x?password=abc").request_uri.contains("password=abc"));
    }

    #[test]
    fn secrets_are_hidden_in_what_the_camera_says() {
        let url = parse("rtsp://admin:p%40ssw@h/x?token=ABCDEF");
        let said = "a=control:rtsp://admin:p@ssw@h/x?token=ABCDEF/trackID=1\r\ns=p%40ssw p@ssw\r\n";
        let shown = url.hide(said);
        assert!(!shown.contains("ssw") && !shown.contains("ABCDEF"), "{shown}");
        assert!(shown.contains("a=control:rtsp://***:***@h/x"), "{shown}");
    }

    #[test]
    fn redirects_keep_options_and_give_credentials_to_the_same_host_only() {
        let url = parse("rtsp://a:bcd@h/x#transport=udp#timeout=7");
        let same = url.redirected("rtsp://h:8554/y").expect("same host");
        assert_eq!(same.credentials, url.credentials);
        assert_eq!((same.transport, same.timeout, same.port), (Transport::Udp, Duration::from_secs(7), 8554));
        let other = url.redirected("rtsp://other/y").expect("other host");
        assert_eq!(other.credentials, None);
        assert!(url.redirected("http://h/y").is_err());
        assert!(url.redirected("rtsps://h/y").is_err_and(|why| !why.contains("bcd")));
    }
}
