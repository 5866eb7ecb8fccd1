//! The clip that the demo camera shows: an MP4 file as packets with their times.

use crate::media::rtp::packetize::Packetizer;
use crate::media::{Codec, Frame, Kind, Packet, Params, StreamTime, Track};
use bytes::Bytes;
use mp4_atom::{Atom, Buf, Decode, DecodeAtom, Header, Moov, Stbl, StszSamples};
use std::time::Duration;

/// RTP payload bytes at most in a packet.
const MAX_PAYLOAD: usize = 1200;

/// A clip that can be played round and round.
#[derive(Debug)]
pub struct Clip {
    /// Its tracks.
    pub tracks: Vec<Track>,
    /// Its access units in the order of their times, each with the packets it is sent in.
    pub units: Vec<Unit>,
    /// When the first unit comes again.
    pub period: Duration,
}

/// One access unit.
#[derive(Debug)]
pub struct Unit {
    /// Time since the clip's beginning.
    pub at: Duration,
    /// Index into [`Clip::tracks`].
    pub track: usize,
    /// Never empty. Their `rtp_time` counts from the clip's beginning.
    pub packets: Vec<Packet>,
    /// Which of them is to be replaced by a fresh time stamp whenever it is sent.
    pub stamp: Option<usize>,
}

/// One track of a file with its frames.
#[derive(Debug)]
pub struct Media {
    /// What the frames are.
    pub track: Track,
    /// In the order of their times, which count from the clip's beginning.
    pub frames: Vec<Frame>,
    /// When the first frame comes again.
    pub period: Duration,
}

impl Clip {
    /// Reads an MP4 file with H.264 and Opus tracks. Their packets must not be reordered (no B-frames).
    ///
    /// # Errors
    /// What is missing or not supported.
    pub fn read(file: &[u8]) -> Result<Clip, String> {
        Clip::of(Media::read(file, None)?)
    }

    /// Packetizes the frames of all tracks.
    ///
    /// # Errors
    /// A frame is malformed, or there is none.
    pub fn of(media: Vec<Media>) -> Result<Clip, String> {
        let (mut tracks, mut units, mut period) = (Vec::new(), Vec::new(), Duration::ZERO);
        for Media { track, frames, period: length } in media {
            let index = tracks.len();
            let mut packetizer = Packetizer::new(&track, MAX_PAYLOAD);
            for frame in &frames {
                let mut packets = Vec::new();
                packetizer.packetize(frame, &mut packets);
                if packets.is_empty() {
                    return Err(format!("a sample of the {} track is malformed", track.codec));
                }
                units.push(Unit { at: frame.time.0, track: index, packets, stamp: None });
            }
            period = period.max(length);
            tracks.push(track);
        }
        if units.is_empty() || period.is_zero() {
            return Err("the clip is empty".to_owned());
        }
        units.sort_by_key(|unit| unit.at);
        Ok(Clip { tracks, units, period })
    }
}

impl Media {
    /// The tracks of an MP4 file with H.264 and Opus, or only those of one kind.
    ///
    /// # Errors
    /// What is missing or not supported.
    pub fn read(file: &[u8], only: Option<Kind>) -> Result<Vec<Media>, String> {
        let handler = only.map(|kind| if kind == Kind::Video { b"vide" } else { b"soun" });
        let mut all = Vec::new();
        let moov = find_moov(file)?;
        let wanted = moov
            .trak
            .iter()
            .filter(|trak| handler.is_none_or(|name| trak.mdia.hdlr.handler.as_ref() == name));
        for (index, trak) in wanted.enumerate() {
            let table = &trak.mdia.minf.stbl;
            let track = describe(table)?;
            let number = u8::try_from(index).map_err(|_| "too many tracks")?;
            let (mut frames, mut ticks) = (Vec::new(), 0);
            for sample in samples(table)? {
                let rtp_time = rescale(ticks, track.clock_rate, trak.mdia.mdhd.timescale)?;
                let at = Duration::from_nanos(rescale(rtp_time, 1_000_000_000, track.clock_rate)?);
                let data = file.get(sample.start..sample.end).ok_or("a sample lies outside the file")?;
                frames.push(Frame {
                    track: number,
                    rtp_time,
                    time: StreamTime(at),
                    keyframe: sample.is_keyframe && track.codec == Codec::H264,
                    data: Bytes::copy_from_slice(data),
                });
                ticks += u64::from(sample.duration);
            }
            let period = Duration::from_nanos(rescale(ticks, 1_000_000_000, trak.mdia.mdhd.timescale)?);
            all.push(Media { track, frames, period });
        }
        Ok(all)
    }
}

/// Where a sample lies in the file, and how long it lasts in the track's time scale.
struct Sample {
    start: usize,
    end: usize,
    duration: u32,
    is_keyframe: bool,
}

fn find_moov(file: &[u8]) -> Result<Moov, String> {
    let mut rest = file;
    let damaged = |error: mp4_atom::Error| format!("the clip is damaged: {error}");
    while rest.has_remaining() {
        let header = Header::decode(&mut rest).map_err(damaged)?;
        if header.kind == Moov::KIND {
            return Moov::decode_atom(&header, &mut rest).map_err(damaged);
        }
        let size = header.size.ok_or("the clip has no moov box")?;
        rest = rest.get(size..).ok_or("the clip is cut off")?;
    }
    Err("the clip has no moov box".to_owned())
}

