//! What a session plays: packets of one or two sources as RTP, numbered for this session, with sender reports.
//!
//! Payloads and timestamps are passed on as they are in the ring. What is cached since the last keyframe comes first,
//! with its own timestamps: a player that paces by them is as far behind as the keyframe is old, and catches up
//! if it is told to keep up with the live edge.

use crate::graph::{Batch, Feed, Producer, Reader};
use crate::media::rtp::header::{
    Header, SenderReport, ntp_timestamp, write_description, write_goodbye, write_sender_report,
};
use crate::media::{Codec, Kind, Packet, StreamTime, Track};
use futures_util::FutureExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Packets taken from a ring at once.
const BATCH: usize = 256;
/// Between two sender reports of a track (RFC 3550 §6.2).
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// A track that has moved against the others by more than so many nanoseconds since its last report gets a new one at once:
/// the source came back, or has told how its own clocks go together.
const MOVED: u64 = 10_000_000;

/// Where the packets go. Tracks are counted as given to [`Playback::start`].
pub trait Sink {
    /// One RTP packet. `time` is where its media belongs on the stream's timeline.
    fn rtp(&mut self, track: usize, header: [u8; 12], payload: Arc<[u8]>, time: StreamTime);
    /// One compound RTCP packet.
    fn rtcp(&mut self, track: usize, packet: Vec<u8>);
}

/// The RTP stream of one track, from its description to its end.
#[derive(Debug, Clone)]
pub struct RtpStream {
    codec: Codec,
    clock_rate: u32,
    payload_type: u8,
    /// Random, as RFC 3550 §5.1 wants it.
    pub ssrc: u32,
    /// The next packet's number.
    pub sequence: u16,
    packets: u32,
    octets: u32,
    /// The last packet's RTP time and its place on the timeline.
    last: Option<(u64, StreamTime)>,
    /// Where on the timeline RTP time zero is, as the last sender report had it; in nanoseconds.
    told: Option<i64>,
    /// Video: an access unit has begun and not ended.
    is_open: bool,
}

impl RtpStream {
    /// Nothing sent yet.
    pub fn new(track: &Track, payload_type: u8) -> RtpStream {
        RtpStream {
            codec: track.codec,
            clock_rate: track.clock_rate,
            payload_type,
            ssrc: rand::random(),
            sequence: rand::random(),
            packets: 0,
            octets: 0,
            last: None,
            told: None,
            is_open: false,
        }
    }

    /// Where on the timeline RTP time zero is by the last packet, in nanoseconds.
    fn zero(&self) -> Option<i64> {
        let (rtp, StreamTime(time)) = self.last?;
        let rate = u64::from(self.clock_rate.max(1));
        let media = (rtp / rate).saturating_mul(1_000_000_000) + rtp % rate * 1_000_000_000 / rate;
        Some((time.as_nanos() as i64).saturating_sub_unsigned(media))
    }

    /// Whether a player knows where the last packet belongs.
    fn is_told(&self) -> bool {
        self.told.zip(self.zero()).is_some_and(|(told, zero)| told.abs_diff(zero) <= MOVED)
    }
}

/// What is read from one source.
struct Input {
    reader: Reader<Packet>,
    epoch: Option<u64>,
    /// For each of the source's tracks the RTP stream that it goes into.
    streams: Vec<Option<usize>>,
    /// The RTP streams that are taken from this source.
    takes: Vec<usize>,
    /// Packets are passed over until a keyframe begins.
    waits: bool,
}

/// A moment in both clocks.
struct Anchor {
    wall: SystemTime,
    instant: Instant,
    time: StreamTime,
}

/// One run of a session, from PLAY to PAUSE or the end.
pub struct Playback {
    inputs: Vec<Input>,
    streams: Vec<RtpStream>,
    packets: Vec<Packet>,
    anchor: Option<Anchor>,
    report_due: Instant,
}

/// Packets were read and wait for [`Playback::write`].
#[derive(Debug)]
pub struct Got {
    input: usize,
    batch: Batch,
}

