//! From a file or a text to the model.

use super::model::{Config, ListenAddress, Login, Tls};
use super::publish::Publish;
use super::sections::{ApiReader, RtspReader, WebrtcReader};
use super::seeds::{Context, Entry, Fill, Section};
use super::streams::{Preloads, Streams};
use serde::de::{DeserializeSeed, MapAccess};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest configuration file, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// A configuration that was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What it says without effect, one sentence each.
    pub warnings: Vec<String>,
}

/// Why a configuration was refused. Displayed as `file:line:column: key: what was wrong`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, when it was one.
    pub path: Option<PathBuf>,
    /// Line, from 1; 0 when the fault has no place.
    pub line: usize,
    /// Column, from 1; 0 when the fault has no place.
    pub column: usize,
    /// The key and what was expected, without any value that may be secret.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}", path.display())?,
            None => f.write_str("configuration")?,
        }
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// A fault without a place. The message begins with the key and `: `, if it is at one.
    pub fn new(message: impl Into<String>) -> Self {
        ConfigError { path: None, line: 0, column: 0, message: message.into() }
    }

    /// A stream that the text has, and that can't be run; `why` must not quote a source.
    pub fn at_stream(text: &str, name: &str, why: &str) -> Self {
        let (line, column) = place(text, &["streams", name]);
        ConfigError { path: None, line, column, message: format!("streams.{name}: {why}") }
    }

    /// A preload that can't be.
    pub fn at_preload(text: &str, name: &str, why: &str) -> Self {
        let (line, column) = place(text, &["preload", name]);
        ConfigError { path: None, line, column, message: format!("preload.{name}: {why}") }
    }

    /// The fault's place in `text`, which has its key.
    #[must_use]
    pub fn placed_in(self, text: &str) -> Self {
        let path: Vec<&str> = self.key().split('.').collect();
        let (line, column) = place(text, &path);
        ConfigError { line, column, ..self }
    }

    /// The key the fault is at, e.g. `log.level` or `streams.front[0]`; empty if it is at none.
    pub fn key(&self) -> &str {
        let before = self.message.split_once(": ").map_or("", |(before, _)| before);
        if before.contains([' ', '"']) { "" } else { before }
    }

    /// What is allowed there, in words; empty if the message does not say.
    pub fn allowed(&self) -> &str {
        let after = self.message.rsplit_once("xpected ").map_or("", |(_, after)| after);
        after.strip_prefix("one of ").unwrap_or(after)
    }

    fn from_yaml(error: &serde_yaml::Error) -> Self {
        let message = error.to_string();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        // The place is in fields of its own.
        let message = message.replacen(&format!(" at line {line} column {column}"), "", 1);
        ConfigError { path: None, line, column, message: without_quoted_text(&message) }
    }
}

/// Line and column of the value at that path, from 1; 0 and 0 without one.
fn place(text: &str, path: &[&str]) -> (usize, usize) {
    let root = super::tree::read(text).unwrap_or_default();
    let value = root.as_ref().and_then(|root| root.at(path));
    value.and_then(|value| text.get(..value.range.start)).map_or((0, 0), |before| {
        (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
    })
}

/// Serde's own message quotes a text of the wrong type, which may be a source URL: takes it out.
fn without_quoted_text(message: &str) -> String {
    match (message.find(": string \""), message.rfind("\", expected ")) {
        (Some(start), Some(end)) if start < end => {
            let (before, after) = (message.get(..start), message.get(end + 1..));
            format!("{}: text{}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => message.to_owned(),
    }
}

/// The file that is loaded when none is named, in the working directory.
pub const USUAL_FILE: &str = "streamgate.yaml";

/// The file to load: the one that was named, else `streamgate.yaml` in the working directory if it is there.
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    let usual = Path::new(USUAL_FILE);
    named.map(Path::to_owned).or_else(|| usual.exists().then(|| usual.to_owned()))
}

/// Reads a file, with variables from this process's environment.
///
/// # Errors
/// The file cannot be read, is larger than [`MAX_FILE_BYTES`], or says something that [`parse`] refuses.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text = read_text(path)?;
    parse(&text, &environment).map_err(|error| ConfigError { path: Some(path.to_owned()), ..error })
}

/// A variable of this process's environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The text of a file.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let at_path = |error: ConfigError| ConfigError { path: Some(path.to_owned()), ..error };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| at_path(ConfigError::new(format!("cannot be read: {error}"))))?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(at_path(ConfigError::new(format!("larger than {MAX_FILE_BYTES} bytes"))));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        at_path(ConfigError { line, column, ..ConfigError::new("this is no UTF-8 text") })
    })
}

