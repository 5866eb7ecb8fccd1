//! Hides the secrets of a configuration's text, and puts them back where a text comes back with them hidden.

use super::load::ConfigError;
use super::tree::{self, Node};
use super::write::{key_text, quoted};
use serde_yaml::Value;
use std::ops::Range;

/// What stands for a secret.
const HIDDEN: &str = "***";

/// Keys whose value is a secret, in whatever section.
const KEYS: &[&str] = &[
    "access_token",
    "api_key",
    "credential",
    "device_private",
    "pairings",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "pwd",
    "secret",
    "token",
];

/// Sections of go2rtc whose values all are, or hold, secrets.
const SECTIONS: &[&str] = &["env.", "ngrok.", "publish.", "xiaomi."];

/// Hides the credentials in a text of the configuration's size; `mask` does so in any text with URLs.
pub type Mask<'m> = &'m dyn Fn(&str) -> String;

/// The text with credentials of URLs, passwords and private keys replaced by `***`, in comments as well. Everything
/// else is byte for byte the same, and what was valid stays so.
///
/// `None` if nobody can tell where secrets are in it.
pub fn masked(text: &str, mask: Mask<'_>) -> Option<String> {
    let root = tree::read(text).ok()?;
    let mut hidden = Vec::new();
    for old in scalars(text, root.as_ref()) {
        if let Some(shown) = hide(&old.path, old.key, old.value, mask) {
            hidden.push((old.range.clone(), with_form_of(old.raw, old.value, &shown)));
        }
    }
    for comment in comments(text, root.as_ref()) {
        let raw = text.get(comment.clone()).unwrap_or_default();
        hidden.push((comment, mask_comment(raw, mask)));
    }
    Some(replaced(text, hidden))
}

/// A text in which `***` is again what it stands for in `old`, the text that was shown with its secrets hidden.
///
/// # Errors
/// There is a `***` of which nobody knows what it stands for.
pub fn unmasked(text: &str, old: &str, mask: Mask<'_>) -> Result<String, ConfigError> {
    if !text.contains(HIDDEN) {
        return Ok(text.to_owned());
    }
    let root = tree::read(text).map_err(|why| ConfigError::new(format!("cannot be read: {why}")))?;
    let old_root = tree::read(old).unwrap_or_default();
    let olds = scalars(old, old_root.as_ref());
    let mut found = Vec::new();
    for new in scalars(text, root.as_ref()).iter().filter(|new| new.value.contains(HIDDEN)) {
        match stands_for(&olds, &new.path, new.key, new.value, mask) {
            Ok(Some(old)) => found.push((new.range.clone(), old)),
            Ok(None) => {}
            Err(()) => {
                let before = text.get(..new.range.start).unwrap_or_default();
                return Err(ConfigError {
                    line: before.matches('\n').count() + 1,
                    column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
                    ..unknown(&new.path)
                });
            }
        }
    }
    let old_comments: Vec<(String, &str)> = comments(old, old_root.as_ref())
        .into_iter()
        .map(|range| old.get(range).unwrap_or_default())
        .map(|raw| (mask_comment(raw, mask), raw))
        .collect();
    let put_back = |written: &dyn Fn(&Scalar<'_>) -> String| {
        let mut edits: Vec<_> = found.iter().map(|(range, old)| (range.clone(), written(old))).collect();
        for range in comments(text, root.as_ref()) {
            let raw = text.get(range.clone()).unwrap_or_default();
            if let Some((_, old)) = old_comments.iter().find(|(shown, old)| shown == raw && *old != raw) {
                edits.push((range, (*old).to_owned()));
            }
        }
        replaced(text, edits)
    };
    let as_written = put_back(&|old| old.raw.to_owned());
    let values = |text: &str| {
        let root = tree::read(text).unwrap_or_default();
        scalars(text, root.as_ref()).into_iter().map(|scalar| scalar.value.to_owned()).collect::<Vec<_>>()
    };
    let in_quotes = put_back(&|old| quoted(old.value));
    Ok(if values(&as_written) == values(&in_quotes) { as_written } else { in_quotes })
}

/// The same for a part of a configuration.
///
/// # Errors
/// There is a `***` of which nobody knows what it stands for.
pub fn unmasked_value(value: &mut Value, old: &str, mask: Mask<'_>) -> Result<(), ConfigError> {
    let root = tree::read(old).unwrap_or_default();
    unmask_below(value, "", "", &scalars(old, root.as_ref()), mask)
}

