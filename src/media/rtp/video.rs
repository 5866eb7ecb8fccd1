//! The video part of the [normalizer](super::normalize), whose words say what it does.

use super::normalize::{Incoming, Noted, Piece};
use super::payload::{Cutter, Format, Fragment, Kind, NalHeader, Payload, Slice, entries};
use super::sets::{Sets, whole_nal};
use super::video_state::{Boundary, Gathered, Gop, OpenNal, Previous, Route, Start, Summary, Unit, Waiting};
use crate::media::h264::SliceType;
use crate::media::track::{Params, Reordering, Track};
use std::sync::Arc;

/// Largest NAL unit that is passed on, in bytes.
const MAX_NAL: usize = 4 << 20;
/// What may wait for its slice: payloads and bytes.
const MAX_GATHERED: (usize, usize) = (64, 256 << 10);
/// Access units without an IDR picture after which an I slice counts as a keyframe.
const IDR_OVERDUE: u32 = 300;
/// Access units with a right marker after which the marker is trusted again.
const MARKER_TRUSTED: u8 = 32;

#[derive(Debug)]
pub(crate) struct Video {
    format: Format,
    max: usize,
    known: Sets,
    params: Params,
    /// The known parameter sets, ready to be sent.
    prelude: Vec<Arc<[u8]>>,
    rules_reordering_out: bool,
    waiting: Option<Waiting>,
    boundary: Boundary,
    previous: Previous,
    unit: Option<Unit>,
    gathered: Gathered,
    nal: Option<OpenNal>,
    /// The timestamp of the last unit that was counted.
    counted: Option<u32>,
    gop: Gop,
    /// Since the last IDR picture; `None` before the first.
    units_since_idr: Option<u32>,
    /// The NAL unit type that keyframes' access units begin with, here.
    leader: Option<u8>,
}

impl Video {
    pub(crate) fn new(track: &Track, max: usize) -> Option<Self> {
        let format = Format::of(track.codec)?;
        let mut video = Video {
            format,
            max,
            known: Sets::of(&track.params),
            params: Params::None,
            prelude: Vec::new(),
            rules_reordering_out: false,
            waiting: Some(Waiting::FirstKeyframe),
            boundary: Boundary::Marker,
            previous: Previous::None,
            unit: None,
            gathered: Gathered::default(),
            nal: None,
            counted: None,
            gop: Gop::default(),
            units_since_idr: None,
            leader: None,
        };
        video.adopt_params();
        Some(video)
    }

    pub(crate) fn params(&self) -> &Params {
        &self.params
    }

    pub(crate) fn push(&mut self, rtp: Incoming<'_>, out: &mut Vec<Piece>) -> Noted {
        let mut noted = Noted::default();
        let before = out.len();
        if rtp.loss {
            self.damage(&mut noted, out);
        }
        self.end_unit_before(rtp.timestamp, &mut noted, out);
        let start = self.start(rtp.timestamp);
        match self.format.read(rtp.payload) {
            Payload::Single(nal) => {
                self.whole(rtp, start, || std::iter::once(nal), &mut noted, out);
            }
            Payload::Aggregate(list) => self.whole(rtp, start, || entries(list), &mut noted, out),
            Payload::Fragment(fragment) => self.fragment(rtp, start, fragment, &mut noted, out),
            Payload::Ignored => noted.dropped |= !rtp.payload.is_empty(),
            Payload::Broken => self.damage(&mut noted, out),
        }
        // Inside a NAL unit a marker means nothing.
        let marker = rtp.marker && self.nal.is_none();
        if let (Boundary::Marker, true, Some(unit)) = (&self.boundary, marker, &mut self.unit)
            && unit.timestamp == rtp.timestamp
            && !unit.ended
        {
            if !unit.admitted {
                unit.ended = true;
            } else if out.len() > before
                && let Some(last) = out.last_mut()
            {
                last.ends_unit = true;
                unit.ended = true;
            }
        }
        self.previous = Previous::Packet { timestamp: rtp.timestamp, marker };
        noted.dropped |= self.waiting == Some(Waiting::Damaged) && self.gathered.payloads.is_empty();
        noted
    }

