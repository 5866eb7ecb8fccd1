//! The server's half of an RTSP conversation (RFC 2326 §10): requests in, answers out. No I/O.

use super::clip::Clip;
use super::lineup::Lineup;
use super::playback::{Channels, Playback, payload_type};
use crate::rtsp::message::Draft;
use crate::rtsp::{Request, Transport, sdp};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::time::Instant;

/// What can be asked for.
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN";

/// One client's session.
pub struct Dialog {
    lineup: Arc<Lineup>,
    /// The camera that was set up.
    camera: usize,
    session: String,
    channels: Vec<Option<Channels>>,
    /// Set by PLAY.
    pub playback: Option<Playback>,
    /// Set by TEARDOWN: the connection is to be closed after the answer.
    pub is_over: bool,
}

impl Dialog {
    /// A conversation in which nothing was said.
    pub fn new(lineup: Arc<Lineup>) -> Dialog {
        let channels = vec![None; lineup.clip.tracks.len()];
        let session = format!("{:08x}", rand::random::<u32>());
        Dialog { lineup, camera: 0, session, channels, playback: None, is_over: false }
    }

    /// The answer to a request. PLAY begins to play now.
    pub fn answer(&mut self, request: &Request, now: Instant, wall: SystemTime) -> String {
        let Some(cseq) = request.headers.get("CSeq").filter(|cseq| cseq.len() <= 20) else {
            return Draft::response(400, "0").finish();
        };
        let answer = |status| Draft::response(status, cseq).with("Server", "Streamgate demo");
        self.react(request, answer(200), now, wall).unwrap_or_else(answer).finish()
    }

    /// `answer`, which is a good one, completed; or the status of a bad one.
    fn react(
        &mut self,
        request: &Request,
        answer: Draft,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Draft, u16> {
        if request.headers.get("Session").is_some_and(|id| id.split(';').next() != Some(&self.session)) {
            return Err(454);
        }
        match request.method.as_str() {
            "OPTIONS" => Ok(answer.with("Public", METHODS)),
            "DESCRIBE" => {
                let named = path(&request.uri).and_then(|path| self.lineup.find(path));
                named.filter(|(_, rest)| rest.is_empty()).ok_or(404_u16)?;
                let base = format!("{}/", request.uri.trim_end_matches('/'));
                let mut answer = answer.with("Content-Base", &base);
                answer.set_body("application/sdp", describe(&self.lineup.clip));
                Ok(answer)
            }
            "SETUP" => {
                let named = path(&request.uri).and_then(|path| self.lineup.find(path));
                let (camera, rest) = named.ok_or(404_u16)?;
                let track = rest.strip_prefix("/track").and_then(|number| number.parse::<usize>().ok());
                let track = track.ok_or(404_u16)?;
                let slot = self.channels.get_mut(track).ok_or(404_u16)?;
                self.camera = camera;
                if self.playback.is_some() {
                    return Err(455);
                }
                let offers = request.headers.get("Transport").unwrap_or_default();
                let channels =
                    Transport::parse_all(offers).iter().find_map(|offer| interleaved(offer, track));
                let Channels { rtp, rtcp } = *slot.insert(channels.ok_or(461_u16)?);
                Ok(answer
                    .with("Transport", &format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}"))
                    .with("Session", &format!("{};timeout=60", self.session)))
            }
            "PLAY" => {
                if self.channels.iter().all(Option::is_none) {
                    return Err(455);
                }
                let (clip, running) = (&self.lineup.clip, self.lineup.running(self.camera, now));
                let playback = self
                    .playback
                    .get_or_insert_with(|| Playback::start(clip.clone(), &self.channels, running, now, wall));
                let info: Vec<_> = playback
                    .rtp_info()
                    .map(|(track, seq, rtptime)| format!("url=track{track};seq={seq};rtptime={rtptime}"))
                    .collect();
                Ok(answer.with("Session", &self.session).with("RTP-Info", &info.join(",")))
            }
            "GET_PARAMETER" => Ok(answer.with("Session", &self.session)),
            "TEARDOWN" => {
                self.is_over = true;
                Ok(answer)
            }
            _ => Err(501),
        }
    }
}

/// The path in a request's URI, without a slash at its end.
fn path(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    rest.get(rest.find('/')?..).map(|path| path.trim_end_matches('/'))
}

/// The channels that a transport asks for, if it is RTP over this connection.
fn interleaved(offer: &Transport, track: usize) -> Option<Channels> {
    if !offer.is_tcp || offer.is_malformed {
        return None;
    }
    let (rtp, rtcp) = match offer.interleaved {
        Some(pair) => pair,
        None => {
            let rtp = u8::try_from(track).ok()?.checked_mul(2)?;
            (rtp, rtp.checked_add(1)?)
        }
    };
    (rtp != rtcp).then_some(Channels { rtp, rtcp })
}

/// The session description.
fn describe(clip: &Clip) -> String {
    let controls: Vec<String> = (0..clip.tracks.len()).map(|number| format!("track{number}")).collect();
    let tracks = clip.tracks.iter().enumerate().zip(&controls);
    let tracks = tracks.map(|((number, track), control)| (track, payload_type(number), control.as_str()));
    sdp::describe("Streamgate demo", tracks)
}

#[cfg(test)]
mod tests {
    use super::super::CLIP;
    use super::*;
    use crate::rtsp::{Framer, Incoming, Limits};
    use crate::sources::rtsp::sdp::Sdp;

    fn dialog() -> Dialog {
        Dialog::new(Arc::new(Lineup::demo(Clip::read(CLIP).expect("reads"))))
    }

    fn ask(dialog: &mut Dialog, request: &str) -> String {
        let mut framer = Framer::new(Limits::SERVER);
        let bytes = format!("{request}\r\n\r\n");
        framer.space()[..bytes.len()].copy_from_slice(bytes.as_bytes());
        framer.filled(bytes.len());
        let Ok(Some(Incoming::Request(request, _))) = framer.next_message() else {
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
