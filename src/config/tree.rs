//! Where everything is in a YAML text: a tree of byte ranges, for edits that touch nothing else.

use saphyr_parser::{Event, Parser, ScalarStyle};
use std::ops::Range;

/// Nesting at most; a configuration has five levels.
const MAX_DEPTH: usize = 64;

/// One value or key.
#[derive(Debug)]
pub(super) struct Node {
    /// Its bytes, an anchor and a tag included, blanks and comments after it not. Empty where nothing was written.
    pub(super) range: Range<usize>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Scalar {
        text: String,
        /// Without quotes and not as a block.
        plain: bool,
    },
    /// `*name`.
    Alias,
    List {
        flow: bool,
        items: Vec<Node>,
    },
    Map {
        flow: bool,
        entries: Vec<Entry>,
    },
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Node,
    pub(super) value: Node,
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Nothing, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The entries of a mapping, none of anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Map { entries, .. } => entries,
            _ => &[],
        }
    }

    /// The entry of a mapping with that key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key.text() == Some(key))
    }

    /// The value below these keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.entry(key).map(|entry| &entry.value))
    }
}

/// A collection that has been opened.
struct Open {
    start: usize,
    children: Vec<Node>,
    is_map: bool,
}

/// Reads the tree; `None` for a text without any value.
///
/// # Errors
/// No YAML, more than one document, or too deep.
pub(super) fn read(text: &str) -> Result<Option<Node>, String> {
    // The parser counts characters.
    let mut bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    bytes.push(text.len());
    let byte = |index: usize| bytes.get(index).copied().unwrap_or(text.len());
    let mut root: Option<Node> = None;
    let mut documents = 0;
    let mut open: Vec<Open> = Vec::new();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let (start, end) = (byte(span.start.index()), byte(span.end.index()));
        let node = match event {
            Event::StreamEnd => break,
            Event::Nothing | Event::StreamStart | Event::DocumentEnd => continue,
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err("there is more than one document".to_owned());
                }
                continue;
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                if open.len() >= MAX_DEPTH {
                    return Err(format!("nested more than {MAX_DEPTH} deep"));
                }
                let is_map = matches!(event, Event::MappingStart(..));
                open.push(Open { start, children: Vec::new(), is_map });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(closed) = open.pop() else { return Err("a list ends that never began".to_owned()) };
                close(text, closed)
            }
            Event::Alias(_) => Node { range: start..end, content: Content::Alias },
            Event::Scalar(value, style, ..) => {
                let plain = style == ScalarStyle::Plain;
                let written = text.get(start..end).unwrap_or_default();
                // What is empty was not written; the parser then shows what comes next.
                let end = if plain && value.is_empty() && !written.starts_with(['&', '!']) {
                    start
                } else {
                    start + written.trim_end().len()
                };
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let start = if is_block { block_start(text, open.last(), start) } else { start };
                Node {
                    range: start..end.max(start),
                    content: Content::Scalar { text: value.into_owned(), plain },
                }
            }
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(node),
            None => root = Some(node),
        }
    }
    Ok(root)
}

/// Behind these characters and comments.
fn skip(text: &str, mut at: usize, blanks: &str) -> usize {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let trimmed = rest.trim_start_matches(|c| blanks.contains(c));
        at += rest.len() - trimmed.len();
        if !trimmed.starts_with('#') {
            return at;
        }
        at += trimmed.find('\n').unwrap_or(trimmed.len());
    }
}

/// Where a block scalar begins with its anchor, tag or `|`; the parser only says where its first line is.
fn block_start(text: &str, parent: Option<&Open>, content: usize) -> usize {
    let before = text.get(..content).unwrap_or_default();
    let header = before.trim_end().rfind('\n').map_or(0, |at| at + 1);
    let key = parent.filter(|parent| parent.is_map).and_then(|parent| parent.children.last());
    let from = key.map_or(header, |key| key.range.end).max(header);
    let line = text.get(from..content).unwrap_or_default();
    let skipped = line.find(if key.is_some() { ':' } else { '-' }).map_or(0, |at| at + 1);
    let rest = line.get(skipped..).unwrap_or_default();
    from + skipped + (rest.len() - rest.trim_start().len())
}

/// The parser only says where a collection begins, anchor and tag included.
fn close(text: &str, closed: Open) -> Node {
    let mut inside = closed.start;
    while text.get(inside..).is_some_and(|rest| rest.starts_with(['&', '!'])) {
        let rest = text.get(inside..).unwrap_or_default();
        inside = skip(text, inside + rest.find(char::is_whitespace).unwrap_or(rest.len()), " \t\r\n");
    }
    let flow = text.get(inside..).is_some_and(|rest| rest.starts_with(if closed.is_map { '{' } else { '[' }));
    let last = closed.children.iter().map(|child| child.range.end).max();
    let end = if flow {
        let bracket = skip(text, last.unwrap_or(inside + 1), " \t\r\n,:");
        bracket + usize::from(text.get(bracket..).is_some_and(|rest| rest.starts_with(['}', ']'])))
    } else {
        last.unwrap_or(closed.start)
    };
    let range = closed.start..end.max(closed.start);
    let content = if closed.is_map {
        let mut entries = Vec::with_capacity(closed.children.len() / 2);
        let mut children = closed.children.into_iter();
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            entries.push(Entry { key, value });
        }
        Content::Map { flow, entries }
    } else {
        Content::List { flow, items: closed.children }
    };
    Node { range, content }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_the_written_bytes() {
        let text = "\u{feff}a: &x 금곡 # c\r\nb: [x, {k: 'v'}, ] # q\r\nc:\r\nd: |\r\n  p\r\n\r\ne:\r\n  - *x\r\n# tail\r\n";
        let root = read(text).unwrap().unwrap();
        let shown = |path: &[&str]| text.get(root.at(path).unwrap().range.clone()).unwrap();
        assert_eq!(shown(&["a"]), "&x 금곡");
        assert_eq!(shown(&["b"]), "[x, {k: 'v'}, ]");
        assert_eq!(shown(&["c"]), "");
        assert_eq!(shown(&["d"]), "|\r\n  p");
        assert_eq!(shown(&["e"]), "- *x");
        assert!(root.at(&["c"]).unwrap().is_null());
    }

    #[test]
    fn nothing_deep_or_several_documents_is_no_tree() {
        assert!(read("# only a comment\n").unwrap().is_none());
        assert!(read(&"[".repeat(1000)).is_err());
        assert!(read("a: b\n---\nc: d\n").is_err());
        assert!(read("a: [").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_a_tree_or_an_error(text in "[a-c\\[\\]{}:,&*!'\"\\-#|>? \r\n\u{e9}]{0,80}") {
            if let Ok(Some(root)) = read(&text) {
                assert!(text.get(root.range.clone()).is_some());
                assert!(root.entries().iter().all(|entry| text.get(entry.value.range.clone()).is_some()));
            }
        }
    }
}
