//! ICE-TCP (RFC 6544): STUN, DTLS and SRTP framed with a length (RFC 4571) on a connection of the one port.

use super::letters::{Inbound, Letters};
use super::rtcp::is_regular;
use super::stun::{self, Message};
use super::worker::Workers;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Longest frame taken from a viewer; SRTP, DTLS and STUN stay far below.
const MAX_FRAME: usize = 8 << 10;
/// The first frame must be a connectivity check and come within this time.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// Viewers check connectivity every few seconds.
const SILENCE: Duration = Duration::from_secs(30);
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Above this, new pictures wait or are left out.
const SOFT_LIMIT: usize = 1 << 20;
/// Above this, the connection is given up.
const HARD_LIMIT: usize = 8 << 20;

/// What waits to be written to a connection. Bounded in bytes.
#[derive(Default)]
pub struct TcpOut {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    frames: Vec<u8>,
    being_written: usize,
    closed: bool,
}

impl TcpOut {
    /// Queues frames, each with its length before it. False if the connection is closed or has been given up.
    pub fn push(&self, frames: &[u8]) -> bool {
        let mut state = self.state.lock();
        if state.frames.len() + state.being_written > HARD_LIMIT {
            state.closed = true;
            state.frames.clear();
        }
        if state.closed {
            drop(state);
            self.changed.notify_one();
            return false;
        }
        state.frames.extend_from_slice(frames);
        drop(state);
        self.changed.notify_one();
        true
    }

    /// The viewer does not read as fast as pictures come.
    pub fn is_congested(&self) -> bool {
        let state = self.state.lock();
        state.frames.len() + state.being_written > SOFT_LIMIT
    }

    /// Ends the connection after what is queued has been written.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for frames to write. `None`: the connection is to be closed.
    async fn next(&self, written: Vec<u8>) -> Option<Vec<u8>> {
        let mut spare = written;
        spare.clear();
        loop {
            {
                let mut state = self.state.lock();
                state.being_written = 0;
                if !state.frames.is_empty() {
                    std::mem::swap(&mut state.frames, &mut spare);
                    state.being_written = spare.len();
                    return Some(spare);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

/// Runs a connection until either side ends it.
pub async fn serve<S>(stream: S, peer: SocketAddr, workers: &Workers)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = BufReader::with_capacity(MAX_FRAME, reader);
    let Ok(Some(first)) = timeout(FIRST_FRAME, read_frame(&mut reader)).await else { return };
    let Some(route) = check_for(&first).and_then(|ufrag| workers.demux().by_ufrag(ufrag)) else {
        super::demux::Demux::count(&workers.demux().counters.unknown);
        return;
    };
    let out = Arc::new(TcpOut::default());
    let mut letters = Letters::default();
    let mut deliver = |data: &[u8]| {
        let inbound = Inbound { source: peer, local_ip: None, tcp: Some(&out), at: Instant::now(), data };
        letters.add(route.peer, &inbound, !is_regular(data, route.reduced_size));
        workers.deliver(route.worker, &mut letters);
    };
    deliver(&first);
    let reading = async {
        while let Ok(Some(frame)) = timeout(SILENCE, read_frame(&mut reader)).await {
            deliver(&frame);
        }
    };
    tokio::select! {
        () = reading => {}
        () = write_all(&out, writer) => {}
    }
    out.close();
}

async fn write_all<W: AsyncWrite + Unpin>(out: &TcpOut, mut writer: W) {
    let mut written = Vec::new();
    while let Some(frames) = out.next(written).await {
        if !matches!(timeout(WRITE_DEADLINE, writer.write_all(&frames)).await, Ok(Ok(()))) {
            return;
        }
        written = frames;
        // One large burst should not keep its memory for the life of the connection.
        if written.capacity() > SOFT_LIMIT {
            written = Vec::new();
        }
    }
    let _ = timeout(WRITE_DEADLINE, writer.shutdown()).await;
}

/// Reads one frame. `None` at the end of the connection or when the frame is too long.
async fn read_frame<R: AsyncRead + Unpin>(reader: &mut R) -> Option<Vec<u8>> {
    let length = usize::from(reader.read_u16().await.ok()?);
    if length > MAX_FRAME {
        return None;
    }
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).await.ok()?;
    Some(frame)
}

fn check_for(frame: &[u8]) -> Option<&str> {
    match stun::parse(frame) {
        Some(Message::Check { local_ufrag }) => Some(local_ufrag),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_written_with_their_length() {
        let out = TcpOut::default();
        assert!(out.push(b"\x00\x03abc") && out.push(b"\x00\x00"));
        out.close();
        assert!(!out.push(b"late"));
        let (mut ours, theirs) = tokio::io::duplex(64);
        write_all(&out, theirs).await;
        let mut written = Vec::new();
        ours.read_to_end(&mut written).await.unwrap();
        assert_eq!(written, b"\x00\x03abc\x00\x00");
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let out = TcpOut::default();
        let datagram = [0; 1200];
        let taken = (0..100_000).take_while(|_| out.push(&datagram)).count();
        assert!(taken * 1200 > SOFT_LIMIT && taken * 1200 <= HARD_LIMIT + 1200, "{taken}");
        assert!(out.next(Vec::new()).await.is_none(), "given up");
    }

    #[tokio::test]
    async fn frames_are_read_and_bounded() {
        assert_eq!(read_frame(&mut &b"\x00\x02hi"[..]).await.as_deref(), Some(&b"hi"[..]));
        assert_eq!(read_frame(&mut &b"\x00\x02h"[..]).await, None);
        assert_eq!(read_frame(&mut &[0xff; 70_000][..]).await, None, "longer than allowed");
    }
}
