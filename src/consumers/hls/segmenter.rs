//! From frames to parts: audio and video in one fragment, one timeline over all changes of the source.

use super::cutter::{Cut, Cutter, Lengths, Picture};
use crate::media::Kind;
use crate::media::mp4::audio::Unit;
use crate::media::mp4::{AudioTrack, DecodeOrder, Media, Run, Sample, fragment, init_segment};
use bytes::Bytes;
use std::time::Duration;

/// Media time of the first picture: room below for those that are decoded before it.
const LEAD: i64 = 10_000_000_000;
/// Access units from which intervals and order are judged.
const WARM_UP: usize = 8;
/// A slow camera is judged by fewer, once they span so many nanoseconds.
const SLOW_WARM_UP: (usize, i64) = (3, 600_000_000);
/// A pause of this many nanoseconds (or three access units) is a break in the source.
const PAUSE: i64 = 1_000_000_000;
/// Sound held until the first pictures are judged, in frames.
const MAX_EARLY_SOUND: usize = 2048;

/// How long things are to be.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Parts, at most and about.
    pub part: Duration,
    /// Segments, at least where keyframes allow.
    pub segment: Duration,
    /// `EXT-X-TARGETDURATION` in seconds.
    pub target: u32,
}

/// What a segmenter gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// What follows needs this init segment; its timestamps may have jumped.
    Start {
        /// The init segment.
        init: Bytes,
        /// Wall clock of the first access unit, in milliseconds since 1970.
        wall_ms: i64,
        /// Frames a second; 0 without video.
        fps: f64,
        /// `EXT-X-PART-INF`'s target: the same each time.
        part_target: Duration,
        /// The tracks.
        codecs: Vec<String>,
        /// Width and height; 0 without video.
        size: (u16, u16),
    },
    /// The next part of the segment.
    Part {
        /// The fragment.
        data: Bytes,
        /// Seconds.
        duration: f64,
        /// It holds a keyframe (or only sound): a player can start here.
        independent: bool,
    },
    /// The segment is complete.
    SegmentEnd,
}

/// One frame of the source.
#[derive(Debug, Clone)]
pub struct Input {
    /// Audio or video.
    pub kind: Kind,
    /// When it is shown, on the stream's timeline.
    pub time: Duration,
    /// A decoder can start here.
    pub keyframe: bool,
    /// As in [`crate::media::Frame::data`].
    pub data: Bytes,
    /// The wall clock now, in milliseconds since 1970.
    pub now_ms: i64,
}

/// Turns frames into parts. Pure: time is an argument.
#[derive(Debug)]
pub struct Segmenter {
    settings: Settings,
    /// Fixed by the first pictures.
    part_target: Option<Duration>,
    /// Source time of media time 0, in nanoseconds; fixed by the first frame.
    origin: Option<i64>,
    sequence: u32,
    video: Option<Media>,
    audio: Option<Media>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Looking at the first access units, from a keyframe on.
    Warming(Vec<Input>),
    Running(Box<Running>),
}

#[derive(Debug)]
struct Running {
    /// The leading track's ticks a second.
    scale: i64,
    /// Of the leading track, in nanoseconds.
    interval: i64,
    order: DecodeOrder,
    cutter: Cutter,
    sound: Option<AudioTrack>,
    /// Only sound: it leads.
    sound_leads: bool,
    /// Decode times are written earlier by this much, so that none lies after its picture is shown.
    margin: i64,
    /// From decode to presentation of pictures in order.
    delay: i64,
    /// Presentation time of the first picture and of the latest one, in nanoseconds.
    first: i64,
    latest: i64,
}

impl Segmenter {
    /// A segmenter that has seen nothing.
    pub fn new(settings: Settings) -> Segmenter {
        Segmenter {
            settings,
            part_target: None,
            origin: None,
            sequence: 0,
            video: None,
            audio: None,
            state: State::Warming(Vec::new()),
        }
    }

    /// Other tracks from here on; what is pending is written first.
    pub fn begin(&mut self, video: Option<Media>, audio: Option<Media>, out: &mut Vec<Event>) {
        self.finish(out);
        (self.video, self.audio) = (video, audio);
    }

