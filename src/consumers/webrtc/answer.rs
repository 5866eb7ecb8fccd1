//! Writes the SDP answer (RFC 8829 §5.3): one BUNDLE transport, ICE-lite, what can't be served is rejected.

use super::offer::{Media, Offer, Payload};
use crate::media::Kind;
use std::fmt::Write;

/// What is answered on a line that is served.
pub struct Sending<'a> {
    /// The payload types, the stream's present codec first.
    pub payloads: &'a [Payload],
    /// Media will come; otherwise the line is kept but inactive.
    pub active: bool,
    /// RTP's SSRC for media.
    pub ssrc: u32,
    /// RTP's SSRC for retransmissions, if there are any.
    pub rtx_ssrc: Option<u32>,
}

/// What an answer is made of.
pub struct Answering<'a> {
    /// What is answered.
    pub offer: &'a Offer,
    /// Video, if the offer has a line for it with a usable codec.
    pub video: Option<Sending<'a>>,
    /// Audio, likewise.
    pub audio: Option<Sending<'a>>,
    /// Our ICE username fragment and password.
    pub credentials: (&'a str, &'a str),
    /// Of our DTLS certificate, as in `a=fingerprint`.
    pub fingerprint: &'a str,
    /// `candidate:…` lines.
    pub candidates: &'a [String],
    /// Unique among sessions; goes into `o=` and the CNAME.
    pub id: u64,
}

/// The label that makes audio and video one MediaStream in the browser, so that they are played in sync.
pub const STREAM_LABEL: &str = "streamgate";

impl Answering<'_> {
    /// The answer.
    pub fn write(&self) -> String {
        let mut sdp = String::with_capacity(4096);
        // Writing to a String can't fail.
        let _ = self.write_to(&mut sdp);
        sdp
    }

    fn sending(&self, index: usize) -> Option<(Kind, &Sending<'_>)> {
        let video = self.video.as_ref().filter(|_| self.offer.video == Some(index));
        let audio = self.audio.as_ref().filter(|_| self.offer.audio == Some(index));
        let kept =
            video.map(|sending| (Kind::Video, sending)).or(audio.map(|sending| (Kind::Audio, sending)));
        kept.filter(|(_, sending)| !sending.payloads.is_empty())
    }

    fn write_to(&self, sdp: &mut String) -> std::fmt::Result {
        write!(sdp, "v=0\r\no=- {} 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", self.id >> 1)?;
        if self.offer.bundled {
            sdp.push_str("a=group:BUNDLE");
            for (index, media) in self.offer.media.iter().enumerate() {
                if let (Some(_), Some(mid)) = (self.sending(index), &media.mid) {
                    write!(sdp, " {mid}")?;
                }
            }
            sdp.push_str("\r\n");
        }
        write!(sdp, "a=ice-lite\r\na=msid-semantic: WMS {STREAM_LABEL}\r\n")?;
        let mut first = true;
        for (index, media) in self.offer.media.iter().enumerate() {
            match self.sending(index) {
                Some((kind, sending)) => {
                    self.write_media(sdp, media, kind, sending, std::mem::take(&mut first))?;
                }
                None => {
                    write!(
                        sdp,
                        "m={} 0 {} {}\r\nc=IN IP4 0.0.0.0\r\n",
                        media.name, media.protocol, media.formats
                    )?;
                    if let Some(mid) = &media.mid {
                        write!(sdp, "a=mid:{mid}\r\n")?;
                    }
                    sdp.push_str("a=inactive\r\n");
                }
            }
        }
        Ok(())
    }

    fn write_media(
        &self,
        sdp: &mut String,
        media: &Media,
        kind: Kind,
        sending: &Sending<'_>,
        first: bool,
    ) -> std::fmt::Result {
        write!(sdp, "m={} 9 {}", media.name, media.protocol)?;
        for payload in sending.payloads {
            write!(sdp, " {}", payload.number)?;
            if let Some(rtx) = payload.rtx {
                write!(sdp, " {rtx}")?;
            }
        }
        sdp.push_str("\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n");
        // The candidates of a bundle stand in its first section (RFC 8843 §7.1.3).
        if first {
            for candidate in self.candidates {
                write!(sdp, "a={candidate}\r\n")?;
            }
            sdp.push_str("a=end-of-candidates\r\n");
        }
        let setup = if self.offer.we_are_dtls_client { "active" } else { "passive" };
        write!(sdp, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.credentials.0, self.credentials.1)?;
        write!(sdp, "a=fingerprint:{}\r\na=setup:{setup}\r\n", self.fingerprint)?;
        if let Some(mid) = &media.mid {
            write!(sdp, "a=mid:{mid}\r\n")?;
        }
        if let Some(id) = media.mid_extension {
            write!(sdp, "a=extmap:{id} urn:ietf:params:rtp-hdrext:sdes:mid\r\n")?;
        }
        write!(sdp, "a={}\r\n", if sending.active { "sendonly" } else { "inactive" })?;
        sdp.push_str("a=rtcp-mux\r\n");
        if media.reduced_size {
            sdp.push_str("a=rtcp-rsize\r\n");
        }
        for payload in sending.payloads {
            write_payload(sdp, payload, kind)?;
        }
        if sending.active {
            write!(sdp, "a=msid:{STREAM_LABEL} {kind}\r\n")?;
            if let Some(rtx) = sending.rtx_ssrc {
                write!(sdp, "a=ssrc-group:FID {} {rtx}\r\n", sending.ssrc)?;
            }
            for ssrc in [Some(sending.ssrc), sending.rtx_ssrc].into_iter().flatten() {
                write!(
                    sdp,
                    "a=ssrc:{ssrc} cname:{STREAM_LABEL}\r\na=ssrc:{ssrc} msid:{STREAM_LABEL} {kind}\r\n"
                )?;
            }
        }
        Ok(())
    }
}

fn write_payload(sdp: &mut String, payload: &Payload, kind: Kind) -> std::fmt::Result {
    let number = payload.number;
    write!(sdp, "a=rtpmap:{number} {}\r\n", payload.rtpmap)?;
    if kind == Kind::Video {
        for feedback in ["nack", "nack pli", "ccm fir"] {
            write!(sdp, "a=rtcp-fb:{number} {feedback}\r\n")?;
        }
    }
    if let Some(fmtp) = &payload.fmtp {
        write!(sdp, "a=fmtp:{number} {fmtp}\r\n")?;
    }
    if let Some(rtx) = payload.rtx {
        write!(sdp, "a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={number}\r\n")?;
    }
    Ok(())
}