impl Playback {
    /// Reads those feeds that are given; `streams` has an entry for each, given or not. With `cached` it begins at the
    /// last keyframe, else at the next.
    pub fn start(feeds: &[Option<&Feed>], streams: Vec<RtpStream>, cached: bool) -> Playback {
        let mut producers: Vec<(&Arc<Producer>, Vec<usize>)> = Vec::new();
        for (index, feed) in feeds.iter().enumerate() {
            let Some(producer) = feed.map(|feed| feed.lease.producer()) else { continue };
            match producers.iter_mut().find(|(other, _)| Arc::ptr_eq(other, producer)) {
                Some((_, takes)) => takes.push(index),
                None => producers.push((producer, vec![index])),
            }
        }
        let input = |(producer, takes): (&Arc<Producer>, Vec<usize>)| {
            let ring = producer.packets();
            let cursor = if cached { ring.from_entry() } else { ring.live() };
            let has_video = producer.epoch().tracks.iter().any(|track| track.kind() == Kind::Video);
            let waits = !cached && has_video;
            Input { reader: Reader::new(cursor), epoch: None, streams: Vec::new(), takes, waits }
        };
        Playback {
            inputs: producers.into_iter().map(input).collect(),
            streams,
            packets: Vec::new(),
            anchor: None,
            report_due: Instant::now(),
        }
    }

    /// The RTP streams, to go on with after a pause. A unit that was begun stays without its end: a packet is missing,
    /// and the player should know.
    pub fn into_streams(mut self) -> Vec<RtpStream> {
        for stream in &mut self.streams {
            stream.sequence = stream.sequence.wrapping_add(u16::from(stream.is_open));
            // What comes then is reported anew.
            (stream.is_open, stream.last, stream.told) = (false, None, None);
        }
        self.streams
    }

    /// The RTP streams as they are now.
    pub fn streams(&self) -> &[RtpStream] {
        &self.streams
    }

    /// Packets that were never sent because the reader fell behind.
    pub fn skipped(&self) -> u64 {
        self.inputs.iter().map(|input| input.reader.skipped()).sum()
    }

    /// An access unit was written in part: its rest should follow even if the player is slow. A decoder can't do with
    /// less than the whole.
    pub fn is_inside_unit(&self) -> bool {
        self.streams.iter().any(|stream| stream.is_open)
    }

