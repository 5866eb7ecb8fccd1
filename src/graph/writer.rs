//! Where a source writes: received RTP becomes packets in the ring, once for everybody.

use super::meter::Meter;
use super::ring::Ring;
use super::source::{RtpIn, SourceDetails};
use crate::media::clock::Timeline;
use crate::media::rtp::normalize::{Incoming, Normalizer, Piece};
use crate::media::{Kind, Packet, Reordering, Track};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// RTP payload bytes at most in a packet: fits the usual path with SRTP, UDP and IPv6 headers around it,
/// through VPNs and PPPoE too. The value that browsers use themselves.
pub const MAX_PAYLOAD: usize = 1200;

/// What is known of a source's media while it runs. Read by the API and by negotiation.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The connection, as the source described it.
    pub details: SourceDetails,
    /// RTP payload bytes received in this run.
    pub bytes: u64,
    /// RTP packets received in this run.
    pub packets: u64,
    /// Packets cut out after loss, up to the next keyframe.
    pub dropped: u64,
    /// Rates over the last moments.
    pub meter: Meter,
    /// Access units of video in the last complete GOP.
    pub gop: Option<u32>,
    /// Access units of video seen in this epoch.
    pub units: u64,
    /// Whether pictures have shown B-frames, or the parameter sets rule them out.
    pub reordering: Reordering,
}

impl Observed {
    /// Nothing has been seen.
    pub fn new(now: Instant) -> Observed {
        Observed {
            details: SourceDetails::default(),
            bytes: 0,
            packets: 0,
            dropped: 0,
            meter: Meter::new(now),
            gop: None,
            units: 0,
            reordering: Reordering::Unknown,
        }
    }
}

/// What a writer tells its owner.
pub trait WriterEvents: Send + Sync {
    /// The tracks of this run are known.
    fn on_tracks(&self);
    /// The first media of this run has come.
    fn on_media(&self);
    /// What is known of B-frames has changed, or some more pictures have come without showing any.
    fn on_pictures(&self);
}

/// Where a source writes. Owned by the supervisor, lent for one run.
pub struct SourceWriter {
    ring: Arc<Ring<Packet>>,
    observed: Arc<Mutex<Observed>>,
    events: Arc<dyn WriterEvents>,
    timeline: Timeline,
    /// As the source announced them last, to tell a mere reconnect from a change.
    announced: Vec<Track>,
    /// With the parameter sets that came in band.
    current: Vec<Track>,
    normalizers: Vec<Normalizer>,
    /// The track that keyframes and frame rates are counted on.
    video: Option<usize>,
    pieces: Vec<Piece>,
    pending: Vec<Packet>,
    tally: Tally,
    media_seen: bool,
    units_in_gop: Option<u32>,
}

/// What one flush adds to [`Observed`].
#[derive(Default)]
struct Tally {
    bytes: usize,
    packets: u64,
    dropped: u64,
    units: u32,
    gop: Option<u32>,
    reordered: bool,
}

impl SourceWriter {
    /// A writer into `ring`.
    pub fn new(
        ring: Arc<Ring<Packet>>,
        observed: Arc<Mutex<Observed>>,
        events: Arc<dyn WriterEvents>,
        now: Instant,
    ) -> SourceWriter {
        SourceWriter {
            ring,
            observed,
            events,
            timeline: Timeline::new(now),
            announced: Vec::new(),
            current: Vec::new(),
            normalizers: Vec::new(),
            video: None,
            pieces: Vec::new(),
            pending: Vec::new(),
            tally: Tally::default(),
            media_seen: false,
            units_in_gop: None,
        }
    }