fn unmask_below(
    value: &mut Value,
    path: &str,
    key: &str,
    olds: &[Scalar<'_>],
    mask: Mask<'_>,
) -> Result<(), ConfigError> {
    match value {
        Value::String(text) if text.contains(HIDDEN) => match stands_for(olds, path, key, text, mask) {
            Ok(Some(old)) => *text = old.value.to_owned(),
            Ok(None) => {}
            Err(()) => return Err(unknown(path)),
        },
        Value::Sequence(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                unmask_below(item, &format!("{path}[{at}]"), key, olds, mask)?;
            }
        }
        Value::Mapping(map) => {
            for (name, value) in map.iter_mut() {
                let name = key_text(name);
                let dot = if path.is_empty() { "" } else { "." };
                unmask_below(value, &format!("{path}{dot}{name}"), &name, olds, mask)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn unknown(path: &str) -> ConfigError {
    ConfigError::new(format!(
        "{path}: {HIDDEN} stands for a secret that is not known here: write the secret itself, or leave the text as it was shown"
    ))
}

/// A value and where it is.
struct Scalar<'t> {
    path: String,
    key: &'t str,
    value: &'t str,
    /// As it is written, quotes included.
    raw: &'t str,
    range: Range<usize>,
}

fn scalars<'t>(text: &'t str, root: Option<&'t Node>) -> Vec<Scalar<'t>> {
    let mut all = Vec::new();
    if let Some(root) = root {
        keyed(root, &mut String::new(), "", text, &mut all);
    }
    all
}

fn keyed<'t>(node: &'t Node, path: &mut String, key: &'t str, text: &'t str, all: &mut Vec<Scalar<'t>>) {
    let length = path.len();
    match &node.content {
        tree::Content::Scalar { text: value, .. } => {
            let raw = text.get(node.range.clone()).unwrap_or_default();
            all.push(Scalar { path: path.clone(), key, value, raw, range: node.range.clone() });
        }
        tree::Content::Alias => {}
        tree::Content::List { items, .. } => {
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                keyed(item, path, key, text, all);
                path.truncate(length);
            }
        }
        tree::Content::Map { entries, .. } => {
            for entry in entries {
                let key = entry.key.text().unwrap_or_default();
                path.push_str(if length > 0 { "." } else { "" });
                path.push_str(key);
                keyed(&entry.value, path, key, text, all);
                path.truncate(length);
            }
        }
    }
}

/// How a value is shown; `None` as it is.
fn hide(path: &str, key: &str, value: &str, mask: Mask<'_>) -> Option<String> {
    let is_variable =
        value.starts_with("${") && value.find('}') == Some(value.len() - 1) && !value.contains(':');
    if value.is_empty() || is_variable {
        return None;
    }
    let is_secret = KEYS.contains(&key.to_ascii_lowercase().as_str())
        || SECTIONS.iter().any(|section| path.starts_with(section))
        || value.contains("PRIVATE KEY-----");
    if is_secret {
        return Some(HIDDEN.to_owned());
    }
    Some(mask(value)).filter(|masked| masked != value)
}

/// The old value that the new text shows: at the same place, or the only one anywhere. `None`: it stands for itself.
fn stands_for<'o, 't>(
    olds: &'o [Scalar<'t>],
    path: &str,
    key: &str,
    shown: &str,
    mask: Mask<'_>,
) -> Result<Option<&'o Scalar<'t>>, ()> {
    let here = olds.iter().find(|old| old.path == path);
    if here.is_some_and(|old| old.value == shown) {
        return Ok(None);
    }
    let is_shown = |old: &&Scalar<'_>| hide(&old.path, old.key, old.value, mask).as_deref() == Some(shown);
    if let Some(old) = here.filter(is_shown) {
        return Ok(Some(old));
    }
    let mut others = olds.iter().filter(|old| old.key == key || shown != HIDDEN).filter(is_shown);
    let first = others.next().ok_or(())?;
    if others.all(|other| other.value == first.value) { Ok(Some(first)) } else { Err(()) }
}

/// In the kind of quotes that the old text has, its anchor and tag before it.
fn with_form_of(raw: &str, value: &str, shown: &str) -> String {
    let mut rest = raw;
    while rest.starts_with(['&', '!']) {
        rest = rest.find(char::is_whitespace).and_then(|at| rest.get(at..)).unwrap_or_default().trim_start();
    }
    let prefix = raw.strip_suffix(rest).unwrap_or_default();
    let written = match rest.chars().next() {
        Some('\'') if !shown.contains('\'') => format!("'{shown}'"),
        _ if rest == value && !shown.starts_with('*') => shown.to_owned(),
        _ => quoted(shown),
    };
    format!("{prefix}{written}")
}

/// Every comment, from its `#` to the end of the line.
fn comments(text: &str, root: Option<&Node>) -> Vec<Range<usize>> {
    let mut taken = Vec::new();
    if let Some(root) = root {
        leaves(root, &mut taken);
    }
    taken.sort_by_key(|range| range.start);
    let mut comments = Vec::new();
    let mut at = 0;
    for range in taken.into_iter().chain(std::iter::once(text.len()..text.len())) {
        while let Some(hash) = text.get(at..range.start).and_then(|gap| gap.find('#')) {
            let start = at + hash;
            let rest = text.get(start..).unwrap_or_default();
            let end = start + rest.find('\n').unwrap_or(rest.len());
            let trimmed = text.get(start..end).unwrap_or_default().trim_end().len();
            comments.push(start..start + trimmed);
            at = end;
        }
        at = at.max(range.end);
    }
    comments
}