/// The track of a sample description.
fn describe(table: &Stbl) -> Result<Track, String> {
    match table.stsd.codecs.as_slice() {
        [mp4_atom::Codec::Avc1(avc1)] => {
            let (sps, pps) = (&avc1.avcc.sequence_parameter_sets, &avc1.avcc.picture_parameter_sets);
            let (Some(sps), Some(pps), 4) = (sps.first(), pps.first(), avc1.avcc.length_size) else {
                return Err("the clip's video has no parameter sets or short NAL lengths".to_owned());
            };
            let params = Params::H264 { sps: sps.as_slice().into(), pps: pps.as_slice().into() };
            Ok(Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params })
        }
        [mp4_atom::Codec::Opus(opus)] => {
            let channels = u8::try_from(opus.audio.channel_count).map_err(|_| "too many channels")?;
            Ok(Track { codec: Codec::Opus, clock_rate: 48_000, channels, params: Params::None })
        }
        _ => Err("the clip has a track that is neither H.264 nor Opus".to_owned()),
    }
}

/// The samples of a track (ISO/IEC 14496-12 §8.6, §8.7): sizes, durations, and chunks that hold some of them each.
fn samples(table: &Stbl) -> Result<Vec<Sample>, String> {
    if table.ctts.is_some() {
        return Err("the clip has B-frames".to_owned());
    }
    let StszSamples::Different { sizes } = &table.stsz.samples else {
        return Err("the clip's samples are all of one size".to_owned());
    };
    let chunks = table.stco.as_ref().ok_or("the clip has no chunk offsets")?;
    let mut durations = table
        .stts
        .entries
        .iter()
        .flat_map(|entry| std::iter::repeat_n(entry.sample_delta, entry.sample_count as usize));
    let keyframes = table.stss.as_ref();
    let mut sizes = sizes.iter().copied();
    let (mut samples, mut number) = (Vec::new(), 0);
    for (chunk, offset) in (1..).zip(&chunks.entries) {
        // The entries are runs: each holds from its first chunk up to the next entry's.
        let run = table.stsc.entries.iter().rev().find(|run| run.first_chunk <= chunk);
        let count = run.ok_or("the clip has a chunk without samples")?.samples_per_chunk;
        let mut start = *offset as usize;
        for size in sizes.by_ref().take(count as usize) {
            number += 1;
            let end = start.checked_add(size as usize).ok_or("a sample lies outside the file")?;
            let duration = durations.next().ok_or("the clip has a sample without duration")?;
            let is_keyframe = keyframes.is_none_or(|list| list.entries.binary_search(&number).is_ok());
            samples.push(Sample { start, end, duration, is_keyframe });
            start = end;
        }
    }
    Ok(samples)
}

/// `ticks` of a clock of `from` Hz in one of `to` Hz.
fn rescale(ticks: u64, to: u32, from: u32) -> Result<u64, String> {
    (u128::from(ticks) * u128::from(to))
        .checked_div(u128::from(from))
        .and_then(|ticks| u64::try_from(ticks).ok())
        .ok_or_else(|| "the clip's time scale can't be used".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::CLIP;
    use super::*;

    #[test]
    fn the_embedded_clip_loops_without_a_seam() {
        let clip = Clip::read(CLIP).expect("reads");
        assert_eq!(clip.period, Duration::from_secs(10));
        let [video, audio] =
            [0, 1].map(|track| clip.units.iter().filter(|u| u.track == track).collect::<Vec<_>>());
        assert_eq!((video.len(), audio.len()), (300, 500));
        for (units, ticks) in [(&video, 3000), (&audio, 960)] {
            let times: Vec<u64> = units.iter().map(|u| u.packets[0].rtp_time).collect();
            assert!(times.iter().zip(0..).all(|(time, n)| *time == n * ticks), "{times:?}");
        }
        assert!(clip.units.is_sorted_by_key(|unit| unit.at));
    }

    #[test]
    fn the_embedded_clip_suits_every_browser() {
        let clip = Clip::read(CLIP).expect("reads");
        let keyframes: Vec<_> =
            clip.units.iter().filter(|u| u.packets[0].keyframe).map(|u| u.at.as_secs()).collect();
        assert_eq!(keyframes, [0, 2, 4, 6, 8]);
        let info = clip.tracks[0].video_info().expect("a readable SPS");
        assert_eq!((info.width, info.height, info.profile), (1280, 720, "Constrained Baseline"));
        assert_eq!((clip.tracks[1].codec, clip.tracks[1].channels), (Codec::Opus, 2));
        assert!(CLIP.len() < 1_000_000);
    }

    #[test]
    fn a_damaged_clip_is_an_error_wherever_it_is_cut() {
        for length in (0..CLIP.len()).step_by(997) {
            assert!(Clip::read(&CLIP[..length]).is_err(), "{length}");
        }
    }
}
