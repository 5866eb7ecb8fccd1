//! What media comes from: one file or folder for each protocol, each implementing [`crate::graph::Source`].
//! May use `media` and `graph`. Must never name a consumer.

pub mod demo;
pub mod rtsp;

use crate::graph::Source;
use std::sync::Arc;

/// Makes a source from its URL.
type Open = fn(&str) -> Result<Arc<dyn Source>, String>;

/// The one table of schemes: what is before the colon, and what makes a source of it.
const TABLE: &[(&str, Open)] = &[
    ("demo", demo::open),
    ("rtsp", |url| Ok(Arc::new(rtsp::RtspSource::open(url)?))),
    // RTSP over TLS: refused in words.
    ("rtsps", |url| Ok(Arc::new(rtsp::RtspSource::open(url)?))),
    ("rtspx", |url| Ok(Arc::new(rtsp::RtspSource::open(url)?))),
];

/// The schemes that can be played.
pub const SCHEMES: &[&str] = &["demo", "rtsp"];

/// Makes a source from the URL in the configuration; nothing is dialled.
///
/// # Errors
/// What is wrong with the URL, without credentials.
pub fn open(url: &str) -> Result<Arc<dyn Source>, String> {
    let known =
        || format!("known are {}", SCHEMES.iter().map(|s| format!("{s}:")).collect::<Vec<_>>().join(", "));
    let url = url.trim();
    let Some((scheme, _)) = url.split_once(':') else {
        return Err(format!("a source is a URL, e.g. rtsp://camera/path; {}", known()));
    };
    match TABLE.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)) {
        Some((_, open)) => open(url),
        None => {
            // What is before the colon may be a user name if the scheme was forgotten.
            let is_scheme = url.get(scheme.len()..).is_some_and(|rest| rest.starts_with("://"));
            let named = if is_scheme {
                format!("scheme {scheme:?} is not known")
            } else {
                "the scheme is missing or not known".to_owned()
            };
            Err(format!("{named}; {}", known()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_schemes_open_and_others_say_what_is_known() {
        let source = open(" rtsp://a:b@h/x ").expect("opens");
        assert_eq!((source.url(), source.format_name()), ("rtsp://***:***@h/x", "rtsp"));
        let error = |url: &str| open(url).err().expect("refused");
        assert!(error("srt://h/x").contains("\"srt\" is not known; known are demo:, rtsp:"));
        assert!(error("h/x").contains("known are demo:, rtsp:"));
        assert!(error("rtsps://h/x").contains("not supported yet"));
        assert!(!error("admin:secret@h/x").contains("admin"));
    }
}
