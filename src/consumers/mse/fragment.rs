//! What a muxer makes and viewers read: a piece of fragmented MP4, the same bytes for all.

use crate::graph::ring::Unit;
use crate::media::mp4::{Media, init_segment};
use crate::media::{Codec, Kind};
use bytes::Bytes;
use std::sync::Arc;

/// What comes before the first fragment, and again whenever a track's parameters change.
#[derive(Debug, PartialEq, Eq)]
pub struct Init {
    /// `ftyp` and `moov`.
    pub bytes: Bytes,
    /// `video/mp4; codecs="avc1.64001f,mp4a.40.2"`.
    pub mime: String,
    /// The codecs of the source, video first.
    pub codecs: Vec<Codec>,
    /// Ticks a second of the sound; 0 without.
    pub audio_rate: u32,
}

impl Init {
    /// For these tracks, in this order.
    ///
    /// # Errors
    /// What MP4 can't say of them.
    pub fn of(tracks: &[&Media]) -> Result<Init, mp4_atom::Error> {
        let names: Vec<&str> = tracks.iter().map(|media| media.codecs.as_str()).collect();
        let audio = tracks.iter().find(|media| !media.is_video());
        Ok(Init {
            bytes: init_segment(tracks)?,
            // Browsers take `flac` as well as `fLaC`; go2rtc's clients compare with the former.
            mime: format!("video/mp4; codecs=\"{}\"", names.join(",").replace("fLaC", "flac")),
            codecs: tracks.iter().map(|media| media.codec).collect(),
            audio_rate: audio.map_or(0, |media| media.timescale),
        })
    }

    /// Whether there is video.
    pub fn has_video(&self) -> bool {
        self.codecs.iter().any(|codec| codec.kind() == Kind::Video)
    }
}

/// One access unit of video, or some of sound: `moof` with one run, and `mdat`. Its times are the muxer's: a viewer
/// gets a copy with its own, see [`super::retime`].
#[derive(Debug, Clone)]
pub struct Fragment {
    /// What it needs.
    pub init: Arc<Init>,
    /// Video or sound.
    pub kind: Kind,
    /// A decoder can start here.
    pub keyframe: bool,
    /// Decode time in the track's ticks: 90 000 a second for video, [`Init::audio_rate`] for sound.
    pub start: i64,
    /// Of all its samples. The next one begins where this one ends.
    pub duration: i64,
    /// Of the first sample.
    pub first_duration: i64,
    /// When the first sample is shown.
    pub shown: i64,
    /// The bytes.
    pub data: Bytes,
}

impl Unit for Fragment {
    fn size(&self) -> usize {
        self.data.len()
    }
    fn is_keyframe_start(&self) -> bool {
        self.keyframe
    }
}
