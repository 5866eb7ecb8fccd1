//! Edits of a configuration's text that keep its comments, its order and every byte outside the edited entry.
//!
//! The text is spliced where a parser found the entry, and what comes out counts only if it reads as exactly the
//! configuration that was meant.

use super::load::{ConfigError, Loaded, parse};
use super::model::{Config, StreamConfig};
use super::splice::{self, Unsuitable};
use super::tree::Content;
use super::write::key_text;
use serde_yaml::{Mapping, Value};
use std::time::Duration;

/// What to change.
#[derive(Debug, Clone, Copy)]
pub enum Edit<'a> {
    /// Adds a stream, or makes it what is given. Values that stay the same keep their text, variables included.
    Set {
        /// Its name.
        name: &'a str,
        /// What it shall be.
        stream: &'a StreamConfig,
    },
    /// Takes a stream out. Without effect if there is none.
    Remove {
        /// Its name.
        name: &'a str,
    },
    /// Merges a mapping into the whole (RFC 7396): `null` takes a key out. A mapping for a stream that is written as
    /// a URL or a list changes its options.
    Merge(&'a Value),
}

/// A text that was edited, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// What it says.
    pub loaded: Loaded,
}

/// Why an edit was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The text as it is can't be read; the place is in that text.
    #[error("{0}")]
    Broken(ConfigError),
    /// What is asked for is no valid configuration; the place is in the text as it would be.
    #[error("{0}")]
    Invalid(ConfigError),
    /// It can't be written down without changing something else.
    #[error("{0}")]
    Impossible(String),
}

/// Makes an edit. Pure: `env` looks up variables, nothing is read or written.
///
/// # Errors
/// See [`EditError`]; never quotes a source.
pub fn apply(text: &str, edit: &Edit<'_>, env: &dyn Fn(&str) -> Option<String>) -> Result<Edited, EditError> {
    let old = parse(text, env).map_err(EditError::Broken)?.config;
    match edit {
        Edit::Set { name, stream } => set_stream(text, name, stream, &old, env),
        Edit::Remove { name } => {
            let edited = splice::remove(text, &["streams", name]).ok().and_then(|text| read(text, env));
            let is_meant = |edited: &Edited| is_changed_only(&old, &edited.loaded.config, name, None);
            edited.filter(is_meant).ok_or_else(|| impossible(name))
        }
        Edit::Merge(patch) => merge(text, patch, env),
    }
}

fn read(text: String, env: &dyn Fn(&str) -> Option<String>) -> Option<Edited> {
    parse(&text, env).ok().map(|loaded| Edited { text, loaded })
}

fn impossible(name: &str) -> EditError {
    EditError::Impossible(format!(
        "the stream {name:?} is written in a way that cannot be changed from here, e.g. another entry refers to it: edit the file"
    ))
}

/// Whether `new` is `old` with that stream being `stream`.
fn is_changed_only(old: &Config, new: &Config, name: &str, stream: Option<&StreamConfig>) -> bool {
    let others = |config: &Config| {
        let mut others = config.clone();
        others.streams.retain(|(other, _)| other != name);
        others
    };
    find(new, name) == stream && others(old) == others(new)
}

fn find<'c>(config: &'c Config, name: &str) -> Option<&'c StreamConfig> {
    config.streams.iter().find(|(other, _)| other == name).map(|(_, stream)| stream)
}