fn leaves(node: &Node, out: &mut Vec<Range<usize>>) {
    match &node.content {
        tree::Content::Scalar { .. } | tree::Content::Alias => out.push(node.range.clone()),
        tree::Content::List { items, .. } => items.iter().for_each(|item| leaves(item, out)),
        tree::Content::Map { entries, .. } => {
            for entry in entries {
                leaves(&entry.key, out);
                leaves(&entry.value, out);
            }
        }
    }
}

/// Also hides what is commented out: `# password: x`.
fn mask_comment(comment: &str, mask: Mask<'_>) -> String {
    let inside = comment.trim_start_matches(['#', ' ', '-']);
    match inside.split_once(':') {
        Some((key, value)) if KEYS.contains(&key.trim()) && !value.trim().is_empty() => {
            format!("{}{key}: {HIDDEN}", comment.strip_suffix(inside).unwrap_or_default())
        }
        _ => mask(comment),
    }
}

/// The text with these pieces, which do not overlap, replaced.
fn replaced(text: &str, mut edits: Vec<(Range<usize>, String)>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for (range, new) in edits {
        out.push_str(text.get(at..range.start).unwrap_or_default());
        out.push_str(&new);
        at = range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `telemetry::mask` does, which must not be named here.
    fn mask(text: &str) -> String {
        let words = text.split_inclusive([' ', '\n', '"', '\'']).map(|word| {
            let (Some(scheme), Some(at)) = (word.find("://"), word.rfind('@')) else {
                return word.to_owned();
            };
            format!("{}://***{}", word.get(..scheme).unwrap(), word.get(at..).unwrap())
        });
        words.collect()
    }

    const TEXT: &str = "\
# old: rtsp://x:hunter2@old
# password: hunter2
api: {tls_cert: c.pem, tls_key: k.pem} # c
webrtc:
  ice_servers:
    - {urls: 'turn:t', username: u, credential: hunter2}
    - {urls: 'turn:v', username: u, credential: '${TURN}'}
streams:
  a: &a rtsp://u:hunter2@a # was rtsp://u:hunter2@b
  b: [\"rtsp://u:hunter2@b\", 'rtsp://u:hunter2@c', rtsp://d]
ffmpeg:
  key: |
    -----BEGIN PRIVATE KEY-----
    hunter2
    -----END PRIVATE KEY-----
";

    #[test]
    fn every_secret_is_hidden_and_nothing_else() {
        let shown = masked(TEXT, &mask).unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
        for part in [
            "# old: rtsp://***@old\n# password: ***\n",
            "tls_key: k.pem} # c\n",
            "credential: \"***\"}",
            "credential: '${TURN}'}",
            "  a: &a rtsp://***@a # was rtsp://***@b\n",
            "  b: [\"rtsp://***@b\", 'rtsp://***@c', rtsp://d]\n",
            "  key: \"***\"\n",
        ] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }

    #[test]
    fn what_was_shown_comes_back_as_it_was() {
        let shown = masked(TEXT, &mask).unwrap();
        assert_eq!(unmasked(&shown, TEXT, &mask).unwrap(), TEXT);
        // Changed around the secrets, a stream renamed, an item moved.
        let changed = shown
            .replace("  a: &a", "  z: &a")
            .replace(", rtsp://d]", "]")
            .replace("username: u", "username: w");
        let expected = TEXT
            .replace("  a: &a", "  z: &a")
            .replace(", rtsp://d]", "]")
            .replace("username: u", "username: w");
        assert_eq!(unmasked(&changed, TEXT, &mask).unwrap(), expected);
        assert_eq!(unmasked("a: 1\n", TEXT, &mask).unwrap(), "a: 1\n");
    }

    #[test]
    fn a_placeholder_that_stands_for_nothing_is_refused_at_its_place() {
        let error = unmasked("streams:\n  a: rtsp://***@other\n", TEXT, &mask).unwrap_err();
        assert_eq!((error.line, error.column), (2, 6));
        assert!(error.message.contains("streams.a"), "{error}");
        let two = "streams:\n  a: rtsp://u:1@x\n  b: rtsp://u:2@x\n";
        assert!(unmasked("streams:\n  c: rtsp://***@x\n", two, &mask).is_err(), "which of them?");
        let mut value: Value =
            serde_yaml::from_str("{streams: {b: ['rtsp://***@b'], z: rtsp://***@a}}").unwrap();
        unmasked_value(&mut value, TEXT, &mask).unwrap();
        let streams = value.get("streams").unwrap();
        assert_eq!(streams["b"][0].as_str(), Some("rtsp://u:hunter2@b"));
        assert_eq!(streams["z"].as_str(), Some("rtsp://u:hunter2@a"));
        assert!(unmasked_value(&mut Value::from("***"), TEXT, &mask).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_masked(text in "[a-c\\[\\]{}:,&*!'\"\\-#|>? \r\n@/\u{e9}]{0,80}") {
            if let Some(shown) = masked(&text, &mask) {
                let _ = unmasked(&shown, &text, &mask);
            }
        }
    }
}
