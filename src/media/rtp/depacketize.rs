//! Packets to frames.

use super::payload::{Format, Payload, entries};
use crate::media::aac::AudioSpecificConfig;
use crate::media::clock::StreamTime;
use crate::media::codec::Codec;
use crate::media::frame::Frame;
use crate::media::jpeg::Assembler;
use crate::media::packet::Packet;
use crate::media::track::{Params, Track};
use std::time::Duration;

/// Largest access unit, in bytes.
const MAX_UNIT: usize = 16 << 20;

/// Puts one track's packets together to frames: whole access units or nothing.
///
/// Video begins at a keyframe. A unit that isn't ended when the next one starts, or that is damaged, is discarded with
/// everything up to the next keyframe.
#[derive(Debug)]
pub struct Depacketizer {
    media: Media,
}

#[derive(Debug)]
enum Media {
    Video(Video),
    Aac(Aac),
    Jpeg(Assembler),
    /// A packet is a frame.
    Plain,
}

impl Depacketizer {
    /// For packets of `track`, as a [`Normalizer`](super::normalize::Normalizer) or a
    /// [`Packetizer`](super::packetize::Packetizer) makes them.
    pub fn new(track: &Track) -> Self {
        let media = match Format::of(track.codec) {
            Some(format) => Media::Video(Video::new(format)),
            None if track.codec == Codec::Aac => Media::Aac(Aac::new(track)),
            None if track.codec == Codec::Jpeg => Media::Jpeg(Assembler::default()),
            None => Media::Plain,
        };
        Depacketizer { media }
    }

    /// Takes the next packet and appends to `out` what frames it completes.
    pub fn push(&mut self, packet: &Packet, out: &mut Vec<Frame>) {
        match &mut self.media {
            Media::Video(video) => out.extend(video.push(packet)),
            Media::Aac(aac) => aac.push(packet, out),
            Media::Jpeg(jpeg) => {
                // What does not fit leaves nothing to finish.
                jpeg.push(&packet.payload, packet.starts_unit);
                let file = if packet.ends_unit { jpeg.finish() } else { None };
                out.extend(file.map(|file| Frame {
                    track: packet.track,
                    rtp_time: packet.rtp_time,
                    time: packet.time,
                    keyframe: true,
                    data: file.into(),
                }));
            }
            Media::Plain if packet.payload.is_empty() => {}
            Media::Plain => out.push(Frame {
                track: packet.track,
                rtp_time: packet.rtp_time,
                time: packet.time,
                keyframe: false,
                data: packet.payload.to_vec().into(),
            }),
        }
    }
}

#[derive(Debug)]
struct Video {
    format: Format,
    /// Frames are of no use before the next keyframe.
    needs_keyframe: bool,
    unit: Option<Unit>,
}

/// An access unit that is coming in.
#[derive(Debug)]
struct Unit {
    rtp_time: u64,
    time: StreamTime,
    keyframe: bool,
    data: Vec<u8>,
    /// Where the length of a NAL unit stands whose fragments are coming.
    open_nal: Option<usize>,
}

impl Video {
    fn new(format: Format) -> Self {
        Video { format, needs_keyframe: true, unit: None }
    }

    fn push(&mut self, packet: &Packet) -> Option<Frame> {
        if packet.starts_unit {
            // The one before was never ended: it is incomplete.
            self.needs_keyframe |= self.unit.take().is_some();
            if self.needs_keyframe && !packet.keyframe {
                return None;
            }
            self.needs_keyframe = false;
            self.unit = Some(Unit {
                rtp_time: packet.rtp_time,
                time: packet.time,
                keyframe: packet.keyframe,
                data: Vec::new(),
                open_nal: None,
            });
        }
        let Some(unit) = &mut self.unit else {
            // More of a unit that was ended or never started.
            self.needs_keyframe = true;
            return None;
        };
        if unit.add(self.format, &packet.payload).is_none() {
            self.unit = None;
            self.needs_keyframe = true;
            return None;
        }
        if !packet.ends_unit {
            return None;
        }
        let unit = self.unit.take()?;
        if unit.open_nal.is_some() {
            self.needs_keyframe = true;
            return None;
        }
        Some(Frame {
            track: packet.track,
            rtp_time: unit.rtp_time,
            time: unit.time,
            keyframe: unit.keyframe,
            data: unit.data.into(),
        })
    }
}

