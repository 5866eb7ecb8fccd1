//! Fragments, read with `mp4-atom`.
#![allow(dead_code, reason = "each test binary uses its own part")]

use mp4_atom::{Any, Decode, Moof};
use std::collections::BTreeMap;

pub struct Fragment {
    pub tracks: Vec<Track>,
}

pub struct Track {
    pub id: u32,
    pub decode_time: u64,
    pub duration: u64,
    pub keyframes: Vec<bool>,
    /// Presentation minus decode time, in ticks.
    pub offsets: Vec<i64>,
}

/// All fragments in these bytes.
pub fn fragment(mut bytes: &[u8]) -> Vec<Fragment> {
    let mut fragments = Vec::new();
    while !bytes.is_empty() {
        match Any::decode(&mut bytes).expect("whole boxes") {
            Any::Moof(moof) => fragments.push(Fragment { tracks: tracks(&moof) }),
            Any::Mdat(_) => {}
            other => panic!("unexpected box {other:?}"),
        }
    }
    fragments
}

fn tracks(moof: &Moof) -> Vec<Track> {
    let track = |traf: &mp4_atom::Traf| {
        let entries: Vec<_> =
            traf.trun.iter().flat_map(|trun| trun.samples.iter().collect::<Vec<_>>()).collect();
        Track {
            id: traf.tfhd.track_id,
            decode_time: traf.tfdt.as_ref().expect("tfdt").base_media_decode_time,
            duration: entries.iter().map(|entry| u64::from(entry.duration.expect("a duration"))).sum(),
            keyframes: entries
                .iter()
                .map(|entry| entry.flags.is_none_or(|flags| flags & 0x1_0000 == 0))
                .collect(),
            offsets: entries.iter().map(|entry| entry.cts.unwrap_or(0)).collect(),
        }
    };
    moof.traf.iter().map(track).collect()
}

/// Ticks a second of each track of an init segment.
pub fn timescales(mut init: &[u8]) -> BTreeMap<u32, u32> {
    while !init.is_empty() {
        if let Any::Moov(moov) = Any::decode(&mut init).expect("whole boxes") {
            return moov.trak.iter().map(|trak| (trak.tkhd.track_id, trak.mdia.mdhd.timescale)).collect();
        }
    }
    panic!("no moov");
}
