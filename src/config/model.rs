//! What can be configured, and the small text formats in it: addresses, durations, names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// The whole configuration. `Config::default()` is what runs without any file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The one port and what HTTP on it allows.
    pub api: Api,
    /// WebRTC candidates and ICE servers.
    pub webrtc: Webrtc,
    /// Lengths of HLS segments and parts.
    pub hls: Hls,
    /// The RTSP server.
    pub rtsp: Rtsp,
    /// Streams in the order of the file; names are unique.
    pub streams: Vec<(String, StreamConfig)>,
    /// Streams and the URLs of servers that they are published to; credentials included, so never show them.
    pub publish: Vec<(String, Vec<String>)>,
    /// Streams that are kept warm, and which of their tracks: `video&audio`, `video=h264`.
    pub preload: Vec<(String, String)>,
    /// Logging.
    pub log: Log,
}

/// What a preload without a value stands for, as in go2rtc.
pub const DEFAULT_PRELOAD: &str = "video&audio";

/// The section `api`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Api {
    /// Where the one port is, for TCP and UDP. Default `:1984`.
    pub listen: ListenAddress,
    /// `api.origin: "*"`: pages on other sites may read and watch.
    pub any_origin: bool,
    /// Certificate and key, when TLS is wanted on the port.
    pub tls: Option<Tls>,
}

/// `api.tls_cert` and `api.tls_key`: each is PEM text or the path of a PEM file.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain, the server's own first.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl Tls {
    /// The files that are named.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        [&self.cert, &self.key].into_iter().filter(|text| !is_pem(text)).map(std::path::Path::new)
    }
}

/// Whether this is PEM text, and not the path of a file.
pub fn is_pem(text_or_path: &str) -> bool {
    text_or_path.contains("-----BEGIN")
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// The section `webrtc`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Webrtc {
    /// More host candidates: `1.2.3.4:1984`, `home.example.org:1984`, `stun:1984`.
    pub candidates: Vec<String>,
    /// What players are told to use.
    pub ice_servers: Vec<IceServer>,
    /// Which of the machine's own addresses become candidates.
    pub filters: Filters,
    /// How fast a viewer is sent what does not fit a burst.
    pub pacing: Pacing,
}

/// `webrtc.pacing`: a large picture goes out in bursts that routers and sockets on the way survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Bytes that go at once.
    pub burst: u64,
    /// Bits a second after that.
    pub rate: u64,
}

impl Default for Pacing {
    fn default() -> Self {
        Pacing { burst: 32_000, rate: 50_000_000 }
    }
}

/// One STUN or TURN server for players.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port`, `turn:host:port?transport=tcp` …
    pub urls: Vec<String>,
    /// TURN user name, empty without one.
    pub username: String,
    /// TURN password, empty without one.
    pub credential: String,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// `webrtc.filters`: an absent list allows everything, an empty one nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// The only discovered addresses that are offered.
    pub candidates: Option<Vec<String>>,
    /// The only network interfaces whose addresses are offered.
    pub interfaces: Option<Vec<String>>,
    /// The only addresses of this machine that are offered.
    pub ips: Option<Vec<IpAddr>>,
    /// Offer 127.0.0.1 and ::1. Default: not said, the program decides.
    pub loopback: Option<bool>,
    /// Any of `udp4`, `udp6`, `tcp4`, `tcp6`.
    pub networks: Option<Vec<String>>,
}

/// The section `hls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hls {
    /// Parts last about this long. Default 200 ms.
    pub part: Duration,
    /// Segments last at least this long, up to the next keyframe. Default 2 s.
    pub segment: Duration,
    /// Segments in a playlist at least. Default 16.
    pub window: usize,
    /// How long a stream is segmented after the last request. Default 30 s.
    pub linger: Duration,
}

impl Default for Hls {
    fn default() -> Self {
        Hls {
            part: Duration::from_millis(200),
            segment: Duration::from_secs(2),
            window: 16,
            linger: Duration::from_secs(30),
        }
    }
}

impl Hls {
    /// `EXT-X-TARGETDURATION` in seconds: room for keyframes up to four seconds apart, or two seconds late.
    pub fn target(&self) -> u32 {
        u32::try_from(self.segment.as_millis().div_ceil(1000)).unwrap_or(60).saturating_add(2).max(4)
    }
}

