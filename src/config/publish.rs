//! Reads the section `publish`: for each stream the URLs of servers that it is published to.

use super::model::{check_source, check_stream_name};
use super::seeds::{Context, Key, List, Optional};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use std::collections::HashSet;
use std::fmt;

/// Most streams of the section, and most servers of one stream.
const MAX: usize = 256;

/// Reads into `publish`, in the order of the file.
pub(super) struct Publish<'s, 'c, 'e> {
    pub(super) publish: &'s mut Vec<(String, Vec<String>)>,
    pub(super) context: &'c Context<'e>,
}

impl<'de> DeserializeSeed<'de> for Publish<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Publish<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping of stream names to URLs of servers")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key_seed(Key { seen: &mut seen, check: check_stream_name })? {
            let read = |text: &str| check_source(text.trim()).map(|()| text.trim().to_owned());
            let list = List { context: self.context, expected: "a URL or a list of URLs", read };
            let urls = map.next_value_seed(Optional(list))?.unwrap_or_default();
            if self.publish.len() >= MAX || urls.len() > MAX {
                return Err(A::Error::custom(format!("at most {MAX} streams and {MAX} URLs for each")));
            }
            let (usable, others): (Vec<_>, Vec<_>) = urls.into_iter().partition(|url| is_rtsp(url));
            if !others.is_empty() {
                self.context.warn(format!(
                    "publish.{name} names a server that is not rtsp://, rtsps:// or rtspx://: that has no effect, streams are published by RTSP only"
                ));
            }
            self.publish.push((name, usable));
        }
        Ok(())
    }
}

fn is_rtsp(url: &str) -> bool {
    let is = |scheme: &str| ["rtsp", "rtsps", "rtspx"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    url.split_once("://").is_some_and(|(scheme, _)| is(scheme))
}
