//! Reads the sections `api`, `webrtc`, `hls`, `rtsp` and `log`.

use super::load::Reader;
use super::model::{
    Api, Filters, Hls, IceServer, ListenAddress, Log, LogLevel, Pacing, Webrtc, parse_amount, parse_duration,
};
use super::seeds::{Context, Entry, Fill, Section, not_empty};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::time::Duration;

/// The section `api`.
pub(super) struct ApiReader<'r>(pub(super) &'r mut Reader);

impl Section for ApiReader<'_> {
    const PATH: &'static str = "api";
    const KEYS: &'static [&'static str] = &["listen", "origin", "tls_listen", "tls_cert", "tls_key"];
    const IGNORED: &'static [&'static str] = &["base_path", "static_dir", "unix_listen"];
    const REFUSED: &'static [&'static str] =
        &["username", "password", "local_auth", "allow_paths", "read_only"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        const LISTEN: &str = "an address such as :1984";
        const PEM: &str = "PEM text or a path";
        let api: &mut Api = &mut self.0.config.api;
        match key {
            "listen" => api.listen = entry.parsed(LISTEN)?.unwrap_or_default(),
            "origin" => {
                let read = |text: &str| match text {
                    "" => Ok(false),
                    "*" => Ok(true),
                    _ => Err("expected \"*\" (any site may watch) or \"\" (only pages from here)".to_owned()),
                };
                api.any_origin = entry.read("\"*\" or \"\"", read)?.unwrap_or_default();
            }
            "tls_listen" => {
                let read = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
                self.0.tls_listen = entry.read(LISTEN, read)?.flatten();
            }
            "tls_cert" => self.0.tls_cert = entry.text(PEM)?.filter(|text| !text.is_empty()),
            _ => self.0.tls_key = entry.text(PEM)?.filter(|text| !text.is_empty()),
        }
        Ok(())
    }
}

/// The section `webrtc`.
pub(super) struct WebrtcReader<'r>(pub(super) &'r mut Reader);

impl Section for WebrtcReader<'_> {
    const PATH: &'static str = "webrtc";
    const KEYS: &'static [&'static str] = &["listen", "candidates", "ice_servers", "filters", "pacing"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        let webrtc: &mut Webrtc = &mut self.0.config.webrtc;
        match key {
            "listen" => self.0.webrtc_listen = entry.text("an address such as :1984")?,
            "candidates" => {
                let expected = "addresses such as 1.2.3.4:1984, home.example.org:1984, stun:1984";
                webrtc.candidates = entry.list(expected, candidate)?.unwrap_or_default();
            }
            "ice_servers" => {
                let servers = IceServers(entry.context);
                webrtc.ice_servers = entry.seed(servers)?.unwrap_or_default();
            }
            "pacing" => entry.section(&mut webrtc.pacing)?,
            _ => entry.section(&mut webrtc.filters)?,
        }
        Ok(())
    }
}

impl Section for Pacing {
    const PATH: &'static str = "webrtc.pacing";
    const KEYS: &'static [&'static str] = &["burst", "rate"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        let usual = Pacing::default();
        let (to, usual, least, most) = match key {
            "burst" => (&mut self.burst, usual.burst, 1_500, 10_000_000),
            _ => (&mut self.rate, usual.rate, 1_000_000, 10_000_000_000),
        };
        let amount = entry.read("a whole number, e.g. 32k or 50M", |text| parse_amount(text, least, most))?;
        *to = amount.unwrap_or(usual);
        Ok(())
    }
}

fn candidate(text: &str) -> Result<String, String> {
    let address: Result<ListenAddress, String> = text.parse();
    match address {
        Ok(ListenAddress { host: Some(_), port: 1.. }) => Ok(text.to_owned()),
        _ => Err(format!(
            "{text:?} is no candidate: expected 1.2.3.4:1984, [2001:db8::1]:1984, a host name with a port, or stun:1984"
        )),
    }
}

impl Section for Filters {
    const PATH: &'static str = "webrtc.filters";
    const KEYS: &'static [&'static str] = &["candidates", "interfaces", "ips", "loopback", "networks"];
    const IGNORED: &'static [&'static str] = &["udp_ports"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        match key {
            "candidates" => self.candidates = entry.list("a list of addresses", not_empty)?,
            "interfaces" => self.interfaces = entry.list("a list of interface names", not_empty)?,
            "ips" => {
                let read = |text: &str| text.parse().map_err(|_| format!("{text:?} is no IP address"));
                self.ips = entry.list("a list of IP addresses", read)?;
            }
            "loopback" => self.loopback = entry.flag()?,
            _ => {
                let read = |text: &str| match text {
                    "udp4" | "udp6" | "tcp4" | "tcp6" => Ok(text.to_owned()),
                    _ => Err(format!("{text:?} is no network: expected udp4, udp6, tcp4 or tcp6")),
                };
                self.networks = entry.list("a list of udp4, udp6, tcp4, tcp6", read)?;
            }
        }
        Ok(())
    }
}

struct IceServers<'c, 'e>(&'c Context<'e>);

