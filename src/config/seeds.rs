//! Small typed readers for YAML nodes. Each checks inside the parser, so that an error knows its line and column.

use super::environment;
use super::spelling::nearest;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// Most bytes that all values together may have, aliases and variables filled in.
const MAX_TOTAL_BYTES: usize = 4 * 1024 * 1024;
/// Most items of one list.
const MAX_ITEMS: usize = 1000;
/// Most warnings that are kept.
const MAX_WARNINGS: usize = 100;

/// What all readers of one file share.
pub(super) struct Context<'e> {
    env: &'e dyn Fn(&str) -> Option<String>,
    warnings: RefCell<Vec<String>>,
    bytes_left: Cell<usize>,
}

impl<'e> Context<'e> {
    pub(super) fn new(env: &'e dyn Fn(&str) -> Option<String>) -> Self {
        Context { env, warnings: RefCell::new(Vec::new()), bytes_left: Cell::new(MAX_TOTAL_BYTES) }
    }

    pub(super) fn warn(&self, warning: String) {
        let mut warnings = self.warnings.borrow_mut();
        if warnings.len() < MAX_WARNINGS {
            warnings.push(warning);
        }
    }

    pub(super) fn into_warnings(self) -> Vec<String> {
        self.warnings.into_inner()
    }

    /// Aliases can repeat a text without end: what they add up to is bounded here.
    fn take(&self, bytes: usize) -> Result<(), String> {
        match self.bytes_left.get().checked_sub(bytes) {
            Some(left) => {
                self.bytes_left.set(left);
                Ok(())
            }
            None => Err(format!("the values add up to more than {MAX_TOTAL_BYTES} bytes")),
        }
    }
}

/// One value, variables filled in, then made of `read`.
pub(super) struct Text<'c, 'e, F> {
    pub(super) context: &'c Context<'e>,
    /// In words, for a node of another type.
    pub(super) expected: &'static str,
    pub(super) read: F,
}

impl<'de, T, F: FnOnce(&str) -> Result<T, String>> DeserializeSeed<'de> for Text<'_, '_, F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, T, F: FnOnce(&str) -> Result<T, String>> Visitor<'de> for Text<'_, '_, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let text = environment::expand(text, self.context.env).map_err(E::custom)?;
        self.context.take(text.len()).map_err(E::custom)?;
        (self.read)(&text).map_err(E::custom)
    }
}

/// A value or nothing: `key:` and `key: null` leave the default.
pub(super) struct Optional<S>(pub(super) S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or nothing")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// A list of values; one value alone is a list of one.
pub(super) struct List<'c, 'e, F> {
    pub(super) context: &'c Context<'e>,
    pub(super) expected: &'static str,
    pub(super) read: F,
}

impl<'de, T, F: Fn(&str) -> Result<T, String>> DeserializeSeed<'de> for List<'_, '_, F> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T, F: Fn(&str) -> Result<T, String>> Visitor<'de> for List<'_, '_, F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        Text { context: self.context, expected: self.expected, read: self.read }
            .visit_str(text)
            .map(|t| vec![t])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        let item = || Text { context: self.context, expected: self.expected, read: &self.read };
        while let Some(value) = seq.next_element_seed(item())? {
            if list.len() >= MAX_ITEMS {
                return Err(A::Error::custom(format!("a list may have at most {MAX_ITEMS} items")));
            }
            list.push(value);
        }
        Ok(list)
    }
}

/// A mapping with known keys.
pub(super) trait Section: Sized {
    /// Where it is in the file, e.g. `api`; empty for the top.
    const PATH: &'static str;
    /// Keys that have an effect.
    const KEYS: &'static [&'static str];
    /// Keys of go2rtc that have no effect here (yet): accepted with a warning.
    const IGNORED: &'static [&'static str] = &[];
    /// Keys of go2rtc that restrict access. To ignore one would open what the operator closed.
    const REFUSED: &'static [&'static str] = &[];

    /// Reads the value of one of [`Section::KEYS`].
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, entry: Entry<'_, A>) -> Result<(), A::Error>;
}

