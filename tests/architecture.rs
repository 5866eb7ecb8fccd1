//! The shape of the code, checked: which folder may use which, how large a file may grow, what each folder says of itself.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 600;

/// Who may use whom, besides itself. `media` and the three leaves use nobody; everybody else may use the leaves.
const MAY_USE: &[(&str, &[&str])] = &[
    ("media", &[]),
    ("config", &[]),
    ("net", &[]),
    ("telemetry", &[]),
    ("rtsp", &["media", "net"]),
    ("graph", &["media", "config", "net", "telemetry"]),
    ("sources", &["media", "rtsp", "graph", "config", "net", "telemetry"]),
    ("consumers", &["media", "rtsp", "graph", "config", "net", "telemetry"]),
    ("api", &["media", "graph", "sources", "consumers", "config", "net", "telemetry"]),
    ("server", &["media", "graph", "sources", "consumers", "api", "config", "net", "telemetry"]),
    ("app", &["media", "graph", "sources", "consumers", "api", "server", "config", "net", "telemetry"]),
    (
        "cli",
        &["media", "graph", "sources", "consumers", "api", "server", "app", "config", "net", "telemetry"],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

#[test]
fn dependencies_follow_the_arrows() {
    let files = rust_files("src");
    assert!(files.len() > 10, "the sources were found");
    let problems: Vec<String> =
        files.iter().flat_map(|(path, text)| against_the_arrows(path, text)).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A route by `routes!` brings its description; what has none is named here.
#[test]
fn every_route_of_the_api_is_described() {
    for (path, text) in rust_files("src/api") {
        let undescribed = text.lines().filter(|line| line.contains(".route(")).filter(|line| {
            let is_preflight = line.contains("options(preflight)");
            // An OpenAPI path can't have a wildcard.
            !is_preflight && !line.contains("{*path}")
        });
        assert_eq!(undescribed.collect::<Vec<_>>(), Vec::<&str>::new(), "{path}");
    }
}

#[test]
fn nothing_is_unsafe() {
    let root = fs::read_to_string(in_checkout("src/lib.rs")).expect("src/lib.rs");
    assert!(root.contains("#![deny(unsafe_code)]") || root.contains("#![forbid(unsafe_code)]"));
    for (path, text) in rust_files("src") {
        let code = without_comments_and_literals(&text);
        assert!(!identifiers(&code).any(|(_, word)| word == "unsafe"), "{path}: `unsafe`");
        assert!(!code.contains("allow(unsafe_code"), "{path}: allows unsafe code");
    }
}

#[test]
fn files_stay_small_enough_to_read() {
    for folder in ["src", "tests", "www", "fuzz"] {
        for path in files_below(&in_checkout(folder)) {
            let is_source =
                path.extension().is_some_and(|e| ["rs", "js", "mjs", "py", "sh"].iter().any(|x| e == *x));
            if is_source {
                let lines = fs::read_to_string(&path).expect("text").lines().count();
                assert!(lines <= MAX_FILE_LINES, "{}: {lines} lines; is it one thing?", path.display());
            }
        }
    }
}

#[test]
fn each_folder_says_what_it_is_for() {
    let folders: Vec<_> =
        rust_files("src").into_iter().filter(|(path, _)| path.ends_with("/mod.rs")).collect();
    assert!(folders.len() >= 8, "the folders were found");
    for (path, text) in folders {
        assert!(text.starts_with("//! "), "{path} does not open with what lives here");
        let opening: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let is_top = path.matches('/').count() == 2;
        assert!(!is_top || opening.contains("May use"), "{path} does not say what it may use");
    }
}

/// What in this file runs against the arrows, one line each.
fn against_the_arrows(path: &str, text: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").expect("a path below src");
    let folder = inside.split(['/', '.']).next().expect("a first part");
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == folder) else {
        return vec![format!("{path}: the folder `{folder}` has no rule in tests/architecture.rs")];
    };
    // How many `super`s lead from this file's module to the crate's root.
    let depth = inside.matches('/').count() + usize::from(!inside.ends_with("/mod.rs"));
    let code = without_comments_and_literals(text);
    used_folders(&code, depth, folder == "main")
        .into_iter()
        .filter(|used| used != folder && !allowed.contains(&used.as_str()))
        .map(|used| format!("{path} uses `{used}`, which `{folder}` must not know"))
        .collect()
}

/// The folders that the code names: after `crate::`, after as many `super::` as lead to the root or more, and in
/// `main.rs` after the library's name.
fn used_folders(code: &str, depth: usize, is_main: bool) -> Vec<String> {
    let mut used = Vec::new();
    for (at, word) in identifiers(code) {
        let mut rest = &code[at + word.len()..];
        let mut supers = 0;
        if word == "super" && !ends_with_path_separator(&code[..at]) {
            supers = 1;
            while let Some(after) = after_separator(rest).and_then(|r| r.strip_prefix("super")) {
                supers += 1;
                rest = after;
            }
        }
        let is_root =
            word == "crate" || (is_main && word == "streamgate") || (word == "super" && supers >= depth);
        if let (true, Some(rest)) = (is_root, after_separator(rest)) {
            used.extend(first_names(rest));
        }
    }
    used.retain(|name| MAY_USE.iter().any(|(folder, _)| folder == name));
    used.sort();
    used.dedup();
    used
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.trim_start().strip_prefix('{') else {
        return identifiers(path.trim_start()).take(1).map(|(_, word)| word.to_owned()).collect();
    };
    let (mut level, mut item, mut items) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => level += 1,
            '}' if level == 0 => break,
            '}' => level -= 1,
            ',' if level == 0 => items.push(std::mem::take(&mut item)),
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items.iter().filter_map(|item| identifiers(item).next().map(|(_, word)| word.to_owned())).collect()
}

fn after_separator(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix("::").map(str::trim_start)
}

fn ends_with_path_separator(text: &str) -> bool {
    text.trim_end().ends_with("::")
}

/// The words of the code with their places.
fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// The code with comments, strings and characters blanked out.
fn without_comments_and_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_or_comment(rest);
        if length > 0 {
            code.push(' ');
            rest = &rest[length..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// The length of the comment or literal that the text starts with; 0 if it starts with none.
fn literal_or_comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &raw[hashes + 1..];
            return body.find(&end).map_or(text.len(), |at| 1 + hashes + 1 + at + end.len());
        }
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    // A character, not a lifetime: a quote, one character or an escape, a quote.
    let mut chars = text.chars();
    if chars.next() == Some('\'') {
        let (second, third) = (chars.next(), chars.next());
        if second == Some('\\') || (second.is_some() && third == Some('\'')) {
            return quoted(text, '\'');
        }
    }
    0
}

/// The length of a quoted literal with backslash escapes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn in_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Rust files below a folder: their paths from the checkout, and their text.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let relative = |path: &Path| path.strip_prefix(in_checkout("")).expect("inside").display().to_string();
    files_below(&in_checkout(folder))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (relative(&path), fs::read_to_string(&path).expect("text")))
        .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a directory entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !["node_modules", "target", "artifacts", "corpus"].contains(&name.as_str()) {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

/// The check itself, on small samples.
mod the_check {
    use super::against_the_arrows;

    fn allows(path: &str, code: &str) {
        assert_eq!(against_the_arrows(path, code), Vec::<String>::new(), "{code}");
    }

    fn finds(path: &str, code: &str, used: &str) {
        let found = against_the_arrows(path, code);
        assert!(found.len() == 1 && found[0].contains(&format!("`{used}`")), "{code}: {found:?}");
    }

    #[test]
    fn lets_dependencies_along_the_arrows_pass() {
        allows("src/graph/ring.rs", "use crate::media::{Packet, Track};\nuse super::source::Source;");
        allows("src/sources/rtsp/mod.rs", "use crate::{graph::{Source, SourceError}, media::Track};");
        allows("src/consumers/webrtc/peer.rs", "fn f() { crate::consumers::webrtc::sdp::x() }");
        allows("src/app.rs", "use crate::server::Listener; use crate::telemetry::log;");
        allows("src/main.rs", "fn main() { streamgate::cli::main() }");
    }

    #[test]
    fn finds_every_way_to_write_a_forbidden_one() {
        finds("src/media/track.rs", "use crate::graph::Source;", "graph");
        finds("src/graph/ring.rs", "use crate::{media::Packet, sources::{rtsp, demo}};", "sources");
        finds("src/sources/demo/mod.rs", "type T = crate\n    ::consumers::webrtc::Peer;", "consumers");
        finds("src/consumers/webrtc/mod.rs", "fn f(x: &'static str) -> crate::sources::X {}", "sources");
        finds("src/graph/ring.rs", "use super::super::server::Listener;", "server");
        finds("src/graph/mod.rs", "use super::api;", "api");
        finds("src/config/model.rs", "use crate::media::Codec;", "media");
        finds("src/app.rs", "pub(crate) use crate::cli::Args;", "cli");
        finds("src/main.rs", "use streamgate::media::Codec;", "media");
        finds("src/sources/mod.rs", "const A: char = '\"'; use crate::api::X; const B: char = '\"';", "api");
    }

    #[test]
    fn is_not_misled_by_comments_and_strings() {
        allows(
            "src/media/track.rs",
            "/// See [`crate::graph::Ring`].\n// crate::api\n/* crate::cli */ fn f() {}",
        );
        allows("src/media/track.rs", "const A: &str = \"crate::graph \\\" crate::api\";");
        allows(
            "src/media/track.rs",
            "const A: &str = r#\"crate::graph \" crate::api\"#; const B: char = '\\'';",
        );
        allows("src/graph/ring.rs", "mod tests { use super::super::source::api; }");
    }

    #[test]
    fn wants_a_rule_for_each_folder() {
        let found = against_the_arrows("src/helpers/mod.rs", "");
        assert!(found.len() == 1 && found[0].contains("no rule"), "{found:?}");
    }
}
