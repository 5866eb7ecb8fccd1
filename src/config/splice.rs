//! Puts, changes and takes out single entries of a YAML text; every other byte stays as it was.
//!
//! Nothing here is trusted: whoever calls it reads the result again and compares.

use super::tree::{self, Content, Entry, Node};
use super::write;
use serde_yaml::Value;

/// An edit that this text's form does not allow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsuitable;

type Spliced = Result<String, Unsuitable>;

/// The tree of a text that has been read as YAML before.
pub(super) fn root(text: &str) -> Result<Option<Node>, Unsuitable> {
    tree::read(text).map_err(|_| Unsuitable)
}

/// Sets the value at these keys; what is missing on the way is made.
pub(super) fn set(text: &str, path: &[&str], value: &Value) -> Spliced {
    let root = root(text)?;
    let Some(mut node) = root.as_ref().filter(|node| !node.is_null()) else {
        return Ok(append(text, &nested(path, value)));
    };
    for (depth, key) in path.iter().enumerate() {
        let Content::Map { flow, .. } = &node.content else { return Err(Unsuitable) };
        let rest = path.get(depth + 1..).unwrap_or_default();
        let Some(entry) = node.entry(key) else {
            return insert(text, node, key, &nested(rest, value));
        };
        if rest.is_empty() || !matches!(entry.value.content, Content::Map { .. }) {
            return replace(text, entry, *flow, &nested(rest, value));
        }
        node = &entry.value;
    }
    Err(Unsuitable)
}

/// Takes the entry at these keys out. A text without it stays as it is.
pub(super) fn remove(text: &str, path: &[&str]) -> Spliced {
    let Some((last, parents)) = path.split_last() else { return Err(Unsuitable) };
    let root = root(text)?;
    let map = root.as_ref().and_then(|root| root.at(parents));
    let Some((map, entry)) = map.and_then(|map| map.entry(last).map(|entry| (map, entry))) else {
        return Ok(text.to_owned());
    };
    let end = value_end(text, entry)?;
    match map.content {
        Content::Map { flow: true, .. } => Ok(remove_flow(text, entry.key.range.start, end)),
        _ => remove_lines(text, entry.key.range.start, end),
    }
}

/// Makes `key: value` into `key: {inner: value}`, the value's own text kept.
pub(super) fn wrap(text: &str, path: &[&str], inner: &str) -> Spliced {
    let root = root(text)?.ok_or(Unsuitable)?;
    let (last, parents) = path.split_last().ok_or(Unsuitable)?;
    let map = root.at(parents).ok_or(Unsuitable)?;
    let entry = map.entry(last).ok_or(Unsuitable)?;
    let value = &entry.value.range;
    let colon = colon(text, entry)?;
    if matches!(map.content, Content::Map { flow: true, .. }) {
        let (head, rest) = split(text, value.start)?;
        let (value, tail) = split(rest, value.end - value.start)?;
        return Ok(format!("{head}{{{inner}: {value}}}{tail}"));
    }
    let newline = newline(text);
    let indent = " ".repeat(key_column(text, entry) + 2);
    let (head, rest) = split(text, colon)?;
    let (body, tail) = split(rest, value.end - colon)?;
    // A comment beside the key stays there; a value on the key's line goes below it.
    let before = text.get(colon..value.start).ok_or(Unsuitable)?;
    let (beside, below) = match before.find('\n') {
        Some(_) => {
            let at = body.find('\n').ok_or(Unsuitable)?;
            let (beside, below) = split(body, at)?;
            (beside.trim_end_matches('\r'), shifted(below))
        }
        None => ("", format!(" {}", shifted(body.trim_start()))),
    };
    let below = if below.starts_with('\n') && newline == "\r\n" { format!("\r{below}") } else { below };
    Ok(format!("{head}{beside}{newline}{indent}{inner}:{below}{tail}"))
}