/// A key's value that is to be read. Nothing (`key:`, `key: null`) is `None`.
pub(super) struct Entry<'a, A> {
    map: &'a mut A,
    pub(super) context: &'a Context<'a>,
}

impl<'de, A: MapAccess<'de>> Entry<'_, A> {
    /// By a seed of its own.
    pub(super) fn seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.map.next_value_seed(Optional(seed))
    }

    /// What `read` makes of a text. `expected` says in words what is expected, for a node of another type.
    pub(super) fn read<T>(
        self,
        expected: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, A::Error> {
        let context = self.context;
        self.seed(Text { context, expected, read })
    }

    pub(super) fn parsed<T: FromStr<Err = String>>(
        self,
        expected: &'static str,
    ) -> Result<Option<T>, A::Error> {
        self.read(expected, str::parse)
    }

    pub(super) fn text(self, expected: &'static str) -> Result<Option<String>, A::Error> {
        self.read(expected, |text| Ok(text.to_owned()))
    }

    pub(super) fn flag(self) -> Result<Option<bool>, A::Error> {
        self.read("true or false", |text| match text {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        })
    }

    /// A list; one value alone is a list of one.
    pub(super) fn list<T>(
        self,
        expected: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, A::Error> {
        let context = self.context;
        self.seed(List { context, expected, read })
    }

    /// A mapping within this one.
    pub(super) fn section(self, section: &mut impl Section) -> Result<(), A::Error> {
        self.map.next_value_seed(Fill { section, context: self.context })
    }
}

/// Fills a section in place.
pub(super) struct Fill<'s, 'c, 'e, S> {
    pub(super) section: &'s mut S,
    pub(super) context: &'c Context<'e>,
}

impl<'de, S: Section> DeserializeSeed<'de> for Fill<'_, '_, '_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Section> Visitor<'de> for Fill<'_, '_, '_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a mapping with the keys {}", S::KEYS.join(", "))
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        let known = |key: &str| known_key::<S>(key);
        while let Some(key) = map.next_key_seed(Key { seen: &mut seen, check: &known })? {
            if S::IGNORED.contains(&key.as_str()) {
                map.next_value::<serde::de::IgnoredAny>()?;
                let dot = if S::PATH.is_empty() { "" } else { "." };
                let path = S::PATH;
                self.context.warn(format!("{path}{dot}{key} is not supported and has no effect"));
            } else {
                self.section.set(&key, Entry { map: &mut map, context: self.context })?;
            }
        }
        Ok(())
    }
}

fn known_key<S: Section>(key: &str) -> Result<(), String> {
    if S::KEYS.contains(&key) || S::IGNORED.contains(&key) {
        return Ok(());
    }
    if S::REFUSED.contains(&key) {
        return Err(format!(
            "{}.{key} restricts access and is not supported yet: remove it, and keep the port closed to those who \
             may not watch",
            S::PATH
        ));
    }
    let expected = S::KEYS.join(", ");
    Err(match nearest(key, S::KEYS.iter().chain(S::IGNORED).copied()) {
        Some(known) => format!("unknown key {key:?}, did you mean {known:?}? Expected one of {expected}"),
        None => format!("unknown key {key:?}, expected one of {expected}"),
    })
}

/// A key of a mapping: checked, and not seen before. Variables are not filled in.
pub(super) struct Key<'s, F> {
    pub(super) seen: &'s mut HashSet<String>,
    pub(super) check: F,
}

impl<'de, F: Fn(&str) -> Result<(), String>> DeserializeSeed<'de> for Key<'_, F> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, F: Fn(&str) -> Result<(), String>> Visitor<'de> for Key<'_, F> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        (self.check)(key).map_err(E::custom)?;
        if !self.seen.insert(key.to_owned()) {
            return Err(E::custom(format!("the key {key:?} is there twice")));
        }
        Ok(key.to_owned())
    }
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.trim().to_owned()) }
}