/// The section `rtsp`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rtsp {
    /// Where RTSP is served besides the one port, for who can't choose a port.
    pub listen: Option<ListenAddress>,
    /// What players must log in with.
    pub login: Option<Login>,
    /// The first and the last UDP port for media. Default: the system chooses two.
    pub udp_ports: Option<(u16, u16)>,
}

/// A user name and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Never empty.
    pub username: String,
    /// May be empty.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// One stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConfig {
    /// Source URLs, best first; credentials included, so never show them. Never empty.
    pub sources: Vec<String>,
    /// The source runs only while somebody watches. Default true.
    pub on_demand: bool,
    /// How long an on-demand source goes on after the last viewer left. Default 10 s.
    pub linger: Duration,
    /// Take sound from the source. Default true.
    pub audio: bool,
}

impl StreamConfig {
    /// How long an on-demand source goes on after the last viewer left.
    pub const DEFAULT_LINGER: Duration = Duration::from_secs(10);
    /// Most sources that one stream may have.
    pub const MAX_SOURCES: usize = 16;

    /// A stream with these sources and defaults for the rest.
    pub fn new(sources: Vec<String>) -> StreamConfig {
        StreamConfig { sources, on_demand: true, linger: Self::DEFAULT_LINGER, audio: true }
    }
}

/// The section `log`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// How much is logged. Default `info`.
    pub level: LogLevel,
    /// How it is written.
    pub format: LogFormat,
    /// Levels that differ for a module: `api`, `webrtc`, `rtsp` …
    pub modules: Vec<(String, LogLevel)>,
}

impl Log {
    /// Module names of the configuration and the program's own paths that they stand for.
    pub(super) const MODULES: &[(&str, &str)] = &[
        ("api", "streamgate::api"),
        ("config", "streamgate::config"),
        ("hls", "streamgate::consumers::hls"),
        ("rtsp", "streamgate::sources::rtsp"),
        ("rtsp", "streamgate::consumers::rtsp"),
        ("server", "streamgate::server"),
        ("streams", "streamgate::graph"),
        ("webrtc", "streamgate::consumers::webrtc"),
    ];

    /// The levels as a filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub fn filter(&self) -> String {
        let mut filter = self.level.as_str().to_owned();
        for (module, level) in &self.modules {
            for (_, target) in Self::MODULES.iter().filter(|(name, _)| name == module) {
                filter.push_str(&format!(",{target}={}", level.as_str()));
            }
        }
        filter
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed for good.
    Error,
    /// What went wrong and was dealt with.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What a developer wants to know.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level's name.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Also takes go2rtc's `fatal`, `panic` and `disabled`.
    fn from_str(text: &str) -> Result<LogLevel, String> {
        match text {
            "off" | "disabled" => Ok(LogLevel::Off),
            "error" | "fatal" | "panic" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            "trace" => Ok(LogLevel::Trace),
            _ => Err(format!("{text:?} is no log level: expected trace, debug, info, warn, error or off")),
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Colour on a terminal, plain text elsewhere.
    #[default]
    Auto,
    /// Always with colour.
    Color,
    /// Never with colour.
    Text,
    /// One JSON object for each line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<LogFormat, String> {
        match text {
            "" | "auto" => Ok(LogFormat::Auto),
            "color" => Ok(LogFormat::Color),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{text:?} is no log format: expected auto, color, text or json")),
        }
    }
}

/// An address to listen on: `:1984`, `127.0.0.1:1984`, `[::1]:1984`, `localhost:1984`. Port 0 lets the system choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// An IP address or host name; `None` is every address of the machine, IPv4 and IPv6.
    pub host: Option<String>,
    /// The port, for TCP and UDP.
    pub port: u16,
}

impl Default for ListenAddress {
    fn default() -> Self {
        ListenAddress { host: None, port: 1984 }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        let bad = |why: &str| {
            format!(
                "{text:?} is no address to listen on, {why}: expected \":1984\", \"127.0.0.1:1984\", \
                 \"[::1]:1984\" or \"localhost:1984\""
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad("the port is not a number"));
        }
        let port = port.parse().map_err(|_| bad("the port is above 65535"))?;
        let host = if host.is_empty() {
            None
        } else if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            v6.parse::<std::net::Ipv6Addr>().map_err(|_| bad("what is in brackets is no IPv6 address"))?;
            Some(v6.to_owned())
        } else if host.contains(':') {
            return Err(bad("an IPv6 address needs brackets"));
        } else if host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            Some(host.to_owned())
        } else {
            return Err(bad("the host is no name or address"));
        };
        Ok(ListenAddress { host, port })
    }
}