/// Changes the items of the list at these keys one by one, so that comments between them stay.
pub(super) fn set_items(text: &str, path: &[&str], old: &[String], new: &[String]) -> Spliced {
    let mut text = text.to_owned();
    for at in (new.len()..old.len()).rev() {
        text = with_item(&text, path, at, |text, flow, item| {
            if flow {
                Ok(remove_flow(text, item.start, item.end))
            } else {
                remove_lines(text, item.start, item.end)
            }
        })?;
    }
    for (at, (old, new)) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new) {
        debug_assert_ne!(old, new);
        text = with_item(&text, path, at, |text, flow, item| {
            put(text, item.start, item.end, &write::scalar(new, flow))
        })?;
    }
    for (at, new) in new.iter().enumerate().skip(old.len()) {
        text = with_item(&text, path, at.checked_sub(1).ok_or(Unsuitable)?, |text, flow, item| {
            if flow {
                return put(text, item.end, item.end, &format!(", {}", write::scalar(new, flow)));
            }
            let dash = text.get(..item.start).and_then(|before| before.rfind('-')).ok_or(Unsuitable)?;
            let line = format!("{}- {}", " ".repeat(column(text, dash)), write::scalar(new, flow));
            Ok(insert_line(text, item.end, &line))
        })?;
    }
    Ok(text)
}

fn with_item(
    text: &str,
    path: &[&str],
    at: usize,
    edit: impl FnOnce(&str, bool, std::ops::Range<usize>) -> Spliced,
) -> Spliced {
    let root = root(text)?.ok_or(Unsuitable)?;
    match &root.at(path).ok_or(Unsuitable)?.content {
        Content::List { flow, items } => edit(text, *flow, items.get(at).ok_or(Unsuitable)?.range.clone()),
        _ => Err(Unsuitable),
    }
}

fn nested(path: &[&str], value: &Value) -> Value {
    path.iter().rev().fold(value.clone(), |inner, key| {
        let mut map = serde_yaml::Mapping::new();
        map.insert(Value::String((*key).to_owned()), inner);
        Value::Mapping(map)
    })
}

/// A whole mapping behind a text that has no value.
fn append(text: &str, value: &Value) -> String {
    let newline = newline(text);
    let mut out = text.to_owned();
    if !out.is_empty() && !out.ends_with('\n') && out != "\u{feff}" {
        out.push_str(newline);
    }
    if let Value::Mapping(map) = value {
        for (key, value) in map {
            out.push_str(&write::scalar(&write::key_text(key), false));
            out.push(':');
            out.push_str(&write::block(value, 0, newline));
            out.push_str(newline);
        }
    }
    out
}

fn insert(text: &str, map: &Node, key: &str, value: &Value) -> Spliced {
    let Content::Map { flow, entries } = &map.content else { return Err(Unsuitable) };
    if *flow {
        let written = format!("{}: {}", write::scalar(key, true), write::flow(value));
        return match entries.last() {
            Some(last) => {
                let end = value_end(text, last)?;
                put(text, end, end, &format!(", {written}"))
            }
            None => {
                let inside = text.get(map.range.clone()).and_then(|map| map.find('{')).ok_or(Unsuitable)?;
                let at = map.range.start + inside + 1;
                put(text, at, at, &written)
            }
        };
    }
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Err(Unsuitable) };
    let indent = key_column(text, first);
    let value = write::block(value, indent, newline(text));
    let line = format!("{}{}:{value}", " ".repeat(indent), write::scalar(key, false));
    Ok(insert_line(text, value_end(text, last)?, &line))
}

