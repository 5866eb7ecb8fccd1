//! Sound: access units as MP4 carries them, one after another without a gap, on the stream's timeline.

use super::codecs::Media;
use super::flac;
use crate::media::Codec;
use bytes::Bytes;
use std::collections::VecDeque;

/// Access units held back at most: sound that runs far ahead of its pictures is of no use.
const MAX_QUEUE: usize = 4096;

/// One access unit, in ticks of the track's timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// When it begins.
    pub start: i64,
    /// How long it lasts, up to the next one's beginning.
    pub duration: i64,
    /// Its bytes.
    pub data: Bytes,
}

/// Places access units on the timeline.
///
/// Each begins where the one before ended. A difference between that and its own timestamp (two clocks never run alike)
/// is made up by at most 1 % of its duration; where sound is missing, the unit before the hole lasts until its end.
#[derive(Debug)]
pub struct AudioTrack {
    /// How it is written.
    pub media: Media,
    encoder: flac::Encoder,
    next: Option<i64>,
    queue: VecDeque<Unit>,
}

impl AudioTrack {
    /// An empty track.
    pub fn new(media: Media) -> AudioTrack {
        let encoder = flac::Encoder::new(media.timescale, media.channels);
        AudioTrack { media, encoder, next: None, queue: VecDeque::new() }
    }

    /// Takes what one frame of the source carries; it begins at `time`, in ticks.
    pub fn push(&mut self, time: i64, data: &Bytes) {
        let mut time = time;
        for (nominal, data) in self.units(data) {
            self.place(time, nominal, data);
            time += nominal;
        }
    }

    fn units(&mut self, data: &Bytes) -> Vec<(i64, Bytes)> {
        match self.media.codec {
            Codec::Pcma => self.compress(data, flac::alaw),
            Codec::Pcmu => self.compress(data, flac::ulaw),
            Codec::Opus => vec![(opus_duration(data), data.clone())],
            _ => vec![(i64::from(self.media.frame_length.max(1)), data.clone())],
        }
    }

    fn compress(&mut self, data: &[u8], decode: fn(u8) -> i16) -> Vec<(i64, Bytes)> {
        let channels = usize::from(self.media.channels.max(1));
        let blocks = data.chunks(flac::MAX_BLOCK * channels);
        blocks
            .filter(|block| block.len() >= flac::MIN_BLOCK * channels)
            .map(|block| {
                let samples: Vec<i16> = block.iter().map(|byte| decode(*byte)).collect();
                ((samples.len() / channels) as i64, self.encoder.frame(&samples).into())
            })
            .collect()
    }

    fn place(&mut self, time: i64, nominal: i64, data: Bytes) {
        let rate = i64::from(self.media.timescale);
        if nominal <= 0 || data.is_empty() {
            return;
        }
        let mut start = self.next.unwrap_or(time);
        let late = time - start;
        if late < -rate {
            return;
        }
        if late >= nominal.max(rate / 50) {
            // Something is missing before it.
            if let Some(last) = self.queue.back_mut() {
                last.duration += late;
            }
            start = time;
        }
        let most = (nominal / 100).max(1);
        let correction = if late.abs() > rate / 100 { (time - start).clamp(-most, most) } else { 0 };
        let duration = (nominal + correction).max(1);
        self.queue.push_back(Unit { start, duration, data });
        self.next = Some(start + duration);
        if self.queue.len() > MAX_QUEUE {
            self.queue.pop_front();
        }
    }

    /// Takes the units that begin before `end`; the last one is held back, it may have to last longer.
    pub fn take_before(&mut self, end: i64) -> Vec<Unit> {
        let mut taken = Vec::new();
        while self.queue.len() > 1 && self.queue.front().is_some_and(|unit| unit.start < end) {
            taken.extend(self.queue.pop_front());
        }
        taken
    }

    /// Takes all but nothing is held back: the end of the track.
    pub fn take_all(&mut self) -> Vec<Unit> {
        self.next = None;
        self.queue.drain(..).collect()
    }
}

/// The duration of an Opus packet in ticks of 48 kHz (RFC 6716 §3.1, §3.2); 0 for what is none.
fn opus_duration(packet: &[u8]) -> i64 {
    let Some(toc) = packet.first() else { return 0 };
    let frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..=15 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(0, |byte| i64::from(byte & 0x3f)),
    };
    // §3.2.5: at most 120 ms.
    Some(frame * count).filter(|ticks| *ticks <= 5760).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Params, Track};
    use proptest::prelude::*;

    fn track(codec: Codec, clock_rate: u32) -> AudioTrack {
        let track = Track { codec, clock_rate, channels: 1, params: Params::None };
        AudioTrack::new(Media::of(&track).unwrap())
    }

    fn aac(times: impl IntoIterator<Item = i64>) -> Vec<Unit> {
        let mut track = track(Codec::Aac, 16_000);
        for time in times {
            track.push(time, &Bytes::from_static(b"unit"));
        }
        track.take_all()
    }

    fn assert_gapless(units: &[Unit]) {
        for pair in units.windows(2) {
            assert_eq!(pair[0].start + pair[0].duration, pair[1].start);
        }
    }

    #[test]
    fn steady_sound_keeps_its_exact_durations() {
        let units = aac((0..100).map(|n| n * 1024 + n % 3));
        assert!(units.iter().all(|unit| unit.duration == 1024));
        assert_gapless(&units);
    }

    #[test]
    fn a_clock_that_runs_wrong_is_followed_in_small_steps() {
        let units = aac((0..4000).map(|n| n * 1026));
        assert!(units.iter().all(|unit| (1014..=1034).contains(&unit.duration)));
        assert_gapless(&units);
        let off = units[3999].start - 3999 * 1026;
        assert!(off.abs() <= 16_000 / 50, "{off}");
    }

    #[test]
    fn a_hole_is_spanned_by_the_unit_before_it() {
        let units = aac([0, 1024, 10_240]);
        assert_eq!(units[1].duration, 9216);
        assert_gapless(&units);
    }

    #[test]
    fn g711_becomes_flac_of_the_same_length() {
        let mut track = track(Codec::Pcma, 8_000);
        for n in 0..4 {
            track.push(n * 160, &Bytes::from(vec![0xd5; 160]));
        }
        assert_eq!(track.take_before(320).len(), 2);
        let rest = track.take_all();
        assert_eq!(rest.len(), 2);
        assert!(rest.iter().all(|unit| unit.duration == 160 && unit.data.starts_with(&[0xff, 0xf9])));
    }

    #[test]
    fn opus_packets_tell_their_duration() {
        for (packet, ticks) in [
            (&[0x78, 0][..], 960), // CELT 20 ms, one frame
            (&[0x08, 0], 960),     // SILK 20 ms
            (&[0x79, 0], 1920),    // two frames
            (&[0x7b, 3, 0], 2880), // three frames
            (&[0x7b, 63, 0], 0),   // longer than allowed
            (&[], 0),
        ] {
            assert_eq!(opus_duration(packet), ticks, "{packet:x?}");
        }
    }

    proptest! {
        #[test]
        fn sound_never_has_a_gap(steps in proptest::collection::vec(-3000i64..20_000, 1..80)) {
            let mut time = 100_000;
            let units = aac(steps.into_iter().map(|step| { time += step; time }));
            assert_gapless(&units);
            prop_assert!(units.iter().all(|unit| unit.duration > 0));
        }
    }
}
