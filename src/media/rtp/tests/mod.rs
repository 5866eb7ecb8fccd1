//! The whole way: frames → packets → (loss, disorder) → normalizer → frames.

mod damage;
mod quirks;
mod round_trip;

use super::depacketize::Depacketizer;
use super::normalize::{Incoming, Normalizer, Noted, Piece};
use super::payload::{Format, Kind, Payload, entries};
use crate::media::nal::length_prefixed_nals;
use crate::media::{Codec, Frame, Packet, Params, StreamTime, Track};
use bytes::Bytes;

pub(super) fn track(codec: Codec, params: Params) -> Track {
    Track { codec, clock_rate: 90_000, channels: 0, params }
}

/// NAL units of one codec, as far as the formats look at them.
pub(super) struct Nals(pub Codec);

impl Nals {
    fn pick(&self, h264: &[u8], h265: &[u8]) -> Vec<u8> {
        if self.0 == Codec::H264 { h264.to_vec() } else { h265.to_vec() }
    }
    pub fn delimiter(&self) -> Vec<u8> {
        self.pick(&[0x09, 0xf0], &[0x46, 1, 0x50])
    }
    pub fn vps(&self) -> Vec<u8> {
        vec![0x40, 1, 0x0c]
    }
    pub fn sps(&self) -> Vec<u8> {
        self.pick(&[0x67, 100, 0, 31, 0xff], &[0x42, 1, 0x01])
    }
    pub fn pps(&self) -> Vec<u8> {
        self.pick(&[0x68, 0xeb, 0xe3], &[0x44, 1, 0xc1])
    }
    pub fn sei(&self) -> Vec<u8> {
        self.pick(&[0x06, 5, 1, 0xff], &[0x4e, 1, 5, 0xff])
    }
    pub fn key(&self, first: bool) -> Vec<u8> {
        if first {
            self.pick(&[0x65, 0x88], &[0x26, 1, 0x80])
        } else {
            self.pick(&[0x65, 0x44], &[0x26, 1, 0x01])
        }
    }
    pub fn inter(&self, first: bool) -> Vec<u8> {
        if first {
            self.pick(&[0x41, 0x9a], &[0x02, 1, 0x80])
        } else {
            self.pick(&[0x41, 0x46], &[0x02, 1, 0x01])
        }
    }
    pub fn sets(&self) -> Vec<Vec<u8>> {
        match self.0 {
            Codec::H264 => vec![self.sps(), self.pps()],
            _ => vec![self.vps(), self.sps(), self.pps()],
        }
    }
    pub fn params(&self) -> Params {
        let (sps, pps) = (self.sps().into(), self.pps().into());
        match self.0 {
            Codec::H264 => Params::H264 { sps, pps },
            _ => Params::H265 { vps: self.vps().into(), sps, pps },
        }
    }
}

pub(super) fn filled(mut nal: Vec<u8>, size: usize) -> Vec<u8> {
    for at in nal.len()..size {
        nal.push((at * 31 % 251) as u8);
    }
    nal
}

pub(super) fn frame(nals: &[Vec<u8>], rtp_time: u64, keyframe: bool) -> Frame {
    let mut data = Vec::new();
    for nal in nals {
        data.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        data.extend_from_slice(nal);
    }
    Frame { track: 0, rtp_time, time: StreamTime::default(), keyframe, data: Bytes::from(data) }
}

pub(super) fn nals_of(frame: &Frame) -> Vec<Vec<u8>> {
    length_prefixed_nals(&frame.data).map(<[u8]>::to_vec).collect()
}

pub(super) fn packet(piece: Piece) -> Packet {
    Packet {
        track: 0,
        rtp_time: u64::from(piece.timestamp),
        time: StreamTime::default(),
        starts_unit: piece.starts_unit,
        ends_unit: piece.ends_unit,
        keyframe: piece.keyframe,
        payload: piece.payload,
    }
}

/// A normalizer and a depacketizer behind it.
pub(super) struct Receiver {
    pub normalizer: Normalizer,
    depacketizer: Depacketizer,
    pub pieces: Vec<Piece>,
    pub frames: Vec<Frame>,
    pub noted: Vec<Noted>,
}

impl Receiver {
    pub fn new(track: &Track, max: usize) -> Self {
        Receiver {
            normalizer: Normalizer::new(track, max),
            depacketizer: Depacketizer::new(track),
            pieces: Vec::new(),
            frames: Vec::new(),
            noted: Vec::new(),
        }
    }

    pub fn push(&mut self, rtp: Incoming<'_>) {
        let before = self.pieces.len();
        self.noted.push(self.normalizer.push(rtp, &mut self.pieces));
        for piece in self.pieces[before..].iter().cloned() {
            self.depacketizer.push(&packet(piece), &mut self.frames);
        }
    }

    pub fn send(&mut self, payload: &[u8], timestamp: u32, marker: bool) {
        self.push(Incoming { payload, timestamp, marker, loss: false });
    }

    pub fn send_after_loss(&mut self, payload: &[u8], timestamp: u32, marker: bool) {
        self.push(Incoming { payload, timestamp, marker, loss: true });
    }

    /// NAL unit types of each frame, for reading tests.
    pub fn frame_types(&self, codec: Codec) -> Vec<Vec<u8>> {
        let format = Format::of(codec).expect("video");
        self.frames
            .iter()
            .map(|frame| nals_of(frame).iter().map(|nal| format.nal_type(nal[0])).collect())
            .collect()
    }
}

/// A slice's NAL units of a payload list: what a decoder must get whole.
pub(super) fn slices(codec: Codec, nals: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let format = Format::of(codec).expect("video");
    nals.iter().filter(|nal| matches!(format.kind(nal[0]), Kind::Slice { .. })).cloned().collect()
}

/// How many NAL units a payload begins.
pub(super) fn begun_nals(codec: Codec, payload: &[u8]) -> usize {
    match Format::of(codec).expect("video").read(payload) {
        Payload::Single(_) => 1,
        Payload::Aggregate(list) => entries(list).count(),
        Payload::Fragment(fragment) => usize::from(fragment.start),
        Payload::Ignored | Payload::Broken => panic!("an unreadable payload came out"),
    }
}
