//! The second dialect: frames derived from packets, once for each source and only while somebody reads them.

use super::ring::{Limits, Reader, Ring};
use crate::media::rtp::depacketize::Depacketizer;
use crate::media::{Frame, Packet};
use std::sync::Arc;
use tokio::task::AbortHandle;

/// A source's frames. The conversion ends when the last holder lets go.
pub struct Frames {
    ring: Arc<Ring<Frame>>,
    task: AbortHandle,
}

impl Frames {
    /// Starts converting at the newest keyframe. Must be called within a tokio runtime.
    pub fn derive(packets: &Arc<Ring<Packet>>) -> Arc<Frames> {
        let ring = Ring::new(Limits::default());
        let reader = Reader::new(packets.from_entry());
        let task = tokio::spawn(convert(reader, ring.clone())).abort_handle();
        Arc::new(Frames { ring, task })
    }

    /// The frames' ring.
    pub fn ring(&self) -> &Arc<Ring<Frame>> {
        &self.ring
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn convert(mut reader: Reader<Packet>, ring: Arc<Ring<Frame>>) {
    let mut epoch = None;
    let mut depacketizers: Vec<Depacketizer> = Vec::new();
    let (mut packets, mut frames) = (Vec::new(), Vec::new());
    loop {
        let batch = reader.read(256, &mut packets).await;
        let changed = epoch != Some(batch.epoch.id);
        if changed {
            epoch = Some(batch.epoch.id);
            ring.begin_epoch(batch.epoch.tracks.clone());
        }
        if changed || batch.skipped {
            depacketizers = batch.epoch.tracks.iter().map(Depacketizer::new).collect();
        }
        for packet in packets.drain(..) {
            if let Some(depacketizer) = depacketizers.get_mut(usize::from(packet.track)) {
                depacketizer.push(&packet, &mut frames);
            }
        }
        ring.push_all(&mut frames);
    }
}
