//! The server's half of an RTSP conversation (RFC 2326 §10): requests in, answers out. No I/O.

use super::clip::Clip;
use super::playback::{Channels, Playback, payload_type};
use crate::media::{Kind, Params, Track};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use retina::rtsp::msg::Request;
use std::fmt::Write;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// What can be asked for.
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN";

/// One client's session.
pub struct Dialog {
    clip: Arc<Clip>,
    session: String,
    channels: Vec<Option<Channels>>,
    /// Set by PLAY.
    pub playback: Option<Playback>,
    /// Set by TEARDOWN: the connection is to be closed after the answer.
    pub is_over: bool,
}

impl Dialog {
    /// A conversation in which nothing was said.
    pub fn new(clip: Arc<Clip>) -> Dialog {
        let channels = vec![None; clip.tracks.len()];
        let session = format!("{:08x}", rand::random::<u32>());
        Dialog { clip, session, channels, playback: None, is_over: false }
    }

    /// The answer to a request. PLAY begins to play now.
    pub fn answer(&mut self, request: &Request, now: Instant, wall: SystemTime) -> String {
        let Some(cseq) = header(request, "CSeq").filter(|cseq| cseq.len() <= 20) else {
            return "RTSP/1.0 400 Bad Request\r\n\r\n".to_owned();
        };
        let (status, head, body) = match self.react(request, now, wall) {
            Ok((head, body)) => ("200 OK", head, body),
            Err(status) => (status, String::new(), String::new()),
        };
        let mut answer = format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\nServer: Streamgate demo\r\n{head}");
        if !body.is_empty() {
            // Writing to a string can't fail.
            let _ = write!(answer, "Content-Length: {}\r\n", body.len());
        }
        answer + "\r\n" + &body
    }

    /// Headers and body of a good answer, or the status of a bad one.
    fn react(
        &mut self,
        request: &Request,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(String, String), &'static str> {
        let public = || format!("Public: {METHODS}\r\n");
        if header(request, "Session").is_some_and(|id| id.split(';').next() != Some(&self.session)) {
            return Err("454 Session Not Found");
        }
        match &*request.method {
            "OPTIONS" => Ok((public(), String::new())),
            "DESCRIBE" => {
                let base = path(request).filter(|path| *path == "/demo").and(request.request_uri.as_ref());
                let base = base.ok_or("404 Not Found")?;
                let head = format!("Content-Type: application/sdp\r\nContent-Base: {base}/\r\n");
                Ok((head, describe(&self.clip)))
            }
            "SETUP" => {
                let track = path(request).and_then(|path| path.strip_prefix("/demo/track"));
                let track = track.and_then(|number| number.parse::<usize>().ok()).ok_or("404 Not Found")?;
                let slot = self.channels.get_mut(track).ok_or("404 Not Found")?;
                if self.playback.is_some() {
                    return Err("455 Method Not Valid in This State");
                }
                let offers = header(request, "Transport").unwrap_or_default();
                let channels = offers.split(',').find_map(|offer| interleaved(offer.trim(), track));
                let Channels { rtp, rtcp } = *slot.insert(channels.ok_or("461 Unsupported Transport")?);
                let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}\r\n");
                Ok((format!("{transport}Session: {};timeout=60\r\n", self.session), String::new()))
            }
            "PLAY" => {
                if self.channels.iter().all(Option::is_none) {
                    return Err("455 Method Not Valid in This State");
                }
                let clip = &self.clip;
                let playback = self
                    .playback
                    .get_or_insert_with(|| Playback::start(clip.clone(), &self.channels, now, wall));
                let info: Vec<_> = playback
                    .rtp_info()
                    .map(|(track, seq, rtptime)| format!("url=track{track};seq={seq};rtptime={rtptime}"))
                    .collect();
                let head = format!("Session: {}\r\nRTP-Info: {}\r\n", self.session, info.join(","));
                Ok((head, String::new()))
            }
            "GET_PARAMETER" => Ok((format!("Session: {}\r\n", self.session), String::new())),
            "TEARDOWN" => {
                self.is_over = true;
                Ok((String::new(), String::new()))
            }
            _ => Err("501 Not Implemented"),
        }
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| &**value)
}

/// The path that a request is about, without a slash at its end.
fn path(request: &Request) -> Option<&str> {
    request.request_uri.as_ref().map(|uri| uri.path().trim_end_matches('/'))
}

/// The channels that a transport (RFC 2326 §12.39) asks for, if it is RTP over this connection.
fn interleaved(offer: &str, track: usize) -> Option<Channels> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("RTP/AVP/TCP") {
        return None;
    }
    let asked = parts.find_map(|part| part.strip_prefix("interleaved="));
    let (rtp, rtcp) = match asked {
        Some(pair) => {
            let (rtp, rtcp) = pair.split_once('-')?;
            (rtp.parse().ok()?, rtcp.parse().ok()?)
        }
        None => {
            let rtp = u8::try_from(track).ok()?.checked_mul(2)?;
            (rtp, rtp.checked_add(1)?)
        }
    };
    (rtp != rtcp).then_some(Channels { rtp, rtcp })
}

