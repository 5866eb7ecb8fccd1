//! What media comes from: one file or folder for each protocol, each implementing [`crate::graph::Source`].
//! May use `media` and `graph`. Must never name a consumer.

pub mod demo;
mod go2rtc;
pub mod rtsp;

use crate::config::nearest;
use crate::graph::Source;
use std::sync::Arc;

/// Makes a source from its URL.
type Open = fn(&str) -> Result<Arc<dyn Source>, String>;

/// The one table of schemes that can be played: what is before the colon, and what makes a source of it.
const TABLE: &[(&str, Open)] =
    &[("demo", demo::open), ("rtsp", open_rtsp), ("rtsps", open_rtsp), ("rtspx", open_rtsp)];

/// The schemes that can be played.
pub const SCHEMES: &[&str] = &["demo", "rtsp", "rtsps", "rtspx"];

fn open_rtsp(url: &str) -> Result<Arc<dyn Source>, String> {
    Ok(Arc::new(rtsp::RtspSource::open(url)?))
}

/// Makes a source from the URL in the configuration; nothing is dialled. Of what only go2rtc can play it makes one that
/// says so ([`Source::unsupported`]).
///
/// # Errors
/// What is wrong with the URL, without credentials.
pub fn open(url: &str) -> Result<Arc<dyn Source>, String> {
    let known =
        || format!("known are {}", SCHEMES.iter().map(|s| format!("{s}:")).collect::<Vec<_>>().join(", "));
    let url = url.trim();
    let Some((scheme, rest)) = url.split_once(':') else {
        return Err(format!("a source is a URL, e.g. rtsp://camera/path; {}", known()));
    };
    if let Some((_, open)) = TABLE.iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)) {
        return open(url);
    }
    if let Some(source) = go2rtc::open(scheme, url) {
        return Ok(source);
    }
    // What is before the colon may be a user name if the scheme was forgotten.
    if !rest.starts_with("//") {
        return Err(format!("the scheme is missing or not known; {}", known()));
    }
    let meant = nearest(&scheme.to_ascii_lowercase(), SCHEMES.iter().copied().chain(go2rtc::schemes()));
    let meant = meant.map_or(String::new(), |meant| format!(", did you mean \"{meant}\"?"));
    Err(format!("scheme {scheme:?} is not known{meant}; {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_schemes_open_and_others_say_what_is_known() {
        let source = open(" rtsp://a:b@h/x ").expect("opens");
        assert_eq!((source.url(), source.format_name()), ("rtsp://***:***@h/x", "rtsp"));
        let source = open("rtspx://a:b@h/x").expect("opens");
        assert_eq!((source.url(), source.format_name()), ("rtspx://***:***@h/x", "rtsp"));
        let error = |url: &str| open(url).err().expect("refused");
        assert!(error("srt://h/x").contains("\"srt\" is not known; known are demo:, rtsp:"));
        assert!(error("h/x").contains("known are demo:, rtsp:"));
        assert!(error("rtps://h/x").contains("\"rtps\" is not known, did you mean \"rtsp\"?"));
        assert!(error("tap0://h/x").contains("did you mean \"tapo\"?"));
        assert!(!error("admin:secret@h/x").contains("admin"));
    }

    #[test]
    fn what_only_go2rtc_can_play_is_taken_and_says_so() {
        for (url, scheme) in [
            ("ffmpeg:front#audio=opus", "ffmpeg"),
            ("exec:ffmpeg -i rtsp://u:hunter2@h {output}", "exec"),
            ("Tapo://hunter2@h", "tapo"),
            ("onvif://u:hunter2@h:80?subtype=0", "onvif"),
            ("v4l2:device?video=/dev/video0", "v4l2"),
        ] {
            let source = open(url).expect(url);
            assert_eq!(source.format_name(), scheme);
            assert!(source.unsupported().expect(url).contains("is not supported"), "{url}");
            assert!(!source.url().contains("hunter2"), "{}", source.url());
        }
        assert!(SCHEMES.iter().all(|scheme| !go2rtc::schemes().any(|other| other == *scheme)));
        assert_eq!(open("demo:").expect("opens").unsupported(), None);
    }
}
