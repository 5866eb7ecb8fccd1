//! What flags and environment variables say, which beats the file for as long as the process runs.

use super::model::{Config, ListenAddress, LogFormat, LogLevel, StreamConfig};

/// What was said on the command line or in the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The one port.
    pub listen: Option<ListenAddress>,
    /// How much is logged.
    pub log_level: Option<LogLevel>,
    /// How it is written.
    pub log_format: Option<LogFormat>,
    /// Streams; they take the place of the file's of the same name.
    pub streams: Vec<(String, StreamConfig)>,
}

impl Overrides {
    /// Makes what a file says what is in effect.
    pub fn apply(&self, config: &mut Config) {
        if let Some(listen) = &self.listen {
            config.api.listen = listen.clone();
        }
        if let Some(level) = self.log_level {
            config.log.level = level;
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        config.streams.retain(|(name, _)| !self.has_stream(name));
        config.streams.extend(self.streams.iter().cloned());
    }

    /// Whether a stream of that name was given.
    pub fn has_stream(&self, name: &str) -> bool {
        self.streams.iter().any(|(other, _)| other == name)
    }
}

/// The keys that differ and have an effect only after a restart.
pub fn needs_restart(running: &Config, wanted: &Config) -> Vec<&'static str> {
    let (was, is) = (running, wanted);
    [
        ("api.listen", was.api.listen != is.api.listen),
        ("api.origin", was.api.any_origin != is.api.any_origin),
        ("api.tls_cert, api.tls_key", was.api.tls != is.api.tls),
        ("webrtc.candidates", was.webrtc.candidates != is.webrtc.candidates),
        ("webrtc.filters", was.webrtc.filters != is.webrtc.filters),
        ("log", was.log != is.log),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn flags_beat_the_file_and_what_needs_a_restart_is_named() {
        let read = |yaml: &str| parse(yaml, &|_| None).unwrap().config;
        let overrides = Overrides { listen: Some(":2".parse().unwrap()), ..Overrides::default() };
        let (mut was, mut is) = (
            read("api: {listen: ':1'}\n"),
            read("api: {listen: ':3', origin: '*'}\nlog: {api: warn}\nstreams: {a: b}\n"),
        );
        overrides.apply(&mut was);
        overrides.apply(&mut is);
        assert_eq!(needs_restart(&was, &is), ["api.origin", "log"]);
        let same = read("webrtc: {ice_servers: [{urls: 'stun:a'}]}\nstreams: {x: y}\n");
        assert_eq!(needs_restart(&read(""), &same), Vec::<&str>::new());
        let other = read(
            "webrtc: {candidates: ['a:1'], filters: {loopback: true}}\napi: {tls_cert: a, tls_key: b}\n",
        );
        assert_eq!(needs_restart(&read(""), &other).len(), 3);
    }
}
