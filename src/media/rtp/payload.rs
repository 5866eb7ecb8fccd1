//! The RTP payload formats of H.264 (RFC 6184) and H.265 (RFC 7798) behind one face: what a payload holds, and how
//! NAL units are put into payloads.

use crate::media::codec::Codec;
use crate::media::h264::{self, SliceType};
use crate::media::h265;
use std::sync::Arc;

/// One of the two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    H264,
    H265,
}

/// A NAL unit's header. H.264 has one byte, the second is 0 then.
pub(crate) type NalHeader = [u8; 2];

/// What a payload holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// One NAL unit.
    Single(&'a [u8]),
    /// Several NAL units (STAP-A, AP), each behind its length in two bytes. Checked.
    Aggregate(&'a [u8]),
    /// A part of a NAL unit (FU-A, FU).
    Fragment(Fragment<'a>),
    /// Nothing that a decoder would use.
    Ignored,
    /// Malformed, or of an interleaved mode that nobody negotiated.
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    pub start: bool,
    pub end: bool,
    /// The fragmented NAL unit's header.
    pub header: NalHeader,
    /// A part of what follows that header. Never empty.
    pub body: &'a [u8],
}

/// What a NAL unit is to its access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Picture data; `key`: of an IDR or IRAP picture.
    Slice {
        key: bool,
    },
    Vps,
    Sps,
    Pps,
    /// Access unit delimiter.
    Delimiter,
    /// Anything else that comes before the picture it belongs to.
    Prefix,
    /// Anything else that comes after the picture's first slice.
    Suffix,
}

/// The start of a slice, as far as it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub key: bool,
    pub first_in_picture: bool,
    /// H.264 only.
    pub slice_type: Option<SliceType>,
}

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const AP: u8 = 48;
const FU: u8 = 49;

impl Format {
    pub(crate) fn of(codec: Codec) -> Option<Format> {
        match codec {
            Codec::H264 => Some(Format::H264),
            Codec::H265 => Some(Format::H265),
            Codec::Jpeg | Codec::Aac | Codec::Opus | Codec::Pcma | Codec::Pcmu => None,
        }
    }

    /// Bytes of a NAL unit header.
    pub(crate) fn header_len(self) -> usize {
        match self {
            Format::H264 => 1,
            Format::H265 => 2,
        }
    }

    pub(crate) fn nal_type(self, header: u8) -> u8 {
        match self {
            Format::H264 => h264::nal_type(header),
            Format::H265 => h265::nal_type(header),
        }
    }

    /// The header of a whole NAL unit. `None` if it is too short, damaged, or no NAL unit but a payload structure.
    pub(crate) fn header(self, nal: &[u8]) -> Option<NalHeader> {
        match (self, nal) {
            (Format::H264, [first, ..])
                if first & 0x80 == 0 && (1..STAP_A).contains(&h264::nal_type(*first)) =>
            {
                Some([*first, 0])
            }
            (Format::H265, [first, second, ..])
                if first & 0x80 == 0 && second & 7 != 0 && h265::nal_type(*first) < AP =>
            {
                Some([*first, *second])
            }
            _ => None,
        }
    }

