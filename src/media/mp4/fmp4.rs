//! Fragmented MP4 (ISO/IEC 14496-12): the init segment, and one `moof` + `mdat` for each part.
//!
//! The fragment is written by hand into one buffer of known size; it is all that runs for each frame.

use super::codecs::Media;
use bytes::Bytes;
use mp4_atom::{
    Dinf, Dref, DrefEntry, Encode, FourCC, Ftyp, Hdlr, Mdhd, Mdia, Minf, Moov, Mvex, Mvhd, Smhd, Stbl, Stco,
    Stsd, Tkhd, Trak, Trex, Url, Vmhd,
};

/// One access unit with its place in time, in the track's timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Decode time to the next sample's.
    pub duration: u32,
    /// Presentation time minus decode time.
    pub composition_offset: i32,
    /// A decoder can start here.
    pub keyframe: bool,
    /// The access unit.
    pub data: Bytes,
}

/// The samples of one track in a fragment.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The track, from 1, as in the init segment.
    pub track_id: u32,
    /// Samples have composition offsets and keyframe flags of their own.
    pub video: bool,
    /// Decode time of the first sample.
    pub decode_time: u64,
    /// The samples; may be empty.
    pub samples: &'a [Sample],
}

/// The init segment for these tracks: `ftyp` and `moov`. Track ids count from 1 in their order.
///
/// # Errors
/// What the codec's configuration has that MP4 can't say.
pub fn init_segment(tracks: &[&Media]) -> Result<Bytes, mp4_atom::Error> {
    let brand = FourCC::new;
    let ftyp = Ftyp {
        major_brand: brand(b"iso6"),
        minor_version: 0,
        compatible_brands: vec![brand(b"iso6"), brand(b"cmfc"), brand(b"mp41")],
    };
    let numbered = || (1u32..).zip(tracks);
    let trex = |track_id| Trex { track_id, default_sample_description_index: 1, ..Trex::default() };
    let moov = Moov {
        mvhd: Mvhd {
            creation_time: 0,
            modification_time: 0,
            timescale: 1000,
            duration: 0,
            rate: 1.into(),
            volume: 1.into(),
            matrix: Default::default(),
            next_track_id: tracks.len() as u32 + 1,
        },
        mvex: Some(Mvex { mehd: None, trex: numbered().map(|(id, _)| trex(id)).collect() }),
        trak: numbered().map(|(id, media)| track(id, media)).collect(),
        ..Moov::default()
    };
    let mut bytes = Vec::with_capacity(1024);
    ftyp.encode(&mut bytes)?;
    moov.encode(&mut bytes)?;
    Ok(bytes.into())
}