/// Reads YAML text; `env` looks up a variable.
///
/// Variables are filled in after parsing, into values only: comments are never looked at, and what a variable
/// holds can never become another key or item.
///
/// # Errors
/// No YAML, an unknown key, a key twice, a value of the wrong form, a variable that is not set, or more than
/// [`MAX_FILE_BYTES`].
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, ConfigError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(ConfigError::new(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    // Some editors put a byte order mark first; the parser would count it as a column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let context = Context::new(env);
    let mut reader = Reader::default();
    Fill { section: &mut reader, context: &context }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| ConfigError::from_yaml(&error))?;
    let config = reader.finish(&context)?;
    Ok(Loaded { config, warnings: context.into_warnings() })
}

/// The top of the file, with what only makes sense together.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) config: Config,
    pub(super) tls_cert: Option<String>,
    pub(super) tls_key: Option<String>,
    pub(super) tls_listen: Option<ListenAddress>,
    pub(super) webrtc_listen: Option<String>,
    pub(super) rtsp_username: Option<String>,
    pub(super) rtsp_password: Option<String>,
}

impl Reader {
    fn finish(mut self, context: &Context) -> Result<Config, ConfigError> {
        let listen = &self.config.api.listen;
        self.config.api.tls = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => Some(Tls { cert, key }),
            (None, None) => None,
            (Some(_), None) => return Err(ConfigError::new("api.tls_cert needs api.tls_key")),
            (None, Some(_)) => return Err(ConfigError::new("api.tls_key needs api.tls_cert")),
        };
        self.config.rtsp.login = match (self.rtsp_username, self.rtsp_password) {
            (Some(username), password) => Some(Login { username, password: password.unwrap_or_default() }),
            (None, Some(password)) if !password.is_empty() => {
                return Err(ConfigError::new("rtsp.password needs rtsp.username"));
            }
            (None, _) => None,
        };
        if self.tls_listen.is_some_and(|tls| tls != *listen) {
            context.warn(format!(
                "api.tls_listen has no effect: HTTP and HTTPS are both at api.listen ({listen})"
            ));
        }
        if self.webrtc_listen.is_some_and(|webrtc| webrtc != listen.to_string()) {
            context
                .warn(format!("webrtc.listen has no effect: media is at api.listen ({listen}), UDP and TCP"));
        }
        Ok(self.config)
    }
}

impl Section for Reader {
    const PATH: &'static str = "";
    const KEYS: &'static [&'static str] =
        &["api", "webrtc", "hls", "rtsp", "streams", "publish", "preload", "log"];
    const IGNORED: &'static [&'static str] = &[
        "alsa",
        "app",
        "bubble",
        "doorbird",
        "dvrip",
        "echo",
        "env",
        "eseecloud",
        "exec",
        "expr",
        "ffmpeg",
        "flussonic",
        "gopro",
        "hass",
        "homekit",
        "http",
        "isapi",
        "ivideon",
        "kasa",
        "mjpeg",
        "mp4",
        "mpegts",
        "multitrans",
        "nest",
        "ngrok",
        "onvif",
        "pinggy",
        "ring",
        "roborock",
        "rtmp",
        "srtp",
        "tapo",
        "tuya",
        "v4l2",
        "webtorrent",
        "wyoming",
        "wyze",
        "xiaomi",
        "yandex",
    ];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        match key {
            "api" => entry.section(&mut ApiReader(self)),
            "webrtc" => entry.section(&mut WebrtcReader(self)),
            "hls" => entry.section(&mut self.config.hls),
            "rtsp" => entry.section(&mut RtspReader(self)),
            "streams" => {
                let context = entry.context;
                entry.seed(Streams { streams: &mut self.config.streams, context }).map(drop)
            }
            "publish" => {
                let context = entry.context;
                entry.seed(Publish { publish: &mut self.config.publish, context }).map(drop)
            }
            "preload" => {
                let context = entry.context;
                entry.seed(Preloads { preload: &mut self.config.preload, context }).map(drop)
            }
            _ => entry.section(&mut self.config.log),
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
