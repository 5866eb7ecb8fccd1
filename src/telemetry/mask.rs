//! Hides credentials in any text.

use std::borrow::Cow;

/// Names of query parameters and fields whose value is secret, lower case.
const SECRETS: &[&str] = &[
    "access_token",
    "api_key",
    "apikey",
    "auth",
    "credential",
    "loginpas",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "psw",
    "pw",
    "pwd",
    "secret",
    "signature",
    "token",
];

/// Hides the credentials of every URL inside `text`: `scheme://user:password@` becomes `scheme://***@`, and the
/// value of `password=`, `pwd=`, `token=` and the like becomes `***`. URLs that are percent-encoded into another
/// URL are seen as well.
///
/// A password with `/`, `?` or `@` in it is hidden whole; the price is that `@` in a path hides what is before it.
pub fn mask(text: &str) -> Cow<'_, str> {
    match mask_user_info(text) {
        Some(masked) => Cow::Owned(mask_values(&masked).unwrap_or(masked)),
        None => mask_values(text).map_or(Cow::Borrowed(text), Cow::Owned),
    }
}

/// `None`: nothing to hide.
fn mask_user_info(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((start, encoded)) = authority(rest) {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let (token, tail) = after.split_at(token_length(after, encoded));
        match last_at(token, encoded) {
            Some(at) => {
                out.push_str("***");
                out.push_str(token.get(at..).unwrap_or_default());
            }
            None => out.push_str(token),
        }
        rest = tail;
    }
    if out.is_empty() {
        return None;
    }
    out.push_str(rest);
    (out != text).then_some(out)
}

/// Where the next authority begins, and whether its URL is percent-encoded.
fn authority(text: &str) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    let begins = |at: usize, separator: &[u8]| {
        bytes.get(at..at + separator.len()).is_some_and(|found| found.eq_ignore_ascii_case(separator))
    };
    bytes.iter().enumerate().find_map(|(at, byte)| match byte {
        b':' if begins(at, b"://") => Some((at + 3, false)),
        b'%' if begins(at, b"%3a%2f%2f") => Some((at + 9, true)),
        _ => None,
    })
}

/// How many bytes of `text` may belong to the URL.
fn token_length(text: &str, encoded: bool) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        let quote = matches!(c, '"' | '\'' | '<' | '>' | '`') && !escaped;
        if c.is_whitespace() || c.is_control() || quote || (encoded && c == '&') {
            return at;
        }
        escaped = c == '\\';
    }
    text.len()
}

fn last_at(token: &str, encoded: bool) -> Option<usize> {
    let plain = token.rfind('@');
    let percent = if encoded { token.rfind("%40") } else { None };
    plain.max(percent)
}

/// `None`: nothing to hide.
fn mask_values(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let (before, after) = rest.split_at(equals + 1);
        out.push_str(before);
        let name_start = before
            .char_indices()
            .rev()
            .skip(1)
            .take_while(|(_, c)| c.is_ascii_alphanumeric() || *c == '_')
            .last()
            .map_or(equals, |(at, _)| at);
        let name = before.get(name_start..equals).unwrap_or_default();
        rest = after;
        if name.len() <= 16 && SECRETS.contains(&name.to_ascii_lowercase().as_str()) {
            let end = value_length(after);
            if end > 0 {
                out.push_str("***");
            }
            rest = after.get(end..).unwrap_or_default();
        }
    }
    if out.is_empty() {
        return None;
    }
    out.push_str(rest);
    (out != text).then_some(out)
}

fn value_length(text: &str) -> usize {
    let quoted = text.starts_with(['"', '\'']);
    let ends = |c: char| {
        c.is_control()
            || if quoted { matches!(c, '"' | '\'') } else { c.is_whitespace() || "&;\"'<>`,)".contains(c) }
    };
    let skip = usize::from(quoted);
    text.get(skip..).and_then(|rest| rest.find(ends)).map_or(text.len(), |end| end + skip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_hidden() {
        for (text, expected) in [
            ("rtsp://user:pass@host:554/x", "rtsp://***@host:554/x"),
            ("dial rtsp://user@host failed", "dial rtsp://***@host failed"),
            ("rtsp://u:p@ss@host/1 and http://a:b@c", "rtsp://***@host/1 and http://***@c"),
            ("rtsp://u:p/q?r#s@host/1", "rtsp://***@host/1"),
            ("url=\"rtsp://u:p@host\" x", "url=\"rtsp://***@host\" x"),
            (r#"{"url":"rtsp://u:a\"b@host"}"#, r#"{"url":"rtsp://***@host"}"#),
            ("ffmpeg:rtsp://u:p@h#video=copy", "ffmpeg:rtsp://***@h#video=copy"),
            (
                "/api/streams?src=rtsp%3A%2F%2Fu%3Ap%40host%2F1&name=a@b",
                "/api/streams?src=rtsp%3A%2F%2F***%40host%2F1&name=a@b",
            ),
            ("rtsp%3a%2f%2Fu:p@host", "rtsp%3a%2f%2F***@host"),
            ("rtsp://금:곡@host", "rtsp://***@host"),
            ("rtsp://u:p@", "rtsp://***@"),
            ("rtsps://u:p@h:322/x rtspx://u:p@[::1]", "rtsps://***@h:322/x rtspx://***@[::1]"),
        ] {
            assert_eq!(mask(text), expected, "{text}");
        }
    }

    #[test]
    fn secret_parameters_are_hidden() {
        for (text, expected) in [
            ("http://h/?user=a&password=b&x=1", "http://h/?user=a&password=***&x=1"),
            ("http://h/?PWD=b", "http://h/?PWD=***"),
            ("rtsp://h/?usr=a&pw=b&x=1 loginpas=c psw=d", "rtsp://h/?usr=a&pw=***&x=1 loginpas=*** psw=***"),
            ("token=abc, next", "token=***, next"),
            ("password=\"a b\" c", "password=***\" c"),
            ("http://h/?pass=a#f pass=", "http://h/?pass=*** pass="),
            ("rtsp://u:p@h/?token=t", "rtsp://***@h/?token=***"),
        ] {
            assert_eq!(mask(text), expected, "{text}");
        }
    }

    #[test]
    fn harmless_text_is_borrowed_unchanged() {
        for text in [
            "",
            "no url",
            "rtsp://host:554/x?channel=1",
            "a@b.c",
            "x = y",
            "bypass=1",
            "compassion=2",
            "://",
            "=",
            "http://[::1]:80/",
            "%3A%2F%2F",
        ] {
            assert!(matches!(mask(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken(text in "\\PC*") {
            let _ = mask(&text);
        }

        #[test]
        fn a_password_without_blanks_never_survives(
            before in "[ a-z=&?]{0,8}", password in "[A-Z@:/?#=&%]{12,20}", after in "[ a-z/?=&]{0,8}"
        ) {
            let text = format!("{before} rtsp://user:Q{password}Q@host{after}");
            let masked = mask(&text).into_owned();
            proptest::prop_assert!(!masked.contains(&password), "{masked}");
            proptest::prop_assert!(masked.contains("host"), "{masked}");
        }
    }
}