/// Reads `10s`, `500ms`, `1m`, `2h`, at most a day.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("{text:?} is no duration: expected a whole number with a unit, e.g. 500ms, 10s, 1m, 2h");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(bad)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(bad)?;
    if millis > 86_400_000 {
        return Err(format!("{text:?} is too long: at most a day (24h)"));
    }
    Ok(Duration::from_millis(millis))
}

/// Reads an amount: a whole number, in thousands with `k`, in millions with `M`.
///
/// # Errors
/// It is none, or out of bounds.
pub fn parse_amount(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let amount = text.split_at_checked(digits).and_then(|(number, unit)| {
        let factor = match unit {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor)
    });
    match amount {
        Some(amount) if (least..=most).contains(&amount) => Ok(amount),
        Some(_) => Err(format!("{text:?} is out of bounds: expected {least} to {most}")),
        None => Err(format!("{text:?} is no amount: expected a whole number, e.g. 32k or 50M")),
    }
}

/// Whether a stream may have this name: any UTF-8 of 1 to 200 bytes without control characters, `/`, `?` and `#`.
pub fn check_stream_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a stream's name must not be empty".to_owned());
    }
    if name.len() > 200 {
        return Err(format!("a stream's name may have at most 200 bytes, this one has {}", name.len()));
    }
    if name == "." || name == ".." {
        return Err(format!("{name:?} cannot be a stream's name: URLs give it another meaning"));
    }
    match name.chars().find(|c| c.is_control() || matches!(c, '/' | '?' | '#')) {
        Some(c) => Err(format!(
            "the stream name {name:?} has the character {c:?}: names may not have control characters, /, ? or #"
        )),
        None => Ok(()),
    }
}

/// Whether this can be a source URL at all; which schemes are known is not decided here. The URL is never quoted.
pub fn check_source(source: &str) -> Result<(), String> {
    if source.trim().is_empty() {
        return Err(
            "a source URL must not be empty, e.g. rtsp://user:password@192.168.1.10/stream1".to_owned()
        );
    }
    if source.len() > 4096 {
        return Err(format!("a source URL may have at most 4096 bytes, this one has {}", source.len()));
    }
    if source.chars().any(char::is_control) {
        return Err("a source URL may not have control characters such as line ends".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_read_and_written_back() {
        for (text, host, port) in [
            (":1984", None, 1984),
            ("127.0.0.1:80", Some("127.0.0.1"), 80),
            ("[::1]:1984", Some("::1"), 1984),
            ("[::]:0", Some("::"), 0),
            ("localhost:65535", Some("localhost"), 65535),
        ] {
            let listen: ListenAddress = text.parse().unwrap();
            assert_eq!((listen.host.as_deref(), listen.port), (host, port), "{text}");
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn bad_listen_addresses_say_why() {
        for (text, why) in [
            ("1984", "port is missing"),
            ("", "port is missing"),
            (":", "not a number"),
            (":+5", "not a number"),
            (":65536", "above 65535"),
            ("::1:1984", "brackets"),
            ("[zz]:1", "no IPv6"),
            ("a b:1", "no name"),
            ("/tmp/x:1", "no name"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_end_at_a_day() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "25h",
            "99999999999999999999s",
            "18446744073709551615h",
            "1 s",
            "é",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stream_names_may_be_of_any_script_but_not_break_urls() {
        for good in ["front", "금곡IC", "a b", "50%", "x.y", "…", &"n".repeat(200)] {
            assert_eq!(check_stream_name(good), Ok(()), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a?b", "a#b", "a\nb", "a\u{7f}", "\u{85}", &"n".repeat(201)] {
            assert!(check_stream_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn log_levels_become_a_filter() {
        let log = Log {
            level: LogLevel::Warn,
            format: LogFormat::Auto,
            modules: vec![("webrtc".to_owned(), LogLevel::Trace), ("api".to_owned(), LogLevel::Off)],
        };
        assert_eq!(log.filter(), "warn,streamgate::consumers::webrtc=trace,streamgate::api=off");
    }

    #[test]
    fn debug_output_hides_keys_and_credentials() {
        let tls = Tls { cert: "CERT".to_owned(), key: "SECRET".to_owned() };
        let ice = IceServer { urls: vec![], username: "USER".to_owned(), credential: "SECRET".to_owned() };
        let text = format!("{tls:?}{ice:?}");
        assert!(!text.contains("SECRET") && !text.contains("USER"), "{text}");
    }
}
