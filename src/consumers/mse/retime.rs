//! A viewer's own time: it begins at zero and has no gap, whatever the stream, the muxer and the viewer's line did.
//!
//! Players such as go2rtc's `video-rtc.js` begin at zero and know nothing of holes. So each viewer's copy of a fragment
//! gets its own times, and nothing else: the first keyframe that it gets is at zero; after a pause, a skip or a
//! reconnect of the source the next keyframe is where the last picture ended; and what is past already when a viewer
//! joins (the cached GOP) is shown in fast motion, so that the picture is there at once and live right after.

use super::fragment::Fragment;
use super::muxer::VIDEO_RATE;
use crate::media::Kind;
use crate::media::mp4::{Times, retimed};

/// How much faster the past is shown.
const FAST: i64 = 32;
/// A keyframe that is further from where the last picture ended begins a new run, in ticks of video.
const JUMP: i64 = VIDEO_RATE / 2;

/// Gives fragments their times.
#[derive(Debug, Default)]
pub struct Retimer {
    /// What is older is shown in fast motion, in ticks of video on the stream's timeline.
    live: Option<i64>,
    run: Option<Run>,
    video_end: i64,
    audio_end: Option<i64>,
    audio_rate: i64,
}

/// From one jump to the next, in ticks of the leading track.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The muxer's time at which it begins, and the viewer's.
    from: i64,
    out: i64,
    /// The muxer's time from which on a tick is a tick.
    live: i64,
    /// When its first picture is shown, on the muxer's clock.
    first_shown: i64,
    /// Where the latest fragment ended, on the muxer's clock.
    end: i64,
}

impl Run {
    fn at(&self, time: i64) -> i64 {
        self.out + (time.min(self.live) - self.from) / FAST + (time - self.live).max(0)
    }
}

impl Retimer {
    /// Begins anew with the next keyframe. With `live` (on the stream's timeline, in ticks of video) what is older is
    /// shown in fast motion.
    pub fn rejoin(&mut self, live: Option<i64>) {
        self.live = live;
        self.run = None;
    }

    /// Appends the fragment with this viewer's times. False if it is not for this viewer.
    pub fn write(&mut self, fragment: &Fragment, out: &mut Vec<u8>) -> bool {
        let times = match fragment.kind {
            Kind::Video => self.picture(fragment),
            Kind::Audio => self.sound(fragment),
        };
        if let Some(times) = times {
            retimed(&fragment.data, fragment.kind == Kind::Video, times, out);
        }
        times.is_some()
    }

    /// How much this viewer has been given, in seconds.
    pub fn length(&self) -> f64 {
        let audio = self.audio_end.unwrap_or(0) as f64 / self.audio_rate.max(1) as f64;
        (self.video_end as f64 / VIDEO_RATE as f64).max(audio)
    }

    fn picture(&mut self, fragment: &Fragment) -> Option<Times> {
        let (start, end) = (fragment.start, fragment.start + fragment.duration);
        let far = |run: Run| (start - run.end).abs() > JUMP;
        if fragment.keyframe && self.run.is_none_or(far) {
            let live = self.live.take().map_or(start, |live| live.max(start));
            self.run =
                Some(Run { from: start, out: self.video_end, live, first_shown: fragment.shown, end: start });
        }
        let run = self.run.as_mut()?;
        run.end = end;
        // It refers to pictures that this viewer never got.
        if fragment.shown < run.first_shown {
            return None;
        }
        let start = self.video_end;
        self.video_end = run.at(end).max(start + 1);
        Some(Times {
            decode_time: u64::try_from(start).unwrap_or(0),
            first_duration: u32::try_from(self.video_end - start).unwrap_or(1),
            first_offset: i32::try_from(run.at(fragment.shown) - start).unwrap_or(0),
        })
    }

    fn sound(&mut self, fragment: &Fragment) -> Option<Times> {
        let rate = i64::from(fragment.init.audio_rate.max(1));
        if rate != self.audio_rate {
            let rescaled =
                |end: i64| (i128::from(end) * i128::from(rate) / i128::from(self.audio_rate.max(1))) as i64;
            self.audio_end = self.audio_end.map(rescaled);
            self.audio_rate = rate;
        }
        let start = if fragment.init.has_video() {
            let run = self.run?;
            let of_video = |time: i64| (i128::from(time) * i128::from(rate) / i128::from(VIDEO_RATE)) as i64;
            if fragment.start < of_video(run.live) {
                return None;
            }
            fragment.start + of_video(run.at(run.live) - run.live)
        } else {
            let far = |run: Run| (fragment.start - run.end).abs() > rate / 2;
            if self.run.is_none_or(far) {
                let (from, out) = (fragment.start, self.audio_end.unwrap_or(0));
                self.run = Some(Run { from, out, live: from, first_shown: from, end: from });
            }
            let run = self.run.as_mut()?;
            run.end = fragment.start + fragment.duration;
            run.at(fragment.start)
        };
        // What is missing before it, or too much, is made up by its first unit: a player would stop at a hole.
        let begin = self.audio_end.unwrap_or(start.max(0));
        let first_duration = fragment.first_duration + start - begin;
        if first_duration <= 0 {
            return None;
        }
        self.audio_end = Some(start + fragment.duration);
        Some(Times {
            decode_time: u64::try_from(begin).unwrap_or(0),
            first_duration: u32::try_from(first_duration).unwrap_or(1),
            first_offset: 0,
        })
    }
}
