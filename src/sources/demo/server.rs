//! A small RTSP server that plays the clip to its clients, round and round.

use super::dialog::Dialog;
use super::lineup::Lineup;
use super::playback::Playback;
use crate::rtsp::{Framer, Incoming, Limits};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a client may take to ask for something before it plays.
const IDLE: Duration = Duration::from_secs(20);
/// How long a client may take to read what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait after accepting failed, e.g. for want of file descriptors.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves until it is dropped, which closes all connections.
pub async fn serve(listener: TcpListener, lineup: Arc<Lineup>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if clients.len() < lineup.max_clients => {
                    let lineup = lineup.clone();
                    clients.spawn(async move {
                        if let Err(error) = converse(stream, lineup).await {
                            tracing::debug!(%peer, "a client of the demo camera is gone: {error}");
                        }
                    });
                }
                Ok((_, peer)) => tracing::debug!(%peer, "the demo camera has no place for a further client"),
                Err(error) => {
                    tracing::debug!("the demo camera can't accept: {error}");
                    tokio::time::sleep(BREATHER).await;
                }
            },
            Some(_) = clients.join_next() => {}
        }
    }
}

/// One client, until it leaves or doesn't keep its deadlines.
async fn converse(mut stream: TcpStream, lineup: Arc<Lineup>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut dialog = Dialog::new(lineup);
    let mut framer = Framer::new(Limits::SERVER);
    let mut out = Vec::new();
    let mut patient_until = Instant::now() + IDLE;
    loop {
        let wake = dialog.playback.as_ref().map_or(Some(patient_until), Playback::due);
        tokio::select! {
            ready = stream.readable() => {
                ready?;
                match stream.try_read(framer.space()) {
                    Ok(0) => return Ok(()),
                    Ok(count) => framer.filled(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
                while let Some(message) = framer.next_message().map_err(io::Error::other)? {
                    if let Incoming::Request(request, _) = message {
                        let answer = dialog.answer(&request, Instant::now(), SystemTime::now());
                        send(&mut stream, answer.as_bytes()).await?;
                        patient_until = Instant::now() + IDLE;
                    }
                    if dialog.is_over {
                        return Ok(());
                    }
                }
            }
            () = sleep_until(wake.unwrap_or(patient_until)), if wake.is_some() => {
                let Some(playback) = &mut dialog.playback else {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it asked for nothing"));
                };
                out.clear();
                playback.write_next(SystemTime::now(), &mut out);
                send(&mut stream, &out).await?;
            }
        }
    }
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it doesn't read what it is sent");
    timeout(PATIENCE, stream.write_all(bytes)).await.map_err(late)?
}
