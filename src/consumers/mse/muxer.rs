//! From frames to fragments, each as soon as its frame is there.
//!
//! A sample's duration is the time to the next one, which is not known yet. So decode times run one picture late: each
//! sample lasts from the decode time of the picture before it to its own, composition offsets keep the moment it is
//! shown to the tick, and nothing has to wait.

use super::fragment::{Fragment, Init};
use crate::media::Kind;
use crate::media::mp4::{AudioTrack, DecodeOrder, Media, Run, Sample, fragment};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// Ticks a second of video.
pub const VIDEO_RATE: i64 = 90_000;
/// The distance of pictures until it is known, in ticks.
const FIRST_INTERVAL: i64 = 3_600;
/// A pause before a keyframe that is longer is a break in the source, in ticks.
const PAUSE: i64 = VIDEO_RATE;
/// No picture lasts longer than this or three of the usual intervals, in ticks: what is announced must come.
const LONGEST: i64 = VIDEO_RATE / 2;
/// Sound is collected for so long at most, in nanoseconds; a picture takes it along earlier.
const COLLECT: i64 = 80_000_000;
/// A pause in the sound that is longer begins it anew, in nanoseconds.
const SOUND_PAUSE: i64 = 1_000_000_000;

/// Makes fragments of one video and one audio track. Pure: no clock, no I/O.
#[derive(Debug, Default)]
pub struct Muxer {
    init: Option<Arc<Init>>,
    video: Option<Media>,
    pictures: Option<Pictures>,
    sound: Option<Sound>,
    sequence: u32,
}

/// Video since a keyframe that began it.
#[derive(Debug)]
struct Pictures {
    order: DecodeOrder,
    /// Between pictures, on average.
    interval: i64,
    /// Decode time of the latest picture.
    decoded: i64,
    /// Where the next sample begins.
    next: i64,
    /// When the first picture is shown.
    first: i64,
}

impl Pictures {
    fn new(shown: i64, interval: i64) -> Pictures {
        let before = shown - interval;
        let order = DecodeOrder::new(0, shown, interval);
        Pictures { order, interval, decoded: before, next: before, first: shown }
    }
}

#[derive(Debug)]
struct Sound {
    track: AudioTrack,
    id: u32,
    /// When the oldest and the latest frame that is not written begin, in nanoseconds.
    since: Option<i64>,
    latest: Option<i64>,
}

impl Muxer {
    /// Other tracks, or other parameters, from here on. Video goes on with its next keyframe.
    ///
    /// # Errors
    /// What MP4 can't say of the tracks.
    pub fn begin(&mut self, video: Option<Media>, audio: Option<Media>) -> Result<(), mp4_atom::Error> {
        let tracks: Vec<&Media> = video.iter().chain(&audio).collect();
        self.init = Some(Arc::new(Init::of(&tracks)?));
        let id = tracks.len() as u32;
        self.sound =
            audio.map(|media| Sound { track: AudioTrack::new(media), id, since: None, latest: None });
        self.video = video;
        self.pictures = None;
        Ok(())
    }

    /// Takes a frame and appends what becomes of it. `time` is when it is shown, on the stream's timeline.
    pub fn push(&mut self, kind: Kind, time: Duration, keyframe: bool, data: Bytes, out: &mut Vec<Fragment>) {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX / 4);
        match kind {
            Kind::Video => {
                self.flush_sound(false, out);
                self.push_picture(nanos, keyframe, data, out);
            }
            Kind::Audio => self.push_sound(nanos, &data, out),
        }
    }

    fn push_picture(&mut self, nanos: i64, keyframe: bool, data: Bytes, out: &mut Vec<Fragment>) {
        if self.video.is_none() {
            return;
        }
        let shown = ticks(nanos, VIDEO_RATE);
        let usual = self.pictures.as_ref().map_or(FIRST_INTERVAL, |pictures| pictures.interval);
        let paused = |pictures: &Pictures| shown - pictures.decoded > PAUSE + 3 * pictures.interval;
        if keyframe && self.pictures.as_ref().is_none_or(paused) {
            self.pictures = Some(Pictures::new(shown, usual));
        }
        let Some(pictures) = &mut self.pictures else { return };
        // Pictures shown before the first keyframe refer to what came before it.
        if shown < pictures.first {
            return;
        }
        let decoded = pictures.order.next(shown);
        let step = decoded - pictures.decoded;
        pictures.decoded = decoded;
        let longest = LONGEST.max(3 * pictures.interval);
        let (start, duration) = (pictures.next, (decoded - pictures.next).clamp(1, longest));
        pictures.next += duration;
        if step > 0 {
            pictures.interval = (pictures.interval * 7 + step.min(2 * VIDEO_RATE)) / 8;
        }
        let composition_offset = i32::try_from(shown - start).unwrap_or(0);
        let sample = Sample { duration: duration as u32, composition_offset, keyframe, data };
        self.write(Kind::Video, 1, keyframe, (start, shown), &[sample], out);
    }

    fn push_sound(&mut self, nanos: i64, data: &Bytes, out: &mut Vec<Fragment>) {
        let Some(sound) = &mut self.sound else { return };
        if sound.latest.is_some_and(|latest| nanos - latest > SOUND_PAUSE) {
            self.flush_sound(true, out);
        }
        let Some(sound) = &mut self.sound else { return };
        let since = *sound.since.get_or_insert(nanos);
        sound.latest = Some(nanos);
        sound.track.push(ticks(nanos, i64::from(sound.track.media.timescale)), data);
        if nanos - since >= COLLECT {
            self.flush_sound(false, out);
        }
    }

    /// Writes the sound that is there, `all` of it at the end of a run: the last unit may otherwise have to last longer.
    fn flush_sound(&mut self, all: bool, out: &mut Vec<Fragment>) {
        let Some(sound) = &mut self.sound else { return };
        let units = if all { sound.track.take_all() } else { sound.track.take_before(i64::MAX) };
        let Some(start) = units.first().map(|unit| unit.start) else { return };
        sound.since = None;
        let (id, keyframe) = (sound.id, self.video.is_none());
        let samples: Vec<Sample> = units
            .into_iter()
            .map(|unit| Sample {
                duration: u32::try_from(unit.duration).unwrap_or(1),
                composition_offset: 0,
                keyframe: true,
                data: unit.data,
            })
            .collect();
        self.write(Kind::Audio, id, keyframe, (start, start), &samples, out);
    }

    fn write(
        &mut self,
        kind: Kind,
        track_id: u32,
        keyframe: bool,
        (start, shown): (i64, i64),
        samples: &[Sample],
        out: &mut Vec<Fragment>,
    ) {
        let Some(init) = &self.init else { return };
        self.sequence = self.sequence.wrapping_add(1);
        let decode_time = u64::try_from(start).unwrap_or(0);
        let run = Run { track_id, video: kind == Kind::Video, decode_time, samples };
        out.push(Fragment {
            init: init.clone(),
            kind,
            keyframe,
            start,
            duration: samples.iter().map(|sample| i64::from(sample.duration)).sum(),
            first_duration: samples.first().map_or(0, |sample| i64::from(sample.duration)),
            shown,
            data: fragment(self.sequence, &[run]),
        });
    }
}

/// Nanoseconds as ticks.
pub fn ticks(nanos: i64, rate: i64) -> i64 {
    (i128::from(nanos) * i128::from(rate) / 1_000_000_000) as i64
}

#[cfg(test)]
#[path = "muxer_tests.rs"]
mod tests;