    /// Announces the tracks, once for each run and before anything is written.
    pub fn set_tracks(&mut self, tracks: Vec<Track>, details: SourceDetails) {
        self.flush();
        let clock_rates: Vec<u32> = tracks.iter().map(|track| track.clock_rate).collect();
        self.timeline.restart(&clock_rates);
        self.video = tracks.iter().position(|track| track.kind() == Kind::Video);
        if tracks != self.announced {
            self.current.clone_from(&tracks);
            self.announced = tracks;
            self.ring.begin_epoch(self.current.clone());
        }
        self.normalizers = self.current.iter().map(|track| Normalizer::new(track, MAX_PAYLOAD)).collect();
        (self.media_seen, self.units_in_gop) = (false, None);
        {
            let mut observed = self.observed.lock();
            *observed =
                Observed { details, reordering: self.declared_reordering(), ..Observed::new(Instant::now()) };
        }
        self.events.on_tracks();
    }

    fn declared_reordering(&self) -> Reordering {
        match self.video.and_then(|index| self.current.get(index)) {
            None => Reordering::No,
            Some(track) => track.video_info().map_or(Reordering::Unknown, |info| info.reordering),
        }
    }

    /// Writes one received RTP packet. One for a track that was not announced is ignored.
    pub fn write_rtp(&mut self, rtp: RtpIn<'_>) {
        let Some(normalizer) = self.normalizers.get_mut(rtp.track) else { return };
        let incoming =
            Incoming { payload: rtp.payload, timestamp: rtp.timestamp, marker: rtp.marker, loss: rtp.loss };
        let noted = normalizer.push(incoming, &mut self.pieces);
        self.tally.bytes += rtp.payload.len();
        self.tally.packets += 1;
        self.tally.dropped += u64::from(noted.dropped);
        if let Some(params) = noted.params {
            self.change_params(rtp.track, params);
        }
        if self.video == Some(rtp.track) {
            self.tally.units += noted.access_units;
            self.tally.reordered |= noted.reordered;
        }
        for piece in self.pieces.drain(..) {
            if self.video == Some(rtp.track) && piece.starts_unit {
                if piece.keyframe {
                    self.tally.gop = self.units_in_gop.replace(0).or(self.tally.gop);
                }
                self.units_in_gop = self.units_in_gop.map(|units| units.saturating_add(1));
            }
            let stamp = self.timeline.map(rtp.track, piece.timestamp, rtp.arrival);
            self.pending.push(Packet {
                track: rtp.track as u8,
                rtp_time: stamp.rtp_time,
                time: stamp.time,
                starts_unit: piece.starts_unit,
                ends_unit: piece.ends_unit,
                keyframe: piece.keyframe,
                payload: piece.payload,
            });
        }
        if !self.media_seen {
            self.media_seen = true;
            self.events.on_media();
        }
    }

    /// In-band parameter sets differ from those known: a new epoch begins with what is written next.
    fn change_params(&mut self, index: usize, params: crate::media::Params) {
        self.ring.push_all(&mut self.pending);
        if let Some(track) = self.current.get_mut(index) {
            track.params = params;
        }
        self.ring.begin_epoch(self.current.clone());
        let mut observed = self.observed.lock();
        observed.reordering = self.declared_reordering();
        observed.units = 0;
    }

    /// Tells the pair of instants that an RTCP sender report ties together: `ntp` is RFC 3550's 64-bit timestamp.
    pub fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32) {
        self.timeline.sender_report(track, ntp, rtp);
    }

    /// Hands what was written to the readers. To be called whenever nothing more is ready to be read.
    pub fn flush(&mut self) {
        self.ring.push_all(&mut self.pending);
        let tally = std::mem::take(&mut self.tally);
        if tally.packets == 0 {
            return;
        }
        let pictures = {
            let mut observed = self.observed.lock();
            observed.bytes += tally.bytes as u64;
            observed.packets += tally.packets;
            observed.dropped += tally.dropped;
            observed.meter.add(Instant::now(), tally.bytes, tally.units);
            observed.gop = tally.gop.or(observed.gop);
            observed.units += u64::from(tally.units);
            if tally.reordered {
                observed.reordering = Reordering::Yes;
            }
            tally.units > 0 && (tally.reordered || observed.units <= 64)
        };
        if pictures {
            self.events.on_pictures();
        }
    }
}