    /// Waits for packets. Cancel-safe. With `sparing`, takes one at a time.
    pub async fn read(&mut self, sparing: bool) -> Got {
        let most = if sparing { 1 } else { BATCH };
        let packets = &mut self.packets;
        match self.inputs.as_mut_slice() {
            [one] => Got { input: 0, batch: one.reader.read(most, packets).await },
            [first, second] => {
                // Two buffers are not needed: only one of the reads completes.
                let mut others = Vec::new();
                tokio::select! {
                    batch = first.reader.read(most, packets) => Got { input: 0, batch },
                    batch = second.reader.read(most, &mut others) => {
                        *packets = others;
                        Got { input: 1, batch }
                    }
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// The same if there are packets at once.
    pub fn read_now(&mut self) -> Option<Got> {
        self.read(false).now_or_never()
    }

    /// The RTP timestamps that the tracks' streams begin with, if what was read shows it for all that are played.
    pub fn first_timestamps(&self, got: &Got) -> Option<Vec<(usize, u32)>> {
        let input = self.inputs.get(got.input).filter(|input| self.inputs.len() == 1 && !input.waits)?;
        let streams = map_tracks(&got.batch.epoch.tracks, &self.streams, &input.takes);
        let first = |stream: usize| {
            let packet = self
                .packets
                .iter()
                .find(|packet| streams.get(usize::from(packet.track)) == Some(&Some(stream)))?;
            Some((stream, packet.rtp_time as u32))
        };
        input.takes.iter().map(|stream| first(*stream)).collect()
    }

    /// Writes what was read.
    ///
    /// # Errors
    /// The stream has changed so that the session's description does not fit any more: why.
    pub fn write(&mut self, got: &Got, now: Instant, sink: &mut impl Sink) -> Result<(), &'static str> {
        let Some(input) = self.inputs.get_mut(got.input) else { return Ok(()) };
        let epoch = &got.batch.epoch;
        if input.epoch != Some(epoch.id) {
            input.epoch = Some(epoch.id);
            input.streams = map_tracks(&epoch.tracks, &self.streams, &input.takes);
            let video = input.takes.iter().find(|stream| is_video(&self.streams, **stream));
            let is_lost = |stream: &usize| !input.streams.contains(&Some(*stream));
            if video.is_some_and(is_lost) {
                return Err("the stream has another video codec now");
            }
        }
        if let Some(last) = self.packets.last() {
            let wall = SystemTime::now();
            self.anchor.get_or_insert(Anchor { wall, instant: now, time: last.time });
        }
        if now >= self.report_due {
            self.report_due = now + REPORT_EVERY;
            (0..self.streams.len()).for_each(|index| self.report(index, now, sink));
        }
        let mut packets = std::mem::take(&mut self.packets);
        for packet in packets.drain(..) {
            self.write_packet(got.input, packet, now, sink);
        }
        self.packets = packets;
        Ok(())
    }

    fn write_packet(&mut self, input: usize, packet: Packet, now: Instant, sink: &mut impl Sink) {
        let Some(input) = self.inputs.get_mut(input) else { return };
        if input.waits && !(packet.keyframe && packet.starts_unit) {
            return;
        }
        input.waits = false;
        let Some(Some(index)) = input.streams.get(usize::from(packet.track)).copied() else { return };
        let Some(stream) = self.streams.get_mut(index) else { return };
        if stream.codec.kind() == Kind::Video {
            // The unit before was never ended: a packet of it is missing, and the player should know.
            if packet.starts_unit && stream.is_open {
                stream.sequence = stream.sequence.wrapping_add(1);
            }
            stream.is_open = !packet.ends_unit;
        }
        let header = Header {
            payload_type: stream.payload_type,
            sequence: stream.sequence,
            timestamp: packet.rtp_time as u32,
            ssrc: stream.ssrc,
            marker: packet.ends_unit && marks(stream.codec),
        };
        stream.sequence = stream.sequence.wrapping_add(1);
        stream.last = Some((packet.rtp_time, packet.time));
        if stream.told.is_none() || (packet.starts_unit && !stream.is_told()) {
            // Before the packet, so that a player never has to move what it shows already.
            self.report(index, now, sink);
        }
        let Some(stream) = self.streams.get_mut(index) else { return };
        stream.packets = stream.packets.wrapping_add(1);
        stream.octets = stream.octets.wrapping_add(packet.payload.len() as u32);
        sink.rtp(index, header.to_bytes(), packet.payload, packet.time);
    }

    fn report(&mut self, index: usize, now: Instant, sink: &mut impl Sink) {
        if let Some(packet) = self.sender_report(index, now) {
            sink.rtcp(index, packet);
        }
        if let Some(stream) = self.streams.get_mut(index) {
            stream.told = stream.zero();
        }
    }

    /// Says goodbye on every track that was played.
    pub fn say_goodbye(&self, now: Instant, sink: &mut impl Sink) {
        for (index, stream) in self.streams.iter().enumerate() {
            if let Some(mut packet) = self.sender_report(index, now) {
                write_goodbye(stream.ssrc, &mut packet);
                sink.rtcp(index, packet);
            }
        }
    }

    /// How a track's clock goes with everybody's, now. `None` before its first packet.
    fn sender_report(&self, index: usize, now: Instant) -> Option<Vec<u8>> {
        let stream = self.streams.get(index)?;
        let ((rtp, time), anchor) = (stream.last?, self.anchor.as_ref()?);
        let passed = now.saturating_duration_since(anchor.instant);
        let here = anchor.time.0 + passed;
        // Where the track's clock is now: ahead of its last packet, or behind it.
        let ticks =
            |duration: Duration| (duration.as_nanos() * u128::from(stream.clock_rate) / 1_000_000_000) as u32;
        let rtp = match here.checked_sub(time.0) {
            Some(ahead) => (rtp as u32).wrapping_add(ticks(ahead)),
            None => (rtp as u32).wrapping_sub(ticks(time.0.saturating_sub(here))),
        };
        let report = SenderReport { ssrc: stream.ssrc, ntp: ntp_timestamp(anchor.wall + passed), rtp };
        let mut packet = Vec::with_capacity(64);
        write_sender_report(&report, stream.packets, stream.octets, &mut packet);
        write_description(stream.ssrc, "streamgate", &mut packet);
        Some(packet)
    }
}

/// For each track of a source the RTP stream it goes into, among those taken from it.
fn map_tracks(tracks: &[Track], streams: &[RtpStream], takes: &[usize]) -> Vec<Option<usize>> {
    let mut free: Vec<usize> = takes.to_vec();
    let fits = |track: &Track, stream: &RtpStream| {
        track.codec == stream.codec && track.clock_rate == stream.clock_rate
    };
    let mut take = |track: &Track| {
        let place =
            free.iter().position(|stream| streams.get(*stream).is_some_and(|stream| fits(track, stream)))?;
        Some(free.remove(place))
    };
    tracks.iter().map(&mut take).collect()
}

fn is_video(streams: &[RtpStream], index: usize) -> bool {
    streams.get(index).is_some_and(|stream| stream.codec.kind() == Kind::Video)
}

/// Whether RTP's marker tells the end of an access unit. For G.711 and Opus it would tell the end of a silence.
fn marks(codec: Codec) -> bool {
    !matches!(codec, Codec::Opus | Codec::Pcma | Codec::Pcmu)
}