impl Unit {
    /// `None` if the payload doesn't fit what came before.
    fn add(&mut self, format: Format, payload: &[u8]) -> Option<()> {
        if self.data.len() + payload.len() > MAX_UNIT {
            return None;
        }
        match format.read(payload) {
            Payload::Single(nal) if self.open_nal.is_none() => self.add_nal(nal),
            Payload::Aggregate(list) if self.open_nal.is_none() => {
                entries(list).try_for_each(|nal| self.add_nal(nal))
            }
            Payload::Fragment(fragment) => {
                match (fragment.start, self.open_nal) {
                    (true, None) => {
                        self.open_nal = Some(self.data.len());
                        self.data.extend_from_slice(&[0; 4]);
                        self.data.extend(fragment.header.iter().take(format.header_len()));
                    }
                    (false, Some(_)) => {}
                    _ => return None,
                }
                self.data.extend_from_slice(fragment.body);
                if fragment.end {
                    let at = self.open_nal.take()?;
                    let length = u32::try_from(self.data.len().checked_sub(at + 4)?).ok()?;
                    self.data.get_mut(at..at + 4)?.copy_from_slice(&length.to_be_bytes());
                }
                Some(())
            }
            Payload::Ignored => Some(()),
            _ => None,
        }
    }

    fn add_nal(&mut self, nal: &[u8]) -> Option<()> {
        self.data.extend_from_slice(&u32::try_from(nal.len()).ok()?.to_be_bytes());
        self.data.extend_from_slice(nal);
        Some(())
    }
}

/// RFC 3640, mode AAC-hbr (§3.3.6): each access unit has a 13-bit size and a 3-bit index in front.
#[derive(Debug)]
struct Aac {
    clock_rate: u64,
    /// Duration of an access unit in ticks.
    ticks: u64,
    /// A fragmented access unit: its start and how large it will be.
    fragment: Option<(Frame, usize)>,
}

impl Aac {
    fn new(track: &Track) -> Self {
        let config = match &track.params {
            Params::Aac { config } => AudioSpecificConfig::parse(config),
            _ => None,
        };
        let clock_rate = u64::from(track.clock_rate.max(1));
        // The RTP clock may be that of the decoder's output while the configuration tells the core's (SBR).
        let ticks = config.map_or(1024, |config| {
            u64::from(config.frame_length) * clock_rate / u64::from(config.sample_rate.max(1))
        });
        Aac { clock_rate, ticks, fragment: None }
    }

    /// §3.2.1. Interleaving (an index that isn't 0) was never negotiated: such packets are dropped.
    fn push(&mut self, packet: &Packet, out: &mut Vec<Frame>) {
        let earlier = self.fragment.take();
        let Some((bits, rest)) = packet.payload.split_first_chunk::<2>() else { return };
        let bits = usize::from(u16::from_be_bytes(*bits));
        if bits == 0 || bits % 16 != 0 {
            return;
        }
        let Some((headers, mut data)) = rest.split_at_checked(bits / 8) else { return };
        for (index, header) in headers.chunks_exact(2).enumerate() {
            let &[high, low] = header else { return };
            let header = u16::from_be_bytes([high, low]);
            let size = usize::from(header >> 3);
            if header & 7 != 0 {
                return;
            }
            let Some((unit, after)) = data.split_at_checked(size) else {
                if headers.len() == 2 {
                    self.add_fragment(earlier, packet, data, size, out);
                }
                return;
            };
            if !unit.is_empty() {
                out.push(self.frame(packet, index as u64, unit));
            }
            data = after;
        }
    }

    /// §3.2.3: a fragment has the whole access unit's size in its header.
    fn add_fragment(
        &mut self,
        earlier: Option<(Frame, usize)>,
        packet: &Packet,
        data: &[u8],
        size: usize,
        out: &mut Vec<Frame>,
    ) {
        let mut frame = match earlier {
            Some((frame, whole)) if whole == size && frame.rtp_time == packet.rtp_time => frame,
            _ => self.frame(packet, 0, &[]),
        };
        let data = [&frame.data, data].concat();
        let length = data.len();
        frame.data = data.into();
        if length == size {
            out.push(frame);
        } else if length < size {
            self.fragment = Some((frame, size));
        }
    }

    fn frame(&self, packet: &Packet, index: u64, data: &[u8]) -> Frame {
        let ticks = index * self.ticks;
        let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(self.clock_rate);
        Frame {
            track: packet.track,
            rtp_time: packet.rtp_time.saturating_add(ticks),
            time: StreamTime(packet.time.0.saturating_add(Duration::from_nanos(nanos as u64))),
            keyframe: false,
            data: data.to_vec().into(),
        }
    }
}
