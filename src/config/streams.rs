//! Reads the section `streams`: a URL, a list of URLs or a mapping for each name. And `preload`: what is kept warm of each.

use super::model::{DEFAULT_PRELOAD, StreamConfig, check_source, check_stream_name, parse_duration};
use super::seeds::{Context, Entry, Fill, Key, List, Optional, Section, Text};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Most streams of one file.
const MAX_STREAMS: usize = 10_000;

/// Reads into `streams`, in the order of the file.
pub(super) struct Streams<'s, 'c, 'e> {
    pub(super) streams: &'s mut Vec<(String, StreamConfig)>,
    pub(super) context: &'c Context<'e>,
}

impl<'de> DeserializeSeed<'de> for Streams<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Streams<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of stream names to source URLs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key_seed(Key { seen: &mut seen, check: check_stream_name })? {
            if self.streams.len() >= MAX_STREAMS {
                return Err(A::Error::custom(format!("at most {MAX_STREAMS} streams")));
            }
            // go2rtc lists streams without source that others publish to.
            match map.next_value_seed(Optional(Stream { context: self.context }))? {
                Some(stream) => self.streams.push((name, stream)),
                None => self.context.warn(format!(
                    "streams.{name} has no source and is left out: publishing to a stream is not supported"
                )),
            }
        }
        Ok(())
    }
}

/// Reads into `preload`, in the order of the file.
pub(super) struct Preloads<'p, 'c, 'e> {
    pub(super) preload: &'p mut Vec<(String, String)>,
    pub(super) context: &'c Context<'e>,
}

impl<'de> DeserializeSeed<'de> for Preloads<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Preloads<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of stream names to what is kept warm, e.g. video&audio")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key_seed(Key { seen: &mut seen, check: check_stream_name })? {
            if self.preload.len() >= MAX_STREAMS {
                return Err(A::Error::custom(format!("at most {MAX_STREAMS} preloads")));
            }
            let read = |text: &str| match text.trim() {
                "" => Ok(DEFAULT_PRELOAD.to_owned()),
                text if text.len() > 200 => Err("at most 200 bytes".to_owned()),
                text => Ok(text.to_owned()),
            };
            let seed = Text { context: self.context, expected: "what is kept warm, e.g. video&audio", read };
            let text = map.next_value_seed(Optional(seed))?.unwrap_or_else(|| DEFAULT_PRELOAD.to_owned());
            self.preload.push((name, text));
        }
        Ok(())
    }
}

const SOURCES: &str =
    "a source URL, a list of them, or a mapping with the keys sources, on_demand, linger, audio";

struct Stream<'c, 'e> {
    context: &'c Context<'e>,
}

impl Stream<'_, '_> {
    fn checked<E: Error>(stream: StreamConfig) -> Result<StreamConfig, E> {
        match stream.sources.len() {
            0 => Err(E::custom(format!("the stream has no source: expected {SOURCES}"))),
            n if n > StreamConfig::MAX_SOURCES => {
                Err(E::custom(format!("at most {} sources, there are {n}", StreamConfig::MAX_SOURCES)))
            }
            _ => Ok(stream),
        }
    }
}

fn source(text: &str) -> Result<String, String> {
    let text = text.trim();
    check_source(text).map(|()| text.to_owned())
}

impl<'de> DeserializeSeed<'de> for Stream<'_, '_> {
    type Value = StreamConfig;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<StreamConfig, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Stream<'_, '_> {
    type Value = StreamConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SOURCES)
    }

    fn visit_none<E: Error>(self) -> Result<StreamConfig, E> {
        self.visit_unit()
    }

    fn visit_unit<E: Error>(self) -> Result<StreamConfig, E> {
        Self::checked(StreamConfig::new(Vec::new()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StreamConfig, E> {
        let sources = List { context: self.context, expected: SOURCES, read: source }.visit_str(text)?;
        Self::checked(StreamConfig::new(sources))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<StreamConfig, A::Error> {
        let sources =
            List { context: self.context, expected: "a source URL", read: source }.visit_seq(seq)?;
        Self::checked(StreamConfig::new(sources))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StreamConfig, A::Error> {
        let mut stream = StreamConfig::new(Vec::new());
        Fill { section: &mut stream, context: self.context }.visit_map(map)?;
        Self::checked(stream)
    }
}

impl Section for StreamConfig {
    const PATH: &'static str = "streams.*";
    const KEYS: &'static [&'static str] = &["sources", "on_demand", "linger", "audio"];

    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error> {
        match key {
            "sources" => {
                self.sources = entry.list("a source URL or a list of them", source)?.unwrap_or_default()
            }
            "on_demand" => self.on_demand = entry.flag()?.unwrap_or(true),
            "audio" => self.audio = entry.flag()?.unwrap_or(true),
            _ => {
                let read = entry.read("a duration such as 10s", parse_duration)?;
                self.linger = read.unwrap_or(StreamConfig::DEFAULT_LINGER);
            }
        }
        Ok(())
    }
}