fn replace(text: &str, entry: &Entry, flow: bool, value: &Value) -> Spliced {
    let (colon, end) = (colon(text, entry)?, value_end(text, entry)?);
    if flow {
        return put(text, colon, end, &format!(" {}", write::flow(value)));
    }
    let written = write::block(value, key_column(text, entry), newline(text));
    let mut from = colon;
    // A comment beside the key stays where the new value begins on the next line.
    let between = text.get(colon..entry.value.range.start.max(colon)).unwrap_or_default();
    if let (true, Some(line_end)) = (written.starts_with(['\r', '\n']), between.find('\n')) {
        from += between.get(..line_end).unwrap_or_default().trim_end().len();
    }
    let rest = text.get(end..).ok_or(Unsuitable)?;
    let (line, _) = rest.split_once('\n').unwrap_or((rest, ""));
    if written.contains('\n') && line.trim_start().starts_with('#') {
        // … as does one behind the old value.
        let comment = line.trim_end();
        let (first, others) = written.split_at(written.find(['\r', '\n']).unwrap_or(0));
        return put(text, from, end + comment.len(), &format!("{first}{comment}{others}"));
    }
    put(text, from, end, &written)
}

/// Behind the colon of an entry.
fn colon(text: &str, entry: &Entry) -> Result<usize, Unsuitable> {
    let rest = text.get(entry.key.range.end..).ok_or(Unsuitable)?;
    let blank = rest.len() - rest.trim_start().len();
    rest.get(blank..).filter(|rest| rest.starts_with(':')).ok_or(Unsuitable)?;
    Ok(entry.key.range.end + blank + 1)
}

fn value_end(text: &str, entry: &Entry) -> Result<usize, Unsuitable> {
    Ok(entry.value.range.end.max(colon(text, entry)?))
}

fn remove_lines(text: &str, start: usize, end: usize) -> Spliced {
    let line = text.get(..start).ok_or(Unsuitable)?.rfind('\n').map_or(0, |at| at + 1);
    let before = text.get(line..start).ok_or(Unsuitable)?;
    if !matches!(before.trim_start_matches('\u{feff}').trim(), "" | "-" | "?") {
        return Err(Unsuitable);
    }
    let line = if before.starts_with('\u{feff}') { line + '\u{feff}'.len_utf8() } else { line };
    let rest = text.get(end..).ok_or(Unsuitable)?;
    put(text, line, end + rest.find('\n').map_or(rest.len(), |at| at + 1), "")
}

/// With the comma behind it, or else the one before it.
fn remove_flow(text: &str, start: usize, end: usize) -> String {
    let (before, after) = (text.get(..start).unwrap_or_default(), text.get(end..).unwrap_or_default());
    if let Some(after) = after.trim_start().strip_prefix(',') {
        return format!("{before}{}", after.trim_start_matches(' '));
    }
    let before = before.trim_end();
    format!("{}{after}", before.strip_suffix(',').unwrap_or(before))
}

/// A line behind the one in which `at` is.
fn insert_line(text: &str, at: usize, line: &str) -> String {
    let newline = newline(text);
    let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
    match after.split_once('\n') {
        Some((rest, after)) => format!("{before}{rest}\n{line}{newline}{after}"),
        None => format!("{before}{after}{newline}{line}"),
    }
}

fn put(text: &str, start: usize, end: usize, new: &str) -> Spliced {
    match (text.get(..start), text.get(end..)) {
        (Some(before), Some(after)) => Ok(format!("{before}{new}{after}")),
        _ => Err(Unsuitable),
    }
}

fn split(text: &str, at: usize) -> Result<(&str, &str), Unsuitable> {
    text.split_at_checked(at).ok_or(Unsuitable)
}

/// Every line but the first two columns to the right.
fn shifted(text: &str) -> String {
    let mut lines = text.split('\n');
    let mut out = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        out.push('\n');
        if !line.trim().is_empty() {
            out.push_str("  ");
        }
        out.push_str(line);
    }
    out
}

/// The column that the entry's key begins at, which is that of its `?` if it has one.
fn key_column(text: &str, entry: &Entry) -> usize {
    let start = entry.key.range.start;
    let before = text.get(..start).unwrap_or_default().trim_end_matches(' ');
    column(text, before.strip_suffix('?').map_or(start, str::len))
}

/// The column of a byte, in characters.
fn column(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.rsplit('\n').next().unwrap_or_default().trim_start_matches('\u{feff}').chars().count()
}

/// How this text ends its lines.
fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