    fn start(&self, timestamp: u32) -> Start {
        match self.previous {
            Previous::None => Start::Assumed,
            Previous::Lost { after } if after == Some(timestamp) => Start::No,
            Previous::Lost { .. } => Start::Unknown,
            Previous::Packet { timestamp: before, .. } if before != timestamp => Start::Yes,
            Previous::Packet { marker: true, .. } if matches!(self.boundary, Boundary::Marker) => Start::Yes,
            Previous::Packet { .. } => Start::No,
        }
    }

    /// A packet with another timestamp ends the unit, marker or not.
    fn end_unit_before(&mut self, timestamp: u32, noted: &mut Noted, out: &mut Vec<Piece>) {
        let marked = matches!(self.previous, Previous::Packet { marker: true, .. });
        let Some(unit) = self.unit.as_mut().filter(|unit| !unit.ended) else { return };
        if unit.timestamp == timestamp {
            if let (Boundary::NextUnit { right_markers, .. }, true) = (&mut self.boundary, marked) {
                *right_markers = 0;
            }
            return;
        }
        if self.nal.is_some() {
            self.damage(noted, out);
            return;
        }
        unit.ended = true;
        match &mut self.boundary {
            Boundary::Marker if unit.admitted => {
                self.boundary = Boundary::NextUnit { last: None, right_markers: 0 };
            }
            Boundary::Marker => {}
            Boundary::NextUnit { last, right_markers } => {
                if let Some(mut piece) = last.take() {
                    piece.ends_unit = unit.admitted;
                    out.push(piece);
                }
                *right_markers = if marked { *right_markers + 1 } else { 0 };
                if *right_markers >= MARKER_TRUSTED {
                    self.boundary = Boundary::Marker;
                }
            }
        }
    }

    /// Gives up on everything until the next keyframe.
    fn damage(&mut self, noted: &mut Noted, out: &mut Vec<Piece>) {
        if self.waiting != Some(Waiting::FirstKeyframe) {
            self.waiting = Some(Waiting::Damaged);
            noted.dropped = true;
        }
        if let Boundary::NextUnit { last, .. } = &mut self.boundary {
            out.extend(last.take());
        }
        self.nal = None;
        self.unit = None;
        self.gathered = Gathered::default();
        let after = match self.previous {
            Previous::None => None,
            Previous::Lost { after } => after,
            Previous::Packet { timestamp, .. } => Some(timestamp),
        };
        self.previous = Previous::Lost { after };
    }

    /// A packet of whole NAL units.
    fn whole<'a, I: Iterator<Item = &'a [u8]>>(
        &mut self,
        rtp: Incoming<'_>,
        start: Start,
        nals: impl Fn() -> I,
        noted: &mut Noted,
        out: &mut Vec<Piece>,
    ) {
        if self.nal.is_some() {
            self.damage(noted, out);
        }
        let route = self.route(Summary::of(self.format, nals()), rtp.timestamp, start, noted, out);
        if route == Route::Drop {
            return;
        }
        if rtp.payload.len() <= self.max {
            self.place(route, rtp.payload.into(), out);
            return;
        }
        for nal in nals() {
            whole_nal(self.format, nal, self.max, |payload| self.place(route, payload, out));
        }
    }

    fn fragment(
        &mut self,
        rtp: Incoming<'_>,
        start: Start,
        fragment: Fragment<'_>,
        noted: &mut Noted,
        out: &mut Vec<Piece>,
    ) {
        let Fragment { header, body, .. } = fragment;
        if fragment.start {
            if fragment.end {
                // RFC 6184 §5.8 forbids it, cameras do it: the whole NAL unit in one fragment.
                let nal = [header.get(..self.format.header_len()).unwrap_or(&header), body].concat();
                let rtp = Incoming { payload: &nal, ..rtp };
                self.whole(rtp, start, || std::iter::once(nal.as_slice()), noted, out);
                return;
            }
            self.open_nal(rtp, start, header, body, noted, out);
        }
        let format = self.format;
        let Some(mut nal) = self.nal.take() else {
            if self.waiting.is_none() {
                self.damage(noted, out);
            }
            return;
        };
        nal.bytes += body.len();
        if nal.nal_type != format.nal_type(header[0]) || nal.timestamp != rtp.timestamp || nal.bytes > MAX_NAL
        {
            self.damage(noted, out);
            return;
        }
        if nal.route != Route::Drop {
            if nal.cutter.passes(rtp.payload) {
                self.place(nal.route, rtp.payload.into(), out);
            } else {
                nal.cutter.push(body, fragment.end, |payload| self.place(nal.route, payload, out));
            }
        }
        if !fragment.end {
            self.nal = Some(nal);
        }
    }