fn track(id: u32, media: &Media) -> Trak {
    let (width, height) = media.size;
    let video = media.is_video();
    Trak {
        tkhd: Tkhd {
            track_id: id,
            enabled: true,
            in_movie: true,
            volume: u8::from(!video).into(),
            width: width.into(),
            height: height.into(),
            ..Tkhd::default()
        },
        mdia: Mdia {
            mdhd: Mdhd { timescale: media.timescale, language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr {
                handler: FourCC::new(if video { b"vide" } else { b"soun" }),
                name: if video { "video" } else { "audio" }.into(),
            },
            minf: Minf {
                vmhd: video.then(Vmhd::default),
                smhd: (!video).then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                stbl: Stbl {
                    stsd: Stsd { codecs: vec![media.entry.clone()] },
                    stco: Some(Stco::default()),
                    ..Stbl::default()
                },
                ..Minf::default()
            },
        },
        ..Trak::default()
    }
}

/// `sample_is_non_sync_sample`, `sample_depends_on` = 1 (§8.8.3.1).
const DEPENDS: u32 = 0x0101_0000;
/// `sample_depends_on` = 2: on no other.
const SYNC: u32 = 0x0200_0000;

/// One fragment: `moof` (§8.8.4) with a `traf` for each run, and `mdat` with their samples in the same order.
/// `sequence` counts fragments from 1.
pub fn fragment(sequence: u32, runs: &[Run<'_>]) -> Bytes {
    let payload: usize = runs.iter().flat_map(|run| run.samples).map(|sample| sample.data.len()).sum();
    let moof = 24 + runs.iter().map(traf_size).sum::<usize>();
    let mut out = Vec::with_capacity(moof + 8 + payload);
    header(&mut out, moof, b"moof");
    header(&mut out, 16, b"mfhd");
    word(&mut out, 0);
    word(&mut out, sequence);
    let mut data_offset = moof + 8;
    for run in runs {
        traf(&mut out, run, data_offset);
        data_offset += run.samples.iter().map(|sample| sample.data.len()).sum::<usize>();
    }
    header(&mut out, 8 + payload, b"mdat");
    for sample in runs.iter().flat_map(|run| run.samples) {
        out.extend_from_slice(&sample.data);
    }
    out.into()
}

/// The times of a fragment's first sample, and with it of the fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Decode time of the first sample.
    pub decode_time: u64,
    /// Its duration.
    pub first_duration: u32,
    /// Video: its composition offset.
    pub first_offset: i32,
}

/// Appends a copy of a [`fragment`] that has one run, with other times of its first sample. Nothing is appended for what is
/// too short to be one.
pub fn retimed(fragment: &[u8], video: bool, times: Times, out: &mut Vec<u8>) {
    // `moof`, `mfhd`, the head of `traf`, `tfhd`, then `tfdt` with its head of 12 and its 8 bytes.
    let decode_time = 8 + 16 + 8 + if video { 16 } else { 20 } + 12;
    // The head of `trun` of 20 bytes, then duration, size, flags and offset of the first sample.
    let duration = decode_time + 8 + 20;
    let Some((head, rest)) = fragment.split_at_checked(duration + 16) else { return };
    let at = out.len();
    out.extend_from_slice(head);
    out.extend_from_slice(rest);
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(place) = out.get_mut(at + offset..at + offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(decode_time, &times.decode_time.to_be_bytes());
    put(duration, &times.first_duration.to_be_bytes());
    if video {
        put(duration + 12, &times.first_offset.to_be_bytes());
    }
}

fn traf_size(run: &Run<'_>) -> usize {
    8 + tfhd_size(run) + 20 + trun_size(run)
}

fn tfhd_size(run: &Run<'_>) -> usize {
    if run.video { 16 } else { 20 }
}

fn trun_size(run: &Run<'_>) -> usize {
    match run.samples.len() {
        0 => 0,
        count => 20 + count * if run.video { 16 } else { 8 },
    }
}

fn traf(out: &mut Vec<u8>, run: &Run<'_>, data_offset: usize) {
    header(out, traf_size(run), b"traf");
    header(out, tfhd_size(run), b"tfhd");
    // default-base-is-moof; audio also has default-sample-flags.
    word(out, if run.video { 0x0002_0000 } else { 0x0002_0020 });
    word(out, run.track_id);
    if !run.video {
        word(out, SYNC);
    }
    header(out, 20, b"tfdt");
    word(out, 0x0100_0000);
    out.extend_from_slice(&run.decode_time.to_be_bytes());
    if run.samples.is_empty() {
        return;
    }
    header(out, trun_size(run), b"trun");
    // Version 1 (signed composition offsets): data offset, then duration and size, for video also flags and offset.
    word(out, 0x0100_0000 | 0x301 | if run.video { 0xc00 } else { 0 });
    word(out, run.samples.len() as u32);
    word(out, data_offset as u32);
    for sample in run.samples {
        word(out, sample.duration);
        word(out, sample.data.len() as u32);
        if run.video {
            word(out, if sample.keyframe { SYNC } else { DEPENDS });
            out.extend_from_slice(&sample.composition_offset.to_be_bytes());
        }
    }
}

fn header(out: &mut Vec<u8>, size: usize, kind: &[u8; 4]) {
    word(out, size as u32);
    out.extend_from_slice(kind);
}

fn word(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use mp4_atom::{Decode, Mdat, Moof};

    fn sample(duration: u32, offset: i32, keyframe: bool, data: &'static [u8]) -> Sample {
        Sample { duration, composition_offset: offset, keyframe, data: Bytes::from_static(data) }
    }

    #[test]
    fn a_fragment_is_read_back_by_another_reader() {
        let video = [sample(3000, 6000, true, b"key"), sample(3600, -9, false, b"delta")];
        let audio = [sample(1024, 0, true, b"sound")];
        let decode_time = 1 << 40;
        let runs = [
            Run { track_id: 1, video: true, decode_time, samples: &video },
            Run { track_id: 2, video: false, decode_time: 7, samples: &audio },
            Run { track_id: 3, video: false, decode_time: 8, samples: &[] },
        ];
        let bytes = fragment(42, &runs);
        let mut rest = &bytes[..];
        let moof = Moof::decode(&mut rest).unwrap();
        let mdat = Mdat::decode(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!(moof.mfhd.sequence_number, 42);
        assert_eq!(moof.traf.len(), 3);
        let (first, second, third) = (&moof.traf[0], &moof.traf[1], &moof.traf[2]);
        assert_eq!(first.tfdt.as_ref().unwrap().base_media_decode_time, 1 << 40);
        assert_eq!(third.trun.len(), 0);
        let entries: Vec<_> = first.trun[0].samples.iter().collect();
        assert_eq!((entries[0].duration, entries[0].size, entries[0].cts), (Some(3000), Some(3), Some(6000)));
        assert_eq!((entries[0].flags, entries[1].flags), (Some(SYNC), Some(DEPENDS)));
        assert_eq!(entries[1].cts, Some(-9));
        for (traf, text) in [(first, &b"keydelta"[..]), (second, b"sound")] {
            let at = usize::try_from(traf.trun[0].data_offset.unwrap()).unwrap();
            assert_eq!(&bytes[at..at + text.len()], text);
        }
        assert_eq!(mdat.data, b"keydeltasound");
    }

    #[test]
    fn a_copy_has_other_times_and_nothing_else() {
        let samples = [sample(3000, 6000, true, b"key"), sample(3600, -9, false, b"delta")];
        for video in [true, false] {
            let run = |decode_time, samples| [Run { track_id: 1, video, decode_time, samples }];
            let before = fragment(42, &run(1 << 40, &samples));
            let changed = [sample(7, if video { -5 } else { 6000 }, true, b"key"), samples[1].clone()];
            let after = fragment(42, &run(8, &changed));
            let mut copy = b"before".to_vec();
            let times = Times { decode_time: 8, first_duration: 7, first_offset: -5 };
            retimed(&before, video, times, &mut copy);
            assert_eq!(copy[6..], after[..], "video: {video}");
            retimed(&before[..80], video, times, &mut copy);
            assert_eq!(copy.len(), 6 + after.len());
        }
    }
}
