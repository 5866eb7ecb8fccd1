//! Requests and responses (RFC 2326 §4 to §7): their parts as text, read line by line, and written.

use std::fmt::Write;

/// The header fields of a message. Names are compared without regard to case; a field that comes several times is one
/// list, joined by commas (RFC 2326 §4.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `OPTIONS`, `DESCRIBE` … as it came: methods are case-sensitive.
    pub method: String,
    /// The request URI, or `*`.
    pub uri: String,
    /// Its header fields.
    pub headers: Headers,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// 100 to 599.
    pub status: u16,
    /// What it says for people; may be empty.
    pub reason: String,
    /// Its header fields.
    pub headers: Headers,
}

/// A message's first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Request { method: String, uri: String },
    Response { status: u16, reason: String },
}

impl Headers {
    /// A field's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Appends to the value of the last field: a line that begins with a space continues the one before.
    pub(super) fn continue_last(&mut self, text: &str) -> bool {
        let Some((_, value)) = self.0.last_mut() else { return false };
        value.push(' ');
        value.push_str(text);
        true
    }

    pub(super) fn add(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            Some((_, old)) => {
                old.push_str(", ");
                old.push_str(value);
            }
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

impl Start {
    /// Reads `METHOD uri RTSP/1.0` or `RTSP/1.0 200 OK`. `None` if it is neither.
    pub(super) fn parse(line: &str) -> Option<Start> {
        if let Some(rest) = line.strip_prefix("RTSP/1.0 ") {
            let (status, reason) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
            let status = status
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| status.parse().ok())
                .flatten()
                .filter(|status| (100..600).contains(status))?;
            return Some(Start::Response { status, reason: reason.trim().to_owned() });
        }
        let (method, rest) = line.split_once(' ')?;
        let (uri, version) = rest.trim().rsplit_once(' ')?;
        let is_method = (1..=32).contains(&method.len())
            && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        let uri = uri.trim();
        (is_method && version == "RTSP/1.0" && !uri.is_empty() && !uri.contains(char::is_control))
            .then(|| Start::Request { method: method.to_owned(), uri: uri.to_owned() })
    }
}

impl Response {
    /// Whether the request was done: 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A message in the making. What is put into it can't break out of its line: control characters become spaces.
#[derive(Debug, Clone)]
pub struct Draft {
    head: String,
    body: String,
}

impl Draft {
    /// `METHOD uri RTSP/1.0`, numbered.
    pub fn request(method: &str, uri: &str, cseq: u32) -> Draft {
        let head = format!("{} {} RTSP/1.0\r\nCSeq: {cseq}\r\n", clean(method), clean(uri));
        Draft { head, body: String::new() }
    }

    /// `RTSP/1.0 status`, with the request's own number.
    pub fn response(status: u16, cseq: &str) -> Draft {
        Draft::response_saying(status, reason(status), cseq)
    }

    /// The same with other words than the usual ones.
    pub fn response_saying(status: u16, words: &str, cseq: &str) -> Draft {
        let head = format!("RTSP/1.0 {status} {}\r\nCSeq: {}\r\n", clean(words), clean(cseq));
        Draft { head, body: String::new() }
    }

    /// Adds a header field.
    pub fn add(&mut self, name: &str, value: &str) {
        // Writing to a string can't fail.
        let _ = write!(self.head, "{name}: {}\r\n", clean(value));
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Draft {
        self.add(name, value);
        self
    }

    /// Adds a header field if there is a value for it.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<&str>) -> Draft {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds header fields.
    #[must_use]
    pub fn with_all(self, fields: &[(&str, &str)]) -> Draft {
        fields.iter().fold(self, |draft, (name, value)| draft.with(name, value))
    }

    /// Gives it a body.
    pub fn set_body(&mut self, media_type: &str, body: String) {
        self.add("Content-Type", media_type);
        self.body = body;
    }

    /// The message as it goes over the wire.
    pub fn finish(self) -> String {
        let Draft { mut head, body } = self;
        if !body.is_empty() {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head + "\r\n" + &body
    }
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// RFC 2326 §7.1.1.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        415 => "Unsupported Media Type",
        451 => "Parameter Not Understood",
        453 => "Not Enough Bandwidth",
        454 => "Session Not Found",
        455 => "Method Not Valid in This State",
        459 => "Aggregate Operation Not Allowed",
        461 => "Unsupported Transport",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        551 => "Option not supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read() {
        let request = |method: &str, uri: &str| Start::Request { method: method.into(), uri: uri.into() };
        for (line, start) in [
            ("OPTIONS * RTSP/1.0", request("OPTIONS", "*")),
            ("DESCRIBE rtsp://h/금곡IC RTSP/1.0", request("DESCRIBE", "rtsp://h/금곡IC")),
            // Some clients don't encode the spaces in their URL.
            ("SET_PARAMETER rtsp://h/a b RTSP/1.0", request("SET_PARAMETER", "rtsp://h/a b")),
            ("RTSP/1.0 200 OK", Start::Response { status: 200, reason: "OK".into() }),
            ("RTSP/1.0 404", Start::Response { status: 404, reason: String::new() }),
            (
                "RTSP/1.0  454 Session Not Found",
                Start::Response { status: 454, reason: "Session Not Found".into() },
            ),
        ] {
            assert_eq!(Start::parse(line), Some(start), "{line}");
        }
        for line in [
            "",
            "OPTIONS",
            "OPTIONS *",
            "OPTIONS RTSP/1.0",
            "options * RTSP/1.0",
            "OPTIONS * RTSP/2.0",
            "OPTIONS * HTTP/1.1",
            "RTSP/2.0 200 OK",
            "RTSP/1.0 20 OK",
            "RTSP/1.0 +200 OK",
            "RTSP/1.0 99999 OK",
        ] {
            assert_eq!(Start::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_draft_can_not_be_made_to_say_more() {
        let draft = Draft::response(404, "1\r\nX: y").with("Server", "a\r\n\r\nb").finish();
        assert_eq!(draft, "RTSP/1.0 404 Not Found\r\nCSeq: 1  X: y\r\nServer: a    b\r\n\r\n");
        let mut draft = Draft::request("PLAY", "rtsp://h/x", 3).with_some("Session", None);
        draft.set_body("text/plain", "ab".into());
        assert_eq!(
            draft.finish(),
            "PLAY rtsp://h/x RTSP/1.0\r\nCSeq: 3\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nab"
        );
    }

    #[test]
    fn fields_that_come_twice_are_lists() {
        let mut headers = Headers::default();
        headers.add("WWW-Authenticate", "Digest a=b");
        headers.add("www-authenticate", "Basic c=d");
        assert!(headers.continue_last("e"));
        assert_eq!(headers.get("Www-Authenticate"), Some("Digest a=b, Basic c=d e"));
        assert_eq!(headers.get("x"), None);
        assert!(!Headers::default().continue_last("e"));
    }
}