    fn open_nal(
        &mut self,
        rtp: Incoming<'_>,
        start: Start,
        header: NalHeader,
        body: &[u8],
        noted: &mut Noted,
        out: &mut Vec<Piece>,
    ) {
        if self.nal.is_some() {
            self.damage(noted, out);
        }
        // Enough for a slice header's first two fields.
        let mut head = Vec::with_capacity(24);
        head.extend(header.iter().take(self.format.header_len()));
        head.extend(body.iter().take(20));
        let mut summary = Summary::of(self.format, std::iter::once(head.as_slice()));
        // No parameter set is so large that it must be fragmented.
        summary.sets = Sets::default();
        let route = self.route(summary, rtp.timestamp, start, noted, out);
        self.nal = Some(OpenNal {
            nal_type: self.format.nal_type(header[0]),
            timestamp: rtp.timestamp,
            route,
            bytes: 0,
            cutter: Cutter::new(self.format, header, self.max),
        });
    }

    /// Decides where a packet goes, and opens its access unit if it is the first with a slice.
    fn route(
        &mut self,
        summary: Summary,
        timestamp: u32,
        start: Start,
        noted: &mut Noted,
        out: &mut Vec<Piece>,
    ) -> Route {
        let slice_type = summary.slice.and_then(|slice| slice.slice_type);
        noted.reordered |= slice_type == Some(SliceType::B) && !self.rules_reordering_out;
        if let Some(unit) = self.unit.filter(|unit| unit.timestamp == timestamp && !unit.ended) {
            return if unit.admitted { Route::Unit } else { Route::Drop };
        }
        let Some(slice) = summary.slice else {
            if summary.only_suffixes {
                return Route::Drop;
            }
            self.gathered.start.get_or_insert((start, summary.first_type));
            let sets = std::mem::take(&mut self.gathered.sets);
            self.gathered.sets = sets.or(summary.sets);
            return Route::Gather { delimiter: summary.only_delimiters };
        };
        if !slice.first_in_picture && self.unit.is_some_and(|unit| unit.timestamp == timestamp) {
            // The marker came in the middle of the picture.
            self.boundary = Boundary::NextUnit { last: None, right_markers: 0 };
            self.damage(noted, out);
        }
        self.open_unit(summary, slice, timestamp, start, noted, out)
    }

