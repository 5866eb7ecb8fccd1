//! What the [video normalizer](super::video) keeps in mind between packets.

use super::normalize::Piece;
use super::payload::{Cutter, Format, Kind, Slice};
use super::sets::Sets;
use std::sync::Arc;

/// B-frames lie at most this far behind, in ticks of 90 kHz.
const MAX_BACK: i32 = 2 * 90_000;

/// Why nothing comes out until the next keyframe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    FirstKeyframe,
    Damaged,
}

/// How the end of an access unit is told.
#[derive(Debug)]
pub(crate) enum Boundary {
    Marker,
    /// By the next packet's timestamp; the latest piece waits for it.
    NextUnit {
        last: Option<Piece>,
        right_markers: u8,
    },
}

/// The packet before, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Previous {
    None,
    /// Unknown; the last one that is known had this timestamp.
    Lost {
        after: Option<u32>,
    },
    Packet {
        timestamp: u32,
        marker: bool,
    },
}

/// Whether a packet is the first of its access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Yes,
    /// It is the first one ever: sources begin where a unit begins.
    Assumed,
    /// Something is missing before it.
    Unknown,
    No,
}

/// The access unit whose slices are coming.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) timestamp: u32,
    pub(crate) admitted: bool,
    pub(crate) keyframe: bool,
    /// Nothing of it has come out yet.
    pub(crate) fresh: bool,
    pub(crate) ended: bool,
}

/// What precedes a slice that hasn't come yet.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Payloads; whether each is just a delimiter.
    pub(crate) payloads: Vec<(Arc<[u8]>, bool)>,
    pub(crate) bytes: usize,
    /// Too much came without a slice; it was thrown away.
    pub(crate) overflowed: bool,
    pub(crate) sets: Sets,
    /// How it began: with what NAL unit type.
    pub(crate) start: Option<(Start, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    Unit,
    Gather { delimiter: bool },
    Drop,
}

/// A NAL unit whose fragments are coming.
#[derive(Debug)]
pub(crate) struct OpenNal {
    pub(crate) nal_type: u8,
    pub(crate) timestamp: u32,
    pub(crate) route: Route,
    pub(crate) bytes: usize,
    pub(crate) cutter: Cutter,
}

/// How the timestamps run since the last keyframe.
#[derive(Debug, Default)]
pub(crate) struct Gop {
    highest: Option<u32>,
    back: u8,
}

/// What a packet's NAL units are.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) first_type: u8,
    pub(crate) first_kind: Option<Kind>,
    pub(crate) slice: Option<Slice>,
    pub(crate) sets: Sets,
    pub(crate) only_suffixes: bool,
    pub(crate) only_delimiters: bool,
}

impl Summary {
    pub(crate) fn of<'a>(format: Format, nals: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut summary = Summary { only_suffixes: true, only_delimiters: true, ..Summary::default() };
        for nal in nals {
            let Some(&header) = nal.first() else { continue };
            let kind = format.kind(header);
            if summary.first_kind.is_none() {
                summary.first_kind = Some(kind);
                summary.first_type = format.nal_type(header);
            }
            summary.slice = summary.slice.or_else(|| format.slice(nal));
            summary.sets.note(kind, nal);
            summary.only_suffixes &= kind == Kind::Suffix;
            summary.only_delimiters &= kind == Kind::Delimiter;
        }
        summary
    }
}

impl Gop {
    /// Takes the next access unit's timestamp. Whether the GOP's timestamps have run back more than once.
    pub(crate) fn runs_back(&mut self, timestamp: u32, keyframe: bool) -> bool {
        let ahead = self.highest.map_or(0, |highest| timestamp.wrapping_sub(highest) as i32);
        if keyframe {
            *self = Gop { highest: Some(timestamp), back: 0 };
        } else if ahead < 0 && ahead > -MAX_BACK {
            self.back = self.back.saturating_add(1);
        } else {
            self.highest = Some(timestamp);
        }
        self.back > 1
    }
}
