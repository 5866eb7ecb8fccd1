//! Received payloads to packets for everyone, once for each stream.
//!
//! This is the cut-through path: a payload that fits passes on at once and unchanged. Nothing waits for the end of a
//! frame; NAL units are never altered.
//!
//! # Video
//!
//! - A payload larger than the limit is cut anew: a NAL unit into fragments, an aggregate into its NAL units, a fragment
//!   into smaller ones (at most one payload's worth waits for the next fragment).
//! - Nothing comes out before the first keyframe, and none without parameter sets. They are put in front of each
//!   keyframe that doesn't bring its own.
//! - Parameter sets, SEI and delimiters wait for the slice that they precede, whatever marker or timestamp they have, and
//!   come out as part of its access unit with its timestamp.
//! - After a loss, or whatever a damaged stream may send (fragments without a start, a length that runs over the end,
//!   a set `forbidden_zero_bit`, a NAL unit without end), everything is cut out up to the next keyframe. The
//!   access unit that was being sent then is never ended: **a piece with `starts_unit` after one without `ends_unit`
//!   means that the unit before is incomplete and is to be discarded**. WebRTC receivers do so by themselves: they hand
//!   a frame to the decoder only when its marker has come, and the next frame is a keyframe that needs nothing
//!   before it.
//! - A keyframe is an IDR (H.264) or IRAP (H.265) picture. For H.264 streams without IDR pictures (open GOP: none yet, or
//!   none for 300 access units) an I slice with a sequence parameter set counts. Streams that are refreshed
//!   gradually, without any I picture, never start.
//! - The marker bit ends an access unit. If a timestamp changes without one, or slices follow one, the camera is known
//!   to get it wrong: from then on the last piece of a unit waits for the next packet, whose timestamp tells. The unit by
//!   which that was noticed comes out unended or is followed by a cut. A camera that gets it right again for
//!   32 units is trusted again.
//!
//! # JPEG
//!
//! Each picture stands alone, so it begins with its first payload (fragment offset 0) and counts as a keyframe. After a
//! loss everything up to the next one is cut out. Payloads pass whatever their size: WebRTC has no JPEG.
//!
//! # Audio
//!
//! Each packet is a unit. Nothing is dropped after a loss. G.711 that is too large is split; AAC and Opus pass whatever
//! their size.

use super::video::Video;
use crate::media::codec::Codec;
use crate::media::jpeg::fragment_offset;
use crate::media::track::{Params, Track};
use std::sync::Arc;

/// One received RTP packet.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// RTP payload without header, extension and padding.
    pub payload: &'a [u8],
    /// RTP timestamp.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// At least one packet is missing right before this one.
    pub loss: bool,
}

/// A payload fit for every consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The RTP payload, no larger than the limit.
    pub payload: Arc<[u8]>,
    /// RTP timestamp.
    pub timestamp: u32,
    /// First payload of an access unit.
    pub starts_unit: bool,
    /// Last payload of an access unit. A unit that isn't ended when the next one starts is incomplete.
    pub ends_unit: bool,
    /// First payload of a keyframe's access unit.
    pub keyframe: bool,
}

/// What was noticed on the way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Noted {
    /// The in-band parameter sets differ from those known: a new epoch begins with this call's first piece that
    /// starts a unit.
    pub params: Option<Params>,
    /// Pictures are sent in another order than they are shown in: a B slice (H.264), or timestamps that ran back at
    /// least twice within one GOP. Never where the parameter sets rule it out.
    pub reordered: bool,
    /// Access units that started in this call, dropped ones included.
    pub access_units: u32,
    /// Something was cut out because of loss or damage.
    pub dropped: bool,
}

/// Turns one track's received payloads into [`Piece`]s.
#[derive(Debug)]
pub struct Normalizer {
    media: Media,
    max_payload: usize,
    params: Params,
}

#[derive(Debug)]
enum Media {
    Video(Box<Video>),
    /// Bytes of one sample on all channels.
    G711 {
        sample: usize,
    },
    Audio,
    Jpeg {
        /// The rest of a picture of which something is missing.
        is_cut: bool,
    },
}

impl Normalizer {
    /// For one connection's `track`. Payloads of video and G.711 will have at most `max_payload` bytes (at least 64).
    pub fn new(track: &Track, max_payload: usize) -> Self {
        let max_payload = max_payload.max(64);
        let media = match track.codec {
            Codec::H264 | Codec::H265 => match Video::new(track, max_payload) {
                Some(video) => Media::Video(Box::new(video)),
                None => Media::Audio,
            },
            Codec::Pcma | Codec::Pcmu => Media::G711 { sample: usize::from(track.channels.max(1)) },
            Codec::Aac | Codec::Opus => Media::Audio,
            Codec::Jpeg => Media::Jpeg { is_cut: true },
        };
        Normalizer { media, max_payload, params: track.params.clone() }
    }

    /// Takes a packet, in order, and appends to `out` what is ready.
    pub fn push(&mut self, rtp: Incoming<'_>, out: &mut Vec<Piece>) -> Noted {
        match &mut self.media {
            Media::Video(video) => video.push(rtp, out),
            Media::Audio if rtp.payload.is_empty() => Noted::default(),
            Media::Audio => {
                out.push(audio(rtp.payload, rtp.timestamp));
                Noted { access_units: 1, ..Noted::default() }
            }
            Media::Jpeg { is_cut } => jpeg(rtp, is_cut, out),
            Media::G711 { sample } => {
                let mut noted = Noted::default();
                let mut timestamp = rtp.timestamp;
                for part in rtp.payload.chunks((self.max_payload / *sample).max(1) * *sample) {
                    out.push(audio(part, timestamp));
                    timestamp = timestamp.wrapping_add((part.len() / *sample) as u32);
                    noted.access_units += 1;
                }
                noted
            }
        }
    }

    /// The parameter sets in force: those of the track, or what came in-band since.
    pub fn params(&self) -> &Params {
        match &self.media {
            Media::Video(video) => video.params(),
            Media::G711 { .. } | Media::Audio | Media::Jpeg { .. } => &self.params,
        }
    }
}

fn jpeg(rtp: Incoming<'_>, is_cut: &mut bool, out: &mut Vec<Piece>) -> Noted {
    let Some(offset) = fragment_offset(rtp.payload) else {
        *is_cut = true;
        return Noted { dropped: true, ..Noted::default() };
    };
    let starts_unit = offset == 0;
    *is_cut = !starts_unit && (*is_cut || rtp.loss);
    if !*is_cut {
        let payload = rtp.payload.into();
        let (timestamp, ends_unit) = (rtp.timestamp, rtp.marker);
        out.push(Piece { payload, timestamp, starts_unit, ends_unit, keyframe: starts_unit });
    }
    Noted { access_units: u32::from(starts_unit), dropped: *is_cut || rtp.loss, ..Noted::default() }
}

fn audio(payload: &[u8], timestamp: u32) -> Piece {
    Piece { payload: payload.into(), timestamp, starts_unit: true, ends_unit: true, keyframe: false }
}