    fn open_unit(
        &mut self,
        summary: Summary,
        slice: Slice,
        timestamp: u32,
        start: Start,
        noted: &mut Noted,
        out: &mut Vec<Piece>,
    ) -> Route {
        let gathered = std::mem::take(&mut self.gathered);
        let (start, first_type) = gathered.start.unwrap_or((start, summary.first_type));
        let sets = gathered.sets.or(summary.sets);
        let keyframe = slice.first_in_picture && (slice.key || self.counts_as_keyframe(slice, &sets));
        if self.counted.replace(timestamp) != Some(timestamp) {
            noted.access_units += 1;
            self.units_since_idr = self.units_since_idr.map(|units| units.saturating_add(1));
        }
        if slice.key {
            self.units_since_idr = Some(0);
        }
        noted.reordered |= self.gop.runs_back(timestamp, keyframe) && !self.rules_reordering_out;
        let brings_all_sets = sets.params(self.format).is_some();
        self.learn_sets(sets, keyframe, noted);
        let begins = match start {
            _ if gathered.overflowed => false,
            Start::Yes | Start::Assumed => true,
            Start::Unknown => self.looks_like_a_beginning(first_type),
            Start::No => false,
        };
        if keyframe && begins && (start == Start::Yes || self.leader.is_none()) {
            self.leader = Some(first_type);
        }
        if gathered.overflowed || self.waiting.is_none() && !slice.first_in_picture {
            self.damage(noted, out);
        }
        let admitted = self.waiting.is_none() || keyframe && begins && self.params != Params::None;
        self.unit = Some(Unit { timestamp, admitted, keyframe, fresh: true, ended: false });
        if !admitted {
            return Route::Drop;
        }
        self.waiting = None;
        let delimiters = gathered.payloads.iter().take_while(|(_, delimiter)| *delimiter).count();
        let mut payloads: Vec<Arc<[u8]>> =
            gathered.payloads.into_iter().map(|(payload, _)| payload).collect();
        if keyframe && !brings_all_sets {
            payloads.splice(delimiters..delimiters, self.prelude.iter().cloned());
        }
        for payload in payloads {
            self.place(Route::Unit, payload, out);
        }
        Route::Unit
    }

    fn counts_as_keyframe(&self, slice: Slice, sets: &Sets) -> bool {
        self.format == Format::H264
            && slice.slice_type == Some(SliceType::I)
            && sets.sps.is_some()
            && self.units_since_idr.is_none_or(|units| units > IDR_OVERDUE)
    }

    /// Whether a keyframe whose first NAL unit is of this type is likely to be whole, although something was lost right
    /// before it.
    fn looks_like_a_beginning(&self, nal_type: u8) -> bool {
        let header = if self.format == Format::H264 { nal_type } else { nal_type << 1 };
        match self.leader {
            Some(leader) => leader == nal_type,
            None => {
                matches!(
                    self.format.kind(header),
                    Kind::Delimiter | Kind::Vps | Kind::Sps | Kind::Slice { .. }
                )
            }
        }
    }

    /// In-band parameter sets count at keyframes; before that only where none are known.
    fn learn_sets(&mut self, sets: Sets, keyframe: bool, noted: &mut Noted) {
        let known = self.known.clone();
        let updated = if keyframe { sets.or(known) } else { known.or(sets) };
        if updated != self.known {
            self.known = updated;
            if self.adopt_params() {
                noted.params = Some(self.params.clone());
            }
        }
    }

    /// Whether the known sets are all that is needed.
    fn adopt_params(&mut self) -> bool {
        let Some(params) = self.known.params(self.format) else { return false };
        self.prelude = self.known.payloads(self.format, self.max);
        let sps = self.known.sps.as_deref().unwrap_or_default();
        let info = match self.format {
            Format::H264 => crate::media::h264::parse_sps(sps),
            Format::H265 => crate::media::h265::parse_sps(sps),
        };
        self.rules_reordering_out = info.is_some_and(|info| info.reordering == Reordering::No);
        self.params = params;
        true
    }

    fn place(&mut self, route: Route, payload: Arc<[u8]>, out: &mut Vec<Piece>) {
        match route {
            Route::Drop => {}
            Route::Gather { delimiter } => {
                let gathered = &mut self.gathered;
                gathered.bytes += payload.len();
                gathered.overflowed |=
                    gathered.payloads.len() >= MAX_GATHERED.0 || gathered.bytes > MAX_GATHERED.1;
                if gathered.overflowed {
                    gathered.payloads.clear();
                } else {
                    gathered.payloads.push((payload, delimiter));
                }
            }
            Route::Unit => {
                let Some(unit) = &mut self.unit else { return };
                let piece = Piece {
                    payload,
                    timestamp: unit.timestamp,
                    starts_unit: unit.fresh,
                    ends_unit: false,
                    keyframe: unit.fresh && unit.keyframe,
                };
                unit.fresh = false;
                match &mut self.boundary {
                    Boundary::Marker => out.push(piece),
                    Boundary::NextUnit { last, .. } => out.extend(last.replace(piece)),
                }
            }
        }
    }
}
