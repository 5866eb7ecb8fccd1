//! What a client says on `/api/ws`: JSON texts `{"type": …, "value": …}`, go2rtc's messages.

use crate::consumers::mse::Mse;
use crate::graph::Wants;
use crate::media::Codec;
use serde::Deserialize;
use serde_json::Value;

/// Characters of a type that are repeated in an answer.
const MAX_TYPE: usize = 40;

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An SDP offer. `object`: it came as `webrtc` and is answered as an object, else as text.
    Offer {
        /// The offer.
        sdp: String,
        /// How it is answered.
        object: bool,
    },
    /// An ICE candidate, or that there are no more. Nothing is to be done: see [`crate::consumers::webrtc`].
    Candidate,
    /// Fragmented MP4 for Media Source Extensions, with these codecs.
    Mse(Wants),
    /// Keyframes, each as a file of MP4, with these codecs.
    Mp4(Wants),
    /// A playlist, with these codecs.
    Hls(Wants),
    /// Pictures.
    Mjpeg,
    /// Stop the media, or go on.
    Pause(bool),
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    value: Value,
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it, behind its type where it has one: `mse: …`.
    pub fn parse(text: &str) -> Result<Request, String> {
        let Message { kind, value } = serde_json::from_str(text)
            .map_err(|error| format!("no message: {error}; expected {{\"type\": \"mse\", \"value\": …}}"))?;
        let words = match &value {
            Value::String(text) => text.as_str(),
            _ => "",
        };
        Ok(match kind.as_str() {
            "webrtc/offer" if !words.is_empty() => Request::Offer { sdp: words.to_owned(), object: false },
            "webrtc/offer" => return Err("webrtc/offer: the value is no SDP offer".into()),
            "webrtc" => {
                let is_offer = value.get("type").is_none_or(|kind| kind == "offer");
                match value.get("sdp").and_then(Value::as_str).filter(|_| is_offer) {
                    // `ice_servers` is for servers that are behind a NAT themselves; ours has its addresses configured.
                    Some(sdp) => Request::Offer { sdp: sdp.to_owned(), object: true },
                    None => return Err("webrtc: the value has no \"sdp\" with an offer".into()),
                }
            }
            "webrtc/candidate" => Request::Candidate,
            "mse" => Request::Mse(wants(words)),
            "mp4" => Request::Mp4(wants(words)),
            "hls" => Request::Hls(wants(words)),
            "mjpeg" => Request::Mjpeg,
            "control" => match words {
                "pause" => Request::Pause(true),
                "play" => Request::Pause(false),
                _ => return Err("control: the value is neither \"pause\" nor \"play\"".into()),
            },
            other => {
                let short: String = other.chars().take(MAX_TYPE).collect();
                return Err(format!("{short}: there is no such message"));
            }
        })
    }
}

/// The codecs that a browser says it can play: `avc1.640029,hvc1.1.6.L153.B0,mp4a.40.2,flac,opus`. Of an empty list
/// what nearly all can. Behind `null` come those that a browser is not to be believed.
fn wants(list: &str) -> Wants {
    if list.trim().is_empty() {
        return Wants { audio: vec![Codec::Aac], ..Mse::wants() };
    }
    let mut wants = Wants::default();
    for word in list.split(',').map(str::trim).take_while(|word| *word != "null") {
        let is = |prefixes: &[&str]| {
            prefixes.iter().any(|prefix| {
                word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            })
        };
        if is(&["avc1", "avc3"]) {
            add(&mut wants.video, &[Codec::H264]);
        } else if is(&["hvc1", "hev1"]) {
            add(&mut wants.video, &[Codec::H265]);
        } else if is(&["mp4a"]) {
            add(&mut wants.audio, &[Codec::Aac]);
        } else if is(&["opus"]) {
            add(&mut wants.audio, &[Codec::Opus]);
        } else if is(&["flac"]) {
            add(&mut wants.audio, &[Codec::Pcma, Codec::Pcmu]);
        }
    }
    wants
}

fn add(list: &mut Vec<Codec>, codecs: &[Codec]) {
    for codec in codecs {
        if !list.contains(codec) {
            list.push(*codec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, value: Value) -> Result<Request, String> {
        Request::parse(&serde_json::json!({"type": kind, "value": value}).to_string())
    }

    #[test]
    fn a_browsers_codecs_are_understood() {
        let list = "avc1.640029,avc1.64002A,hvc1.1.6.L153.B0,mp4a.40.2,mp4a.40.5,flac,opus,vp09.00.10.08";
        let all = Wants {
            video: vec![Codec::H264, Codec::H265],
            audio: vec![Codec::Aac, Codec::Pcma, Codec::Pcmu, Codec::Opus],
        };
        assert_eq!(parse("mse", list.into()), Ok(Request::Mse(all)));
        let few = Wants { video: vec![Codec::H264], audio: vec![Codec::Aac] };
        assert_eq!(parse("hls", "avc1.42e01e,mp4a.40.2,null,flac".into()), Ok(Request::Hls(few)));
        assert_eq!(parse("mp4", "금".into()), Ok(Request::Mp4(Wants::default())));
        let default = Wants { video: vec![Codec::H264, Codec::H265], audio: vec![Codec::Aac] };
        assert_eq!(Request::parse(r#"{"type":"mse"}"#), Ok(Request::Mse(default)));
    }

    #[test]
    fn offers_come_in_two_forms() {
        assert_eq!(
            parse("webrtc/offer", "v=0".into()),
            Ok(Request::Offer { sdp: "v=0".into(), object: false })
        );
        let object =
            serde_json::json!({"type": "offer", "sdp": "v=0", "ice_servers": [{"urls": ["stun:x"]}]});
        assert_eq!(parse("webrtc", object), Ok(Request::Offer { sdp: "v=0".into(), object: true }));
        assert_eq!(parse("webrtc/candidate", "".into()), Ok(Request::Candidate));
    }

    #[test]
    fn what_is_wrong_is_said_behind_the_type() {
        for (kind, value, start) in [
            ("webrtc/offer", Value::Null, "webrtc/offer: "),
            ("webrtc", serde_json::json!({"type": "answer", "sdp": "v=0"}), "webrtc: "),
            ("webrtc", "v=0".into(), "webrtc: "),
            ("control", "rewind".into(), "control: "),
            ("teleport", Value::Null, "teleport: "),
        ] {
            let error = parse(kind, value).unwrap_err();
            assert!(error.starts_with(start), "{error}");
        }
        for text in ["", "[]", "{", r#"{"type":1}"#, r#"{"value":"x"}"#] {
            assert!(Request::parse(text).unwrap_err().starts_with("no message: "), "{text}");
        }
        assert!(parse(&"x".repeat(1000), Value::Null).unwrap_err().len() < 100);
    }
}