/// The session description (RFC 8866).
fn describe(clip: &Clip) -> String {
    let mut sdp =
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=Streamgate demo\r\nt=0 0\r\na=control:*\r\n".to_owned();
    for (number, track) in clip.tracks.iter().enumerate() {
        let payload_type = payload_type(number);
        let (codec, rate) = (track.codec.rtpmap_name(), track.clock_rate);
        // Writing to a string can't fail. Opus: always two channels (RFC 7587 §7).
        let channels = if track.kind() == Kind::Audio { "/2" } else { "" };
        let _ = write!(
            sdp,
            "m={} 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {codec}/{rate}{channels}\r\n{}a=control:track{number}\r\n",
            track.kind(),
            format_parameters(track, payload_type),
        );
    }
    sdp
}

/// H.264's parameters (RFC 6184 §8.1), with the parameter sets: the clip has them nowhere else.
fn format_parameters(track: &Track, payload_type: u8) -> String {
    let Params::H264 { sps, pps } = &track.params else { return String::new() };
    let profile =
        sps.get(1..4).unwrap_or_default().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let [sps, pps] = [sps, pps].map(|set| BASE64_STANDARD.encode(set));
    format!(
        "a=fmtp:{payload_type} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sps},{pps}\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::CLIP;
    use super::*;
    use crate::sources::rtsp::framer::{Framer, Incoming};
    use crate::sources::rtsp::sdp::Sdp;

    fn dialog() -> Dialog {
        Dialog::new(Arc::new(Clip::read(CLIP).expect("reads")))
    }

    fn ask(dialog: &mut Dialog, request: &str) -> String {
        let mut framer = Framer::default();
        let bytes = format!("{request}\r\n\r\n");
        framer.space()[..bytes.len()].copy_from_slice(bytes.as_bytes());
        framer.filled(bytes.len());
        let Ok(Some(Incoming::Request(request))) = framer.next_message() else {
            panic!("no request: {request}")
        };
        dialog.answer(&request, Instant::now(), SystemTime::now())
    }

    fn status(dialog: &mut Dialog, request: &str) -> u16 {
        let answer = ask(dialog, request);
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
    }

    const SETUP: &str =
        "SETUP rtsp://h/demo/track0 RTSP/1.0\r\nCSeq: 2\r\nTransport: RTP/AVP/TCP;unicast;interleaved=4-5";
    const PLAY: &str = "PLAY rtsp://h/demo/ RTSP/1.0\r\nCSeq: 3";

    #[test]
    fn the_description_names_both_tracks() {
        let answer = ask(&mut dialog(), "DESCRIBE rtsp://h:5/demo RTSP/1.0\r\nCSeq: 1");
        assert!(answer.contains("Content-Base: rtsp://h:5/demo/\r\n"), "{answer}");
        let sdp = Sdp::parse(answer.split_once("\r\n\r\n").expect("a body").1.as_bytes());
        let formats: Vec<_> = sdp.medias.iter().map(|media| &media.formats[0]).collect();
        assert_eq!((formats[0].encoding.as_str(), formats[0].clock_rate), ("H264", 90_000));
        assert!(formats[0].fmtp.contains("profile-level-id=42c01f;sprop-parameter-sets="));
        assert_eq!((formats[1].encoding.as_str(), formats[1].channels), ("opus", 2));
    }

    #[test]
    fn setup_takes_tcp_and_refuses_udp() {
        let answer = ask(&mut dialog(), SETUP);
        assert!(answer.contains("Transport: RTP/AVP/TCP;unicast;interleaved=4-5\r\nSession: "), "{answer}");
        let mut dialog = dialog();
        let setup =
            |transport| format!("SETUP rtsp://h/demo/track1 RTSP/1.0\r\nCSeq: 2\r\nTransport: {transport}");
        for refused in [
            "RTP/AVP;unicast;client_port=5000-5001",
            "RTP/AVP/TCP;interleaved=1-300",
            "RTP/AVP/UDP",
            "RTP/AVP/TCP;interleaved=3-3",
        ] {
            assert_eq!(status(&mut dialog, &setup(refused)), 461, "{refused}");
        }
        let answer = ask(&mut dialog, &setup("RTP/AVP;unicast;client_port=5000-5001, RTP/AVP/TCP;unicast"));
        assert!(answer.contains("interleaved=2-3"), "{answer}");
    }

    #[test]
    fn what_is_out_of_place_gets_its_status() {
        let mut dialog = dialog();
        assert_eq!(status(&mut dialog, PLAY), 455);
        assert_eq!(status(&mut dialog, "DESCRIBE rtsp://h/other RTSP/1.0\r\nCSeq: 1"), 404);
        assert_eq!(status(&mut dialog, &SETUP.replace("track0", "track2")), 404);
        assert_eq!(status(&mut dialog, "RECORD rtsp://h/demo RTSP/1.0\r\nCSeq: 1"), 501);
        assert_eq!(status(&mut dialog, "OPTIONS * RTSP/1.0"), 400);
        assert_eq!(status(&mut dialog, SETUP), 200);
        assert_eq!(status(&mut dialog, &format!("{PLAY}\r\nSession: other")), 454);
        assert!(dialog.playback.is_none());
        assert_eq!(status(&mut dialog, PLAY), 200);
        assert!(dialog.playback.is_some());
        assert_eq!(status(&mut dialog, SETUP), 455);
        assert!(!dialog.is_over);
        assert_eq!(status(&mut dialog, "TEARDOWN rtsp://h/demo RTSP/1.0\r\nCSeq: 4"), 200);
        assert!(dialog.is_over);
    }
}
