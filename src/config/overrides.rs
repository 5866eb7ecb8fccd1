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
    // Sockets are bound once; everything else is applied while it runs.
    let (was, is) = (running, wanted);
    [
        ("api.listen", was.api.listen != is.api.listen),
        ("rtsp.listen", was.rtsp.listen != is.rtsp.listen),
        ("rtsp.udp_ports", was.rtsp.udp_ports != is.rtsp.udp_ports),
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
        let is = read("api: {listen: ':3', origin: '*'}\nlog: {api: warn}\nstreams: {a: b}\n");
        assert_eq!(needs_restart(&read("api: {listen: ':1'}\n"), &is), ["api.listen"]);
        let rtsp = read("rtsp: {listen: ':4', username: a, udp_ports: 50000-50001}\n");
        assert_eq!(needs_restart(&read(""), &rtsp), ["rtsp.listen", "rtsp.udp_ports"]);
        let (mut was, mut is) = (read("api: {listen: ':1'}\n"), is);
        overrides.apply(&mut was);
        overrides.apply(&mut is);
        assert_eq!(needs_restart(&was, &is), Vec::<&str>::new());
    }
}
