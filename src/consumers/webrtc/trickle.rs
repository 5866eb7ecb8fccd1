//! `application/trickle-ice-sdpfrag` (RFC 8840 §9), as WHEP's PATCH carries it.
//!
//! An ICE-lite server learns a viewer's addresses from its checks, so candidates are read and need not be kept;
//! what matters is whether the credentials are new: then ICE is restarted.

use super::demux::Session;
use super::section::check_credentials;

/// Longest fragment that is read.
pub const MAX_FRAGMENT_BYTES: usize = 64 << 10;

/// What a fragment says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The viewer's ICE username fragment and password, if given.
    pub credentials: Option<(String, String)>,
    /// `a=candidate` lines in it.
    pub candidates: usize,
}

/// Reads a fragment. The error says what is wrong with it.
pub fn parse(text: &str) -> Result<Fragment, String> {
    if text.len() > MAX_FRAGMENT_BYTES {
        return Err(format!("it is longer than {} KiB", MAX_FRAGMENT_BYTES >> 10));
    }
    let (mut ufrag, mut password, mut candidates) = (None, None, 0);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let (kind, value) = line
            .split_once('=')
            .filter(|(kind, _)| matches!(*kind, "a" | "m"))
            .ok_or_else(|| format!("line {} is neither a=… nor m=…", number + 1))?;
        if kind == "m" {
            continue;
        }
        match value.split_once(':').unwrap_or((value, "")) {
            ("ice-ufrag", value) => ufrag = Some(value.to_owned()),
            ("ice-pwd", value) => password = Some(value.to_owned()),
            ("candidate", value) if value.split_ascii_whitespace().count() < 8 => {
                return Err(format!("line {}: a=candidate is cut short", number + 1));
            }
            ("candidate", _) => candidates += 1,
            _ => {}
        }
    }
    let credentials = match (ufrag, password) {
        (Some(ufrag), Some(password)) => {
            check_credentials(&ufrag, &password)?;
            Some((ufrag, password))
        }
        (None, None) => None,
        _ => return Err("a=ice-ufrag and a=ice-pwd belong together".into()),
    };
    Ok(Fragment { credentials, candidates })
}

/// Whether an `If-Match` header's value names this ETag: in quotes, weak or in a list too, or `*`.
pub fn matches_etag(if_match: &str, etag: &str) -> bool {
    if_match.split(',').map(str::trim).any(|one| {
        let one = one.strip_prefix("W/").unwrap_or(one);
        one == "*" || one.trim_matches('"') == etag
    })
}

/// Our side after an ICE restart: the fragment of the answer.
pub fn restarted(session: &Session, password: &str) -> String {
    let mut fragment = format!(
        "a=ice-lite\r\n{}a=ice-ufrag:{}\r\na=ice-pwd:{password}\r\n",
        session.section, session.local_ufrag
    );
    for candidate in session.candidates.iter() {
        fragment.push_str(&format!("a={candidate}\r\n"));
    }
    fragment.push_str("a=end-of-candidates\r\n");
    fragment
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 9725 §4.3.2, shortened.
    const TRICKLE: &str = "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
        a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\n\
        a=candidate:1 1 udp 2122260223 7d2a9c3e-1111-4f5e-9d2b-0c7f2f5c0a11.local 61764 typ host\r\na=end-of-candidates\r\n";

    #[test]
    fn a_trickle_request_is_read() {
        let fragment = parse(TRICKLE).unwrap();
        assert_eq!(fragment.credentials, Some(("EsAw".into(), "P2uYro0UCOQ4zxjKXaWCBui1".into())));
        assert_eq!(fragment.candidates, 2);
        assert_eq!(parse("").unwrap(), Fragment::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("hello", "line 1"),
            ("v=0\r\n", "line 1"),
            ("a=candidate:1 1 udp\r\n", "cut short"),
            ("a=ice-ufrag:abcd\r\n", "belong together"),
            ("a=ice-ufrag:abcd\r\na=ice-pwd:short\r\n", "ice-pwd"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse(&"a=x\n".repeat(20_000)).is_err());
    }

    #[test]
    fn etags_are_compared_as_headers_carry_them() {
        for header in ["xyz", "\"xyz\"", "W/\"xyz\"", "*", "\"abc\", \"xyz\""] {
            assert!(matches_etag(header, "xyz"), "{header}");
        }
        for header in ["", "\"abc\"", "xy", "\"*\""] {
            assert!(!matches_etag(header, "xyz"), "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(a=[a-z-]{0,12}:?[ -~]{0,60}\r?\n|[ -~\r\n]{0,20}){0,20}") {
            let _ = parse(&text);
        }
    }
}
