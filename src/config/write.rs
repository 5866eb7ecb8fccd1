//! Writes values as YAML, so that every YAML reader finds the same text again.

use serde_yaml::Value;

/// A text as a scalar: without quotes where no reader could take it for anything else.
pub(super) fn scalar(text: &str, flow: bool) -> String {
    if is_plain(text, flow) { text.to_owned() } else { quoted(text) }
}

/// In double quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // What YAML 1.1 does not call printable, and its line ends.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Letters, digits and what URLs have, nothing that YAML gives a meaning in that place.
fn is_plain(text: &str, flow: bool) -> bool {
    let url = |c: char| if flow { "_-./+".contains(c) } else { "_-./+:@%=?&;~$!*()#,".contains(c) };
    let starts = text.chars().next().is_some_and(char::is_alphabetic) || is_duration(text);
    starts && text.chars().all(|c| c.is_alphanumeric() || url(c)) && !text.ends_with(':') && !is_typed(text)
}

/// `500ms`, `10s`.
fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < text.len() && matches!(unit, "ms" | "s")
}

/// What some YAML reader takes for a flag, nothing or a number.
fn is_typed(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null" | "inf" | "nan"
    )
}

/// A value inside brackets or on the key's own line.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Sequence(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Mapping(map) => {
            let entry =
                |(key, value): (&Value, &Value)| format!("{}: {}", scalar(&key_text(key), true), flow(value));
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => leaf(other, true),
    }
}

/// What follows `key:` in a block whose keys are at column `indent`: with the blank or line end before it.
pub(super) fn block(value: &Value, indent: usize, newline: &str) -> String {
    let inner = format!("{newline}{}", " ".repeat(indent + 2));
    match value {
        Value::Sequence(items) if !items.is_empty() => {
            items.iter().map(|item| format!("{inner}- {}", flow_or_leaf(item))).collect()
        }
        Value::Mapping(map) if !map.is_empty() => map
            .iter()
            .map(|(key, value)| {
                format!("{inner}{}:{}", scalar(&key_text(key), false), block(value, indent + 2, newline))
            })
            .collect(),
        Value::Null => String::new(),
        other => format!(" {}", flow_or_leaf(other)),
    }
}

fn flow_or_leaf(value: &Value) -> String {
    match value {
        Value::Sequence(_) | Value::Mapping(_) => flow(value),
        other => leaf(other, false),
    }
}

fn leaf(value: &Value, flow: bool) -> String {
    match value {
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => scalar(text, flow),
        Value::Tagged(tagged) => leaf(&tagged.value, flow),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => "null".to_owned(),
    }
}

/// A mapping's key as text.
pub(super) fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => leaf(other, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_words_need_no_quotes_and_what_looks_typed_does() {
        for plain in
            ["front", "금곡IC", "rtsp://u:p@h:554/x?a=b&c=d#media=video", "demo", "a-b_c.d", "${X:rtsp}"]
        {
            let expected = if plain.starts_with('$') { quoted(plain) } else { plain.to_owned() };
            assert_eq!(scalar(plain, false), expected);
        }
        for text in [
            "", "yes", "No", "1", "1e3", "null", "~", "a: b", " a", "a ", "a #b", "- a", "demo:", "*a", "😀",
            "x'y",
        ] {
            assert!(scalar(text, false).starts_with('"'), "{text:?}");
        }
        assert!(scalar("a,b", true).starts_with('"') && scalar("rtsp://x", true).starts_with('"'));
    }

    proptest::proptest! {
        #[test]
        fn every_text_is_read_back(text in "\\PC{0,12}|[ -~]{0,12}|[\\x00-\\x7f\u{85}\u{a0}\u{2028}\u{feff}\u{fffe}]{0,6}") {
            for flow in [false, true] {
                let yaml = if flow { format!("{{a: [{0}, {0}]}}", scalar(&text, flow)) } else { format!("a:\n- {0}\n- {0}\n", scalar(&text, flow)) };
                let read: Value = serde_yaml::from_str(&yaml).unwrap_or_else(|error| panic!("{error}: {yaml:?}"));
                proptest::prop_assert_eq!(&read["a"][1], &Value::String(text.clone()), "{}", yaml);
                let tree = crate::config::tree::read(&yaml).unwrap().unwrap();
                let crate::config::tree::Content::List { items, .. } = &tree.at(&["a"]).unwrap().content else {
                    panic!("{yaml}");
                };
                proptest::prop_assert!(items.iter().all(|item| item.text() == Some(text.as_str())), "{}", yaml);
            }
        }
    }
}