    /// Writes what is pending, as at the end of the source. The next frames begin anew, with a keyframe.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        if let State::Running(mut running) = std::mem::replace(&mut self.state, State::Warming(Vec::new()))
            && let Some(cut) = running.cutter.finish()
        {
            self.write(&mut running, cut, true, out);
        }
    }

    /// Takes a frame.
    pub fn push(&mut self, input: Input, out: &mut Vec<Event>) {
        let media = match input.kind {
            Kind::Video => &self.video,
            Kind::Audio => &self.audio,
        };
        if media.is_none() {
            return;
        }
        if self.leads(&input) && self.has_paused(&input) {
            tracing::debug!("the source paused: a discontinuity");
            self.finish(out);
        }
        match &mut self.state {
            State::Warming(seen) => {
                let leads = input.kind == Kind::Video || self.video.is_none();
                let starts = leads && (input.keyframe || self.video.is_none());
                if seen.is_empty() && !starts {
                    return;
                }
                seen.push(input);
                if leads && self.is_warm() {
                    self.start(out);
                } else if let State::Warming(seen) = &mut self.state
                    && seen.len() > MAX_EARLY_SOUND
                {
                    seen.clear();
                }
            }
            State::Running(_) => self.advance(input, out),
        }
    }

    fn leads(&self, input: &Input) -> bool {
        input.kind == Kind::Video || self.video.is_none()
    }

    fn has_paused(&self, input: &Input) -> bool {
        match &self.state {
            State::Running(running) => {
                let gap = nanos(input.time) - running.latest;
                gap > PAUSE.max(3 * running.interval) && (input.keyframe || running.sound_leads)
            }
            State::Warming(seen) => {
                let latest =
                    seen.iter().filter(|input| self.leads(input)).map(|input| nanos(input.time)).max();
                latest.is_some_and(|latest| nanos(input.time) - latest > 10 * PAUSE)
            }
        }
    }

    fn is_warm(&self) -> bool {
        let State::Warming(seen) = &self.state else { return false };
        let times: Vec<i64> = seen.iter().filter(|i| self.leads(i)).map(|input| nanos(input.time)).collect();
        let span = times.iter().max().zip(times.iter().min()).map_or(0, |(last, first)| last - first);
        times.len() >= WARM_UP || (times.len() >= SLOW_WARM_UP.0 && span >= SLOW_WARM_UP.1)
    }

    fn start(&mut self, out: &mut Vec<Event>) {
        let State::Warming(seen) = std::mem::replace(&mut self.state, State::Warming(Vec::new())) else {
            return;
        };
        let Some(leading) = self.video.as_ref().or(self.audio.as_ref()) else { return };
        let scale = i64::from(leading.timescale);
        let times: Vec<i64> = seen.iter().filter(|i| self.leads(i)).map(|input| nanos(input.time)).collect();
        let first = times.first().copied().unwrap_or(0);
        let shown: Vec<i64> = times.iter().copied().filter(|time| *time >= first).collect();
        let depth = if self.video.is_some() { DecodeOrder::depth_of(&shown) } else { 0 };
        let interval = interval(&shown, depth);
        let target = *self.part_target.get_or_insert_with(|| part_target(self.settings.part, interval));
        let origin = *self.origin.get_or_insert(first - LEAD);

        let tracks: Vec<&Media> = [&self.video, &self.audio].into_iter().flatten().collect();
        let init = match init_segment(&tracks) {
            Ok(init) => init,
            Err(error) => return tracing::warn!("the tracks can't be written as MP4: {error}"),
        };
        // The newest frame is the one that has come without delay.
        let offset = seen.iter().map(|input| input.now_ms - nanos(input.time) / 1_000_000).min().unwrap_or(0);
        out.push(Event::Start {
            init,
            wall_ms: offset + first / 1_000_000,
            fps: if self.video.is_some() { 1e9 / interval as f64 } else { 0.0 },
            part_target: target,
            codecs: tracks.iter().map(|media| media.codecs.clone()).collect(),
            size: self.video.as_ref().map_or((0, 0), |video| video.size),
        });
        let ticks = |nanos: i64| (i128::from(nanos) * i128::from(scale) / 1_000_000_000) as i64;
        let lengths = Lengths {
            second: scale,
            interval: ticks(interval).max(1),
            part: ticks(nanos(target)),
            segment: ticks(nanos(self.settings.segment)),
            // EXTINF rounded to the nearest integer must not exceed the target duration.
            longest_segment: scale * i64::from(self.settings.target) + scale * 2 / 5,
        };
        let sound_leads = self.video.is_none();
        self.state = State::Running(Box::new(Running {
            scale,
            interval,
            order: DecodeOrder::new(depth, ticks(first - origin), lengths.interval),
            cutter: Cutter::new(lengths),
            sound: self.audio.clone().map(AudioTrack::new),
            sound_leads,
            margin: if sound_leads { 0 } else { lengths.part / 5 },
            delay: lengths.interval * depth as i64,
            first,
            latest: first,
        }));
        for input in seen {
            self.advance(input, out);
        }
    }

    fn advance(&mut self, input: Input, out: &mut Vec<Event>) {
        let origin = self.origin.unwrap_or(0);
        let State::Running(mut running) = std::mem::replace(&mut self.state, State::Warming(Vec::new()))
        else {
            return;
        };
        let time = nanos(input.time);
        let ticks = |scale: i64| (i128::from(time - origin) * i128::from(scale) / 1_000_000_000) as i64;
        match input.kind {
            // Pictures shown before the first keyframe refer to what came before it.
            Kind::Video if time >= running.first => {
                running.latest = running.latest.max(time);
                let shown = ticks(running.scale);
                let decode = running.order.next(shown);
                let picture = Picture { decode, shown, keyframe: input.keyframe, data: input.data };
                if let Some(cut) = running.cutter.push(picture) {
                    self.write(&mut running, cut, false, out);
                }
            }
            Kind::Video => {}
            Kind::Audio if time < running.first => {}
            Kind::Audio => {
                if let Some(sound) = &mut running.sound {
                    sound.push(ticks(i64::from(sound.media.timescale)), &input.data);
                }
                if running.sound_leads {
                    running.latest = running.latest.max(time);
                    let units = running.sound.as_mut().map(|sound| sound.take_before(i64::MAX));
                    for Unit { start, data, .. } in units.unwrap_or_default() {
                        let picture = Picture { decode: start, shown: start, keyframe: true, data };
                        if let Some(cut) = running.cutter.push(picture) {
                            self.write(&mut running, cut, false, out);
                        }
                    }
                }
            }
        }
        self.state = State::Running(running);
    }

    fn write(&mut self, running: &mut Running, cut: Cut, last: bool, out: &mut Vec<Event>) {
        self.sequence = self.sequence.wrapping_add(1);
        let end = cut.start + cut.duration;
        let ends = cut.pictures.iter().skip(1).map(|next| next.decode).chain([end]);
        let leading: Vec<Sample> = cut
            .pictures
            .iter()
            .zip(ends)
            .map(|(picture, end)| Sample {
                duration: u32::try_from(end - picture.decode).unwrap_or(1),
                composition_offset: i32::try_from(picture.shown - picture.decode + running.margin)
                    .unwrap_or(0),
                keyframe: picture.keyframe,
                data: picture.data.clone(),
            })
            .collect();
        let mut runs = vec![Run {
            track_id: 1,
            video: !running.sound_leads,
            decode_time: u64::try_from(cut.start - running.margin).unwrap_or(0),
            samples: &leading,
        }];
        let mut sound = Vec::new();
        let mut sound_start = 0;
        if let Some(track) = running.sound.as_mut().filter(|_| !running.sound_leads) {
            let rate = i128::from(track.media.timescale);
            let until = i128::from(end + running.delay) * rate / i128::from(running.scale);
            let units = if last { track.take_all() } else { track.take_before(until as i64) };
            sound_start = units.first().map_or(0, |unit| unit.start);
            sound.extend(units.into_iter().map(|unit| Sample {
                duration: u32::try_from(unit.duration).unwrap_or(1),
                composition_offset: 0,
                keyframe: true,
                data: unit.data,
            }));
        }
        if !sound.is_empty() {
            let decode_time = u64::try_from(sound_start).unwrap_or(0);
            runs.push(Run { track_id: 2, video: false, decode_time, samples: &sound });
        }
        out.push(Event::Part {
            data: fragment(self.sequence, &runs),
            duration: cut.duration as f64 / running.scale as f64,
            independent: cut.pictures.iter().any(|picture| picture.keyframe),
        });
        if cut.ends_segment {
            out.push(Event::SegmentEnd);
        }
    }
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX / 4)
}

/// The average distance of these presentation times, whose last `depth` still lack some in between.
fn interval(shown: &[i64], depth: usize) -> i64 {
    let mut sorted = shown.to_vec();
    sorted.sort_unstable();
    sorted.truncate(sorted.len().saturating_sub(depth).max(2));
    let span = sorted.last().zip(sorted.first()).map_or(0, |(last, first)| last - first);
    (span / (sorted.len() as i64 - 1).max(1)).clamp(1_000_000, 2_000_000_000)
}

/// A whole number of access units, about as long as wished, with some room for unsteady ones; in milliseconds.
fn part_target(wish: Duration, interval: i64) -> Duration {
    let count = (nanos(wish) * 51 / 50 / interval).max(1);
    let nanos = u64::try_from(count * interval * 105 / 100).unwrap_or(0);
    Duration::from_millis(nanos.div_ceil(1_000_000))
}

#[cfg(test)]
#[path = "segmenter_tests.rs"]
mod tests;