fn set_stream(
    text: &str,
    name: &str,
    stream: &StreamConfig,
    old: &Config,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Edited, EditError> {
    let before = find(old, name);
    // From the smallest change to the plainest one.
    let ways: [&dyn Fn() -> Result<String, Unsuitable>; 3] = [
        &|| change_stream(text, name, before.ok_or(Unsuitable)?, stream),
        &|| splice::set(text, &["streams", name], &stream_value(stream)),
        &|| {
            splice::set(&splice::remove(text, &["streams", name])?, &["streams", name], &stream_value(stream))
        },
    ];
    for way in ways {
        let edited = way().ok().and_then(|text| read(text, env));
        if let Some(edited) =
            edited.filter(|edited| is_changed_only(old, &edited.loaded.config, name, Some(stream)))
        {
            return Ok(edited);
        }
    }
    if stream.sources.iter().any(|source| source.contains("${")) {
        return Err(EditError::Impossible(
            "a source with ${…} would be read as a variable: write it into the file, or send the text that is meant"
                .to_owned(),
        ));
    }
    Err(impossible(name))
}

/// Changes what differs inside the entry that is there.
fn change_stream(
    text: &str,
    name: &str,
    old: &StreamConfig,
    new: &StreamConfig,
) -> Result<String, Unsuitable> {
    if old == new {
        return Ok(text.to_owned());
    }
    let path = ["streams", name];
    let is_map = |text: &str| {
        let root = splice::root(text)?.ok_or(Unsuitable)?;
        Ok(matches!(root.at(&path).ok_or(Unsuitable)?.content, Content::Map { .. }))
    };
    let options = [
        ("on_demand", old.on_demand != new.on_demand, Value::Bool(new.on_demand)),
        ("linger", old.linger != new.linger, Value::String(duration(new.linger))),
        ("audio", old.audio != new.audio, Value::Bool(new.audio)),
    ];
    let mut text = text.to_owned();
    if !is_map(&text)? && options.iter().any(|(_, differs, _)| *differs) {
        text = splice::wrap(&text, &path, "sources")?;
    }
    if old.sources != new.sources {
        let inner = [path[0], path[1], "sources"];
        let sources_at: &[&str] = if is_map(&text)? { &inner } else { &path };
        let root = splice::root(&text)?.ok_or(Unsuitable)?;
        text = match root.at(sources_at).map(|node| &node.content) {
            Some(Content::List { .. }) => splice::set_items(&text, sources_at, &old.sources, &new.sources)?,
            _ => splice::set(&text, sources_at, &sources_value(&new.sources))?,
        };
    }
    for (key, _, value) in options.iter().filter(|(_, differs, _)| *differs) {
        text = splice::set(&text, &[path[0], path[1], key], value)?;
    }
    Ok(text)
}

fn sources_value(sources: &[String]) -> Value {
    match sources {
        [one] => Value::String(one.clone()),
        many => Value::Sequence(many.iter().cloned().map(Value::String).collect()),
    }
}

/// The shortest form: a URL, a list of them, or a mapping with what is not the default.
fn stream_value(stream: &StreamConfig) -> Value {
    let plain = StreamConfig::new(stream.sources.clone());
    let sources = sources_value(&stream.sources);
    if *stream == plain {
        return sources;
    }
    let mut map = Mapping::new();
    map.insert("sources".into(), sources);
    for (key, differs, value) in [
        ("on_demand", stream.on_demand != plain.on_demand, Value::Bool(stream.on_demand)),
        ("linger", stream.linger != plain.linger, Value::String(duration(stream.linger))),
        ("audio", stream.audio != plain.audio, Value::Bool(stream.audio)),
    ] {
        if differs {
            map.insert(key.into(), value);
        }
    }
    Value::Mapping(map)
}

/// As `parse_duration` reads it.
fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

fn merge(text: &str, patch: &Value, env: &dyn Fn(&str) -> Option<String>) -> Result<Edited, EditError> {
    let Value::Mapping(patch) = patch else {
        let message = "a change must be a mapping, e.g. {\"log\": {\"level\": \"debug\"}}";
        return Err(EditError::Invalid(ConfigError::new(message)));
    };
    let cannot =
        || EditError::Impossible("this cannot be merged into the file's text: edit the file".to_owned());
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut meant: Value = serde_yaml::from_str(plain).map_err(|_| cannot())?;
    merge_value(&mut meant, patch, 0, false);
    let meant = serde_yaml::to_string(&meant).map_err(|_| cannot())?;
    let meant = parse(&meant, env);
    let merged = merge_text(text.to_owned(), &mut Vec::new(), patch);
    match (meant, merged.map(|text| (parse(&text, env), text))) {
        (Ok(meant), Ok((Ok(loaded), text))) if loaded.config == meant.config => Ok(Edited { text, loaded }),
        // The place in the text as it would be tells more than that in a form nobody has seen.
        (Err(_), Ok((Err(error), _))) => Err(EditError::Invalid(error)),
        (Err(error), _) => Err(EditError::Invalid(ConfigError { line: 0, column: 0, ..error })),
        _ => Err(cannot()),
    }
}

fn merge_value(target: &mut Value, patch: &Mapping, depth: usize, in_streams: bool) {
    if depth == 2 && in_streams && matches!(target, Value::String(_) | Value::Sequence(_)) {
        let mut map = Mapping::new();
        map.insert("sources".into(), std::mem::take(target));
        *target = Value::Mapping(map);
    }
    if !target.is_mapping() {
        *target = Value::Mapping(Mapping::new());
    }
    let Value::Mapping(map) = target else { return };
    for (key, value) in patch {
        match value {
            Value::Null => {
                map.shift_remove(key);
            }
            Value::Mapping(patch) => {
                let in_streams = in_streams || depth == 0 && key.as_str() == Some("streams");
                let entry = map.entry(key.clone()).or_insert(Value::Null);
                merge_value(entry, patch, depth + 1, in_streams);
            }
            other => {
                map.insert(key.clone(), other.clone());
            }
        }
    }
}

fn merge_text(mut text: String, path: &mut Vec<String>, patch: &Mapping) -> Result<String, Unsuitable> {
    for (key, value) in patch {
        path.push(key_text(key));
        let at: Vec<&str> = path.iter().map(String::as_str).collect();
        text = match value {
            Value::Null => splice::remove(&text, &at)?,
            Value::Mapping(inner) => {
                let root = splice::root(&text)?;
                let target = root.as_ref().and_then(|root| root.at(&at)).filter(|target| !target.is_null());
                match target.map(|target| &target.content) {
                    Some(Content::Map { .. }) => merge_text(text, path, inner)?,
                    Some(Content::Scalar { .. } | Content::List { .. })
                        if at.len() == 2 && at[0] == "streams" =>
                    {
                        let wrapped = splice::wrap(&text, &at, "sources")?;
                        merge_text(wrapped, path, inner)?
                    }
                    _ => {
                        let mut fresh = Value::Null;
                        merge_value(&mut fresh, inner, 0, false);
                        splice::set(&text, &at, &fresh)?
                    }
                }
            }
            other => splice::set(&text, &at, other)?,
        };
        path.pop();
    }
    Ok(text)
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