impl<'de> DeserializeSeed<'de> for IceServers<'_, '_> {
    type Value = Vec<IceServer>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<IceServer>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for IceServers<'_, '_> {
    type Value = Vec<IceServer>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of mappings with the keys urls, username, credential")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<IceServer>, A::Error> {
        let mut servers = Vec::new();
        loop {
            let mut server =
                IceServer { urls: Vec::new(), username: String::new(), credential: String::new() };
            match seq.next_element_seed(Fill { section: &mut server, context: self.0 })? {
                None => return Ok(servers),
                Some(()) if server.urls.is_empty() => {
                    return Err(A::Error::custom("an ICE server needs urls"));
                }
                Some(()) if servers.len() >= 32 => return Err(A::Error::custom("at most 32 ICE servers")),
                Some(()) => servers.push(server),
            }
        }
    }
}

impl Section for IceServer {
    const PATH: &'static str = "webrtc.ice_servers";
    const KEYS: &'static [&'static str] = &["urls", "username", "credential"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        match key {
            "urls" => {
                let read = |text: &str| match text.split_once(':') {
                    Some(("stun" | "stuns" | "turn" | "turns", host)) if !host.is_empty() => {
                        Ok(text.to_owned())
                    }
                    _ => Err("expected stun:host:port or turn:host:port".to_owned()),
                };
                self.urls = entry.list("a list of stun: and turn: URLs", read)?.unwrap_or_default();
            }
            "username" => self.username = entry.text("a user name")?.unwrap_or_default(),
            _ => self.credential = entry.text("a password")?.unwrap_or_default(),
        }
        Ok(())
    }
}

impl Section for Hls {
    const PATH: &'static str = "hls";
    const KEYS: &'static [&'static str] = &["part", "segment", "window", "linger"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        let usual = Hls::default();
        match key {
            "part" => self.part = length(entry, (100, 2_000))?.unwrap_or(usual.part),
            "segment" => self.segment = length(entry, (1_000, 30_000))?.unwrap_or(usual.segment),
            "window" => {
                let read = |text: &str| match text.parse() {
                    Ok(segments @ 3..=200) => Ok(segments),
                    _ => Err(format!("{text:?} is no number of segments: expected 3 to 200")),
                };
                self.window = entry.read("a number of segments, 3 to 200", read)?.unwrap_or(usual.window);
            }
            _ => self.linger = length(entry, (1_000, 86_400_000))?.unwrap_or(usual.linger),
        }
        Ok(())
    }
}

/// The section `rtsp`.
pub(super) struct RtspReader<'r>(pub(super) &'r mut Reader);

impl Section for RtspReader<'_> {
    const PATH: &'static str = "rtsp";
    const KEYS: &'static [&'static str] = &["listen", "username", "password", "udp_ports"];
    const IGNORED: &'static [&'static str] = &["default_query", "pkt_size"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        let Reader { config, rtsp_username, rtsp_password, .. } = &mut *self.0;
        match key {
            "listen" => {
                let read = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
                config.rtsp.listen = entry.read("an address such as :8554", read)?.flatten();
            }
            "username" => *rtsp_username = entry.text("a user name")?.filter(|name| !name.is_empty()),
            "password" => *rtsp_password = entry.text("a password")?,
            _ => config.rtsp.udp_ports = entry.read("two ports such as 50000-50001", port_range)?,
        }
        Ok(())
    }
}

/// Reads `50000-50001`: an even port and one after it, at least.
fn port_range(text: &str) -> Result<(u16, u16), String> {
    let ports = text.split_once('-').and_then(|(from, to)| {
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        let first = from.checked_next_multiple_of(2)?;
        (from > 0 && first < to).then_some((from, to))
    });
    ports.ok_or_else(|| {
        format!("{text:?} are no UDP ports: expected an even port and the next one, or a range with such a pair, e.g. 50000-50001")
    })
}

/// A duration within bounds, in milliseconds.
fn length<'de, A: MapAccess<'de>>(
    entry: Entry<'_, A>,
    (least, most): (u64, u64),
) -> Result<Option<Duration>, A::Error> {
    entry.read("a duration such as 200ms or 2s", |text| {
        let duration = parse_duration(text)?;
        let bounds = Duration::from_millis(least)..=Duration::from_millis(most);
        bounds.contains(&duration).then_some(duration).ok_or_else(|| {
            format!("{text:?} is out of bounds: expected {:?} to {:?}", bounds.start(), bounds.end())
        })
    })
}

impl Section for Log {
    const PATH: &'static str = "log";
    const KEYS: &'static [&'static str] =
        &["level", "format", "api", "config", "hls", "rtsp", "server", "streams", "webrtc"];
    const IGNORED: &'static [&'static str] = &[
        "output",
        "time",
        "app",
        "echo",
        "exec",
        "expr",
        "ffmpeg",
        "hass",
        "homekit",
        "http",
        "mjpeg",
        "mp4",
        "mse",
        "ngrok",
        "onvif",
        "rtmp",
        "srtp",
        "webtorrent",
    ];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        const LEVEL: &str = "a level: trace, debug, info, warn, error or off";
        match key {
            "level" => self.level = entry.parsed(LEVEL)?.unwrap_or_default(),
            "format" => self.format = entry.parsed("auto, color, text or json")?.unwrap_or_default(),
            module => {
                if let Some(level) = entry.parsed::<LogLevel>(LEVEL)? {
                    self.modules.push((module.to_owned(), level));
                }
            }
        }
        Ok(())
    }
}
