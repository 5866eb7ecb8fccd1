//! What a request's URI names: a stream, what of it is wanted, and a track of it.

use crate::graph::Wants;
use crate::media::{Codec, Kind};
use percent_encoding::percent_decode_str;

/// What the control URL of a track ends with, before its number.
pub const TRACK: &str = "trackID=";

/// `rtsp://host/NAME/trackID=N?video=h264&audio`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The stream's name, decoded.
    pub name: String,
    /// The track that is meant; `None` for the whole.
    pub track: Option<usize>,
    /// The codecs that may be sent.
    pub wants: Wants,
    /// Begin with what is cached since the last keyframe. `gop=0` waits for the next one instead.
    pub cached: bool,
}

impl Target {
    /// Reads a URI.
    ///
    /// # Errors
    /// The status and the words of the answer.
    pub fn parse(uri: &str) -> Result<Target, (u16, String)> {
        let no_stream = || (404, "Not Found: the path is the stream's name".to_owned());
        let (_, rest) = uri.split_once("://").ok_or_else(no_stream)?;
        let (_, path) = rest.split_once('/').ok_or_else(no_stream)?;
        let (mut path, mut query) = path.split_once('?').unwrap_or((path, ""));
        let mut track = take_track(&mut path);
        if track.is_none() {
            // Some players append it to whatever the URL is.
            track = take_track(&mut query);
        }
        let track = match track {
            Some(None) => return Err((404, "Not Found: no such track".to_owned())),
            Some(number) => number,
            None => None,
        };
        let name = percent_decode_str(path.trim_end_matches('/')).decode_utf8_lossy().into_owned();
        if name.is_empty() {
            return Err(no_stream());
        }
        let (wants, cached) = parse_query(query).map_err(|why| (400, format!("Bad Request: {why}")))?;
        Ok(Target { name, track, wants, cached })
    }
}

/// Takes `/trackID=N` off the end. `Some(None)` where N is no number.
fn take_track(text: &mut &str) -> Option<Option<usize>> {
    let (before, last) = text.rsplit_once('/')?;
    let number = last.strip_prefix(TRACK)?;
    *text = before;
    Some(number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit())))
}

/// Without `video` and `audio`: everything. Other parameters have no effect.
fn parse_query(query: &str) -> Result<(Wants, bool), String> {
    let (mut video, mut audio, mut cached) = (None, None, true);
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()).take(64) {
        let (kind, place) = match &*key {
            "video" => (Kind::Video, &mut video),
            "audio" => (Kind::Audio, &mut audio),
            "gop" => {
                cached = value != "0";
                continue;
            }
            _ => continue,
        };
        let codecs: &mut Vec<Codec> = place.get_or_insert_default();
        for codec in Codec::named(kind, &value)? {
            if !codecs.contains(&codec) {
                codecs.push(codec);
            }
        }
    }
    let everything = video.is_none() && audio.is_none();
    let all = |kind| Codec::named(kind, "any");
    let wants = match everything {
        true => Wants { video: all(Kind::Video)?, audio: all(Kind::Audio)? },
        false => Wants { video: video.unwrap_or_default(), audio: audio.unwrap_or_default() },
    };
    Ok((wants, cached))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> (String, Option<usize>, usize, usize) {
        let target = Target::parse(uri).unwrap_or_else(|error| panic!("{uri}: {error:?}"));
        (target.name, target.track, target.wants.video.len(), target.wants.audio.len())
    }

    #[test]
    fn names_tracks_and_filters_are_found() {
        let named = |name: &str, track, video, audio| (name.to_owned(), track, video, audio);
        assert_eq!(parse("rtsp://h:1984/front"), named("front", None, 3, 4));
        assert_eq!(parse("rtsp://h/front/"), named("front", None, 3, 4));
        assert_eq!(parse("rtsps://h/%EA%B8%88%EA%B3%A1IC/trackID=1"), named("금곡IC", Some(1), 3, 4));
        assert_eq!(parse("rtsp://h/금곡IC?video=h264&audio"), named("금곡IC", None, 1, 4));
        assert_eq!(parse("rtsp://h/a?video/trackID=0"), named("a", Some(0), 3, 0));
        assert_eq!(parse("rtsp://h/a/trackID=0?video=hevc,h264"), named("a", Some(0), 2, 0));
        assert_eq!(parse("rtsp://h/a/trackID=2?x=/y"), named("a", Some(2), 3, 4));
        assert_eq!(parse("rtsp://h/a?audio=opus&audio=pcma&x=y"), named("a", None, 0, 2));
        assert_eq!(Target::parse("rtsp://h/a?gop=0").map(|target| target.cached), Ok(false));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (uri, status) in [
            ("*", 404),
            ("rtsp://h", 404),
            ("rtsp://h/", 404),
            ("rtsp://h/?video", 404),
            ("rtsp://h/a/trackID=x", 404),
            ("rtsp://h/a/trackID=", 404),
            ("rtsp://h/a/trackID=99999999999999999999", 404),
            ("rtsp://h/a?video=aac", 400),
        ] {
            assert_eq!(Target::parse(uri).expect_err(uri).0, status, "{uri}");
        }
    }
}