    /// Reads a payload. Total: whatever can't be read is `Broken`.
    pub(crate) fn read(self, payload: &[u8]) -> Payload<'_> {
        match (self, payload) {
            (_, []) => Payload::Ignored,
            (Format::H264, [first, rest @ ..]) if first & 0x80 == 0 => match h264::nal_type(*first) {
                STAP_A => self.read_aggregate(rest),
                FU_A => self.read_fragment(|kind| [first & 0x60 | kind & 0x1f, 0], rest),
                0 | 30.. => Payload::Ignored,
                25..=29 => Payload::Broken,
                _ => Payload::Single(payload),
            },
            (Format::H265, [first, second, rest @ ..]) if first & 0x80 == 0 && second & 7 != 0 => {
                match h265::nal_type(*first) {
                    AP => self.read_aggregate(rest),
                    FU => self.read_fragment(|kind| [first & 0x81 | (kind & 0x3f) << 1, *second], rest),
                    50 => Payload::Broken,
                    51.. => Payload::Ignored,
                    _ => Payload::Single(payload),
                }
            }
            _ => Payload::Broken,
        }
    }

    fn read_aggregate(self, entries: &[u8]) -> Payload<'_> {
        let mut rest = entries;
        while let Some((nal, after)) = split_entry(rest) {
            if self.header(nal).is_none() {
                return Payload::Broken;
            }
            rest = after;
        }
        if rest.is_empty() && !entries.is_empty() { Payload::Aggregate(entries) } else { Payload::Broken }
    }

    fn read_fragment(self, header: impl Fn(u8) -> NalHeader, rest: &[u8]) -> Payload<'_> {
        match rest {
            [flags, body @ ..] if !body.is_empty() && self.header(&header(*flags)).is_some() => {
                Payload::Fragment(Fragment {
                    start: flags & 0x80 != 0,
                    end: flags & 0x40 != 0,
                    header: header(*flags),
                    body,
                })
            }
            _ => Payload::Broken,
        }
    }

    pub(crate) fn kind(self, header: u8) -> Kind {
        use h265::nal_type as hevc;
        match (self, self.nal_type(header)) {
            (Format::H264, 1..=5) => Kind::Slice { key: self.nal_type(header) == h264::nal_type::IDR },
            (Format::H264, h264::nal_type::SPS) => Kind::Sps,
            (Format::H264, h264::nal_type::PPS) => Kind::Pps,
            (Format::H264, h264::nal_type::AUD) => Kind::Delimiter,
            // SEI, SPS extension, prefix NAL, subset SPS and what is reserved for their kind (§7.4.1.2.3).
            (Format::H264, h264::nal_type::SEI | 13..=18) => Kind::Prefix,
            (Format::H264, _) => Kind::Suffix,
            (Format::H265, nal_type) if h265::is_vcl(nal_type) => {
                Kind::Slice { key: h265::is_irap(nal_type) }
            }
            (Format::H265, hevc::VPS) => Kind::Vps,
            (Format::H265, hevc::SPS) => Kind::Sps,
            (Format::H265, hevc::PPS) => Kind::Pps,
            (Format::H265, hevc::AUD) => Kind::Delimiter,
            (Format::H265, hevc::PREFIX_SEI | 41..=44) => Kind::Prefix,
            (Format::H265, _) => Kind::Suffix,
        }
    }

    /// The start of a slice's header; `nal` may be just the beginning of the NAL unit. `None` for other NAL units.
    pub(crate) fn slice(self, nal: &[u8]) -> Option<Slice> {
        let header = *nal.first()?;
        let Kind::Slice { key } = self.kind(header) else { return None };
        let mut slice = Slice { key, first_in_picture: false, slice_type: None };
        match self {
            // Data partitions B and C have no slice header and are never first.
            Format::H264 if matches!(h264::nal_type(header), 1 | 2 | 5) => {
                if let Some(read) = h264::slice_header(nal) {
                    slice.first_in_picture = read.first_in_picture;
                    slice.slice_type = read.slice_type;
                }
            }
            Format::H264 => {}
            Format::H265 => slice.first_in_picture = h265::first_slice_segment_in_pic(nal).unwrap_or(false),
        }
        Some(slice)
    }

    /// One payload with all of `nals` (STAP-A, AP), if they fit into `max` bytes.
    pub(crate) fn aggregate(self, nals: &[&[u8]], max: usize) -> Option<Arc<[u8]>> {
        let mut payload = match self {
            // The highest importance of those inside (RFC 6184 §5.7.1).
            Format::H264 => vec![STAP_A | nals.iter().filter_map(|nal| nal.first()).map(|h| h & 0x60).max()?],
            // The lowest layer and temporal identifier of those inside (RFC 7798 §4.4.2): parameter sets have 0.
            Format::H265 => vec![AP << 1, nals.iter().filter_map(|nal| nal.get(1)).map(|h| h & 7).min()?],
        };
        for nal in nals {
            payload.extend_from_slice(&u16::try_from(nal.len()).ok()?.to_be_bytes());
            payload.extend_from_slice(nal);
        }
        (payload.len() <= max).then(|| payload.into())
    }

    /// What stands in front of a fragment's body: two bytes for H.264, three for H.265.
    fn fragment_prefix(self, [first, second]: NalHeader, start: bool, end: bool, out: &mut Vec<u8>) {
        let flags = u8::from(start) << 7 | u8::from(end) << 6;
        match self {
            Format::H264 => out.extend_from_slice(&[first & 0xe0 | FU_A, flags | first & 0x1f]),
            Format::H265 => {
                out.extend_from_slice(&[first & 0x81 | FU << 1, second, flags | h265::nal_type(first)])
            }
        }
    }
}

fn split_entry(entries: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = entries.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The NAL units of an aggregate.
pub(crate) fn entries(entries: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let (nal, after) = split_entry(rest)?;
        rest = after;
        Some(nal)
    })
}

/// Cuts one NAL unit into fragments, also while it is still coming in. All fragments but the last have exactly `max`
/// bytes, so that a sender can batch them.
#[derive(Debug)]
pub(crate) struct Cutter {
    format: Format,
    header: NalHeader,
    max: usize,
    started: bool,
    /// What doesn't fill a fragment yet. Once it holds something it does so until the end, so that there always is a
    /// byte left for the last fragment. At most `max` bytes.
    carry: Vec<u8>,
}

impl Cutter {
    pub(crate) fn new(format: Format, header: NalHeader, max: usize) -> Self {
        Cutter { format, header, max, started: false, carry: Vec::new() }
    }

    /// Whether a received fragment may pass untouched: it is small enough and nothing waits in front of it.
    pub(crate) fn passes(&mut self, payload: &[u8]) -> bool {
        let passes = payload.len() <= self.max && self.carry.is_empty();
        self.started |= passes;
        passes
    }

    /// Takes the next part of the NAL unit's body.
    pub(crate) fn push(&mut self, mut body: &[u8], last: bool, mut emit: impl FnMut(Arc<[u8]>)) {
        let room = self.max.saturating_sub(self.format.header_len() + 1).max(1);
        while self.carry.len() + body.len() > room {
            let (head, rest) = body.split_at(room.saturating_sub(self.carry.len()));
            emit(self.fragment(head, false));
            body = rest;
        }
        if last {
            emit(self.fragment(body, true));
        } else {
            self.carry.extend_from_slice(body);
        }
    }

    fn fragment(&mut self, body: &[u8], end: bool) -> Arc<[u8]> {
        let mut payload = Vec::with_capacity(3 + self.carry.len() + body.len());
        self.format.fragment_prefix(self.header, !self.started, end, &mut payload);
        payload.append(&mut self.carry);
        payload.extend_from_slice(body);
        self.started = true;
        payload.into()
    }
}
