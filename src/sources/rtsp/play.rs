//! While media flows: read what there is, write it, flush, wait; keepalives, receiver reports, stall detection.

use super::Output;
use super::receive::Receiver;
use super::session::{Session, Setup};
use super::udp::{self, Received, UdpPair};
use super::wire::WireError;
use crate::graph::SourceError;
use crate::rtsp::Incoming;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Between two receiver reports (RFC 3550 §6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Datagrams that are read from a socket before the others have their turn.
const DATAGRAMS_AT_ONCE: usize = 64;
/// The biggest datagram.
const DATAGRAM_BYTES: usize = 65_536;

/// Keeps the RTSP session from timing out.
struct Keepalive {
    interval: Duration,
    due: Instant,
    /// 401s to the keepalive that is open; `None` if none is open.
    open: Option<usize>,
}

/// Passes media on until the camera ends it, cuts the connection or stalls.
pub async fn play<O: Output>(session: &mut Session, setups: &[Setup], out: &mut O) -> SourceError {
    let started = Instant::now();
    let mut receiver = Receiver::new(setups, started);
    let pairs: Vec<(usize, &UdpPair)> =
        setups.iter().enumerate().filter_map(|(i, s)| Some((i, s.udp.as_ref()?))).collect();
    let sockets: Vec<&UdpPair> = pairs.iter().map(|(_, pair)| *pair).collect();
    let mut buffer = vec![0; if pairs.is_empty() { 0 } else { DATAGRAM_BYTES }];
    let mut report = Vec::new();
    let mut report_due = started + REPORT_INTERVAL;
    let interval = (session.timeout / 2).clamp(Duration::from_secs(1), Duration::from_secs(30));
    let mut keepalive = Keepalive { interval, due: started + interval, open: None };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    for (channel, packet) in std::mem::take(&mut session.early) {
        receiver.interleaved(channel, &packet, started, out);
    }
    loop {
        if let Err(e) = take_messages(session, &mut receiver, &mut keepalive, out) {
            out.flush();
            return ended(session, e);
        }
        for (track, pair) in &pairs {
            take_datagrams(*track, pair, &mut buffer, &mut receiver, out);
        }
        out.flush();
        if receiver.is_over() {
            return SourceError::Ended("the camera said goodbye (RTCP BYE)".to_owned());
        }
        let overdue = receiver.deadline().map(tokio::time::Instant::from_std);
        tokio::select! {
            pumped = session.wire.pump() => if let Err(e) = pumped {
                return ended(session, e);
            },
            () = udp::readable(&sockets), if !sockets.is_empty() => {}
            () = tokio::time::sleep_until(overdue.unwrap_or_else(tokio::time::Instant::now)), if overdue.is_some() => {
                receiver.flush(Instant::now(), out);
            }
            _ = ticks.tick() => {
                let now = Instant::now();
                let silent = now.saturating_duration_since(receiver.last_media());
                if silent >= session.url.timeout {
                    return SourceError::Ended(format!("no media for {} s", session.url.timeout.as_secs()));
                }
                if now >= keepalive.due {
                    // One that was never answered is forgotten: cameras that send media without answering are kept.
                    (keepalive.due, keepalive.open) = (now + keepalive.interval, Some(0));
                    if let Err(e) = session.send_keepalive() {
                        return ended(session, e);
                    }
                }
                if now >= report_due {
                    report_due = now + REPORT_INTERVAL;
                    for (track, pair) in &pairs {
                        receiver.report(*track, now, &mut report);
                        pair.send_rtcp(&report);
                    }
                }
            }
        }
    }
}

/// Takes all messages that are read already.
fn take_messages<O: Output>(
    session: &mut Session,
    receiver: &mut Receiver,
    keepalive: &mut Keepalive,
    out: &mut O,
) -> Result<(), WireError> {
    let arrival = Instant::now();
    while let Some(message) = session.wire.next_message()? {
        match message {
            Incoming::Data { channel, payload } => receiver.interleaved(channel, payload, arrival, out),
            Incoming::Request(request, _) => session.answer(&request)?,
            Incoming::Response(answer, _) => {
                let Some(attempts) = keepalive.open.take() else { continue };
                if session.take_keepalive_answer(&answer, attempts) {
                    keepalive.open = Some(attempts + 1);
                    session.send_keepalive()?;
                }
            }
        }
    }
    Ok(())
}

fn take_datagrams<O: Output>(
    track: usize,
    pair: &UdpPair,
    buffer: &mut [u8],
    receiver: &mut Receiver,
    out: &mut O,
) {
    let arrival = Instant::now();
    for _ in 0..DATAGRAMS_AT_ONCE {
        let Some((kind, length)) = pair.try_receive(buffer) else { return };
        let packet = buffer.get(..length).unwrap_or_default();
        match kind {
            Received::Rtp => receiver.rtp(track, packet, arrival, out),
            Received::Rtcp => receiver.rtcp(track, packet, arrival, out),
        }
    }
}

/// Waits until something comes by UDP; false if nothing does in time, as behind a firewall.
///
/// # Errors
/// When the camera ends the session meanwhile.
pub async fn udp_comes_through(
    session: &mut Session,
    setups: &[Setup],
    wait: Duration,
) -> Result<bool, SourceError> {
    let sockets: Vec<&UdpPair> = setups.iter().filter_map(|s| s.udp.as_ref()).collect();
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        loop {
            match session.wire.next_message() {
                Ok(Some(Incoming::Request(request, _))) => {
                    session.answer(&request).map_err(|e| ended(session, e))?
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) => return Err(ended(session, e)),
            }
        }
        tokio::select! {
            pumped = session.wire.pump() => pumped.map_err(|e| ended(session, e))?,
            () = udp::media_waits(&sockets) => return Ok(true),
            () = tokio::time::sleep_until(deadline) => return Ok(false),
        }
    }
}

fn ended(session: &Session, error: WireError) -> SourceError {
    SourceError::Ended(match error {
        WireError::Closed(why) => why,
        WireError::Nonsense(why) => session.url.hide(&why),
    })
}
