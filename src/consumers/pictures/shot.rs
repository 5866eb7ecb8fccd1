//! The keyframes of a source, beginning with the newest that its ring has.

use super::Pictures;
use crate::graph::negotiate::usable;
use crate::graph::{Producer, Reader, State, Stream};
use crate::media::rtp::depacketize::Depacketizer;
use crate::media::{Codec, Frame, Kind, Packet, Track};
use std::sync::Arc;

/// Packets that are looked at in one go.
const BATCH: usize = 256;

/// A keyframe, whole and decodable by itself.
#[derive(Debug, Clone)]
pub struct Shot {
    /// The track it belongs to.
    pub track: Track,
    /// The epoch it belongs to.
    pub epoch: u64,
    /// Its bytes.
    pub frame: Frame,
}

impl Shot {
    /// What it is coded in.
    pub fn codec(&self) -> Codec {
        self.track.codec
    }
}

/// The source of a stream that is live by itself and has a picture.
pub fn live(stream: &Stream) -> Option<Arc<Producer>> {
    let has_picture = |producer: &&Arc<Producer>| {
        producer.status().state == State::Live
            && usable(&producer.epoch().tracks, Kind::Video, &Pictures::wants()).is_some()
    };
    stream.producers().iter().find(has_picture).cloned()
}

/// Reads keyframes and passes over everything else. Keeps no source running.
pub struct Shots {
    reader: Reader<Packet>,
    epoch: Option<u64>,
    /// The track that is read, and its index.
    track: Option<(u8, Track)>,
    depacketizer: Option<Depacketizer>,
    /// The packets of a keyframe are coming.
    in_keyframe: bool,
    packets: Vec<Packet>,
}

impl Shots {
    /// From the newest keyframe on.
    pub fn new(producer: &Producer) -> Shots {
        Shots {
            reader: Reader::new(producer.packets().from_entry()),
            epoch: None,
            track: None,
            depacketizer: None,
            in_keyframe: false,
            packets: Vec::new(),
        }
    }

    /// Waits for the next one. Cancel-safe.
    pub async fn next(&mut self) -> Shot {
        loop {
            // What is left of the last batch comes first.
            while !self.packets.is_empty() {
                if let Some(shot) = self.scan() {
                    return shot;
                }
            }
            let batch = self.reader.read(BATCH, &mut self.packets).await;
            // The oldest is taken first, from the end of the list.
            self.packets.reverse();
            let is_new = self.epoch != Some(batch.epoch.id);
            if is_new {
                self.epoch = Some(batch.epoch.id);
                let tracks = &batch.epoch.tracks;
                let index = usable(tracks, Kind::Video, &Pictures::wants());
                let index =
                    index.and_then(|index| Some((u8::try_from(index).ok()?, tracks.get(index)?.clone())));
                self.track = index;
            }
            if is_new || batch.skipped {
                self.in_keyframe = false;
                self.depacketizer = self.track.as_ref().map(|(_, track)| Depacketizer::new(track));
            }
        }
    }

    /// Takes packets up to the end of a keyframe.
    fn scan(&mut self) -> Option<Shot> {
        let mut frames = Vec::new();
        while let Some(packet) = self.packets.pop() {
            let Some((_, track)) = self.track.as_ref().filter(|(index, _)| *index == packet.track) else {
                continue;
            };
            if packet.starts_unit {
                self.in_keyframe = packet.keyframe;
            }
            if !self.in_keyframe {
                continue;
            }
            self.depacketizer.as_mut()?.push(&packet, &mut frames);
            if let Some(frame) = frames.pop() {
                return Some(Shot { track: track.clone(), epoch: self.epoch?, frame });
            }
        }
        None
    }

    /// Keyframes that were never seen because the reader fell behind, in packets.
    pub fn skipped(&self) -> u64 {
        self.reader.skipped()
    }
}
