//! One connection: requests in, answers and media out, in one task and through one queue.

use super::dialog::{Dialog, Reply};
use super::outgoing::Outgoing;
use super::{Peer, RtspServer, Stream};
use crate::rtsp::guard::{Guard, Verdict};
use crate::rtsp::message::Draft;
use crate::rtsp::{Framer, Incoming, Limits, Request};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// With so many bytes of answers waiting, no more requests are read.
const MAX_ANSWERS: usize = 64 * 1024;
/// The rest of an access unit is queued up to so many bytes for a player that is slow.
const MAX_QUEUE: usize = 8 * 1024 * 1024;
/// Requests that are read ahead while one is being answered.
const MAX_AHEAD: usize = 16 * 1024;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long a player may take from one request to the next when nothing is set up.
const IDLE: Duration = Duration::from_secs(30);
/// How long a player may stop reading.
const STALLED: Duration = Duration::from_secs(60);
/// Wrong passwords on one connection.
const MAX_FAILURES: u32 = 5;

/// What the socket did.
pub enum Done {
    /// Some of what waited is written.
    Wrote,
    /// Something was read.
    Read,
    /// The other side sends nothing any more.
    Closed,
}

/// Serves the connection and says why it ended.
pub async fn converse(server: Arc<RtspServer>, mut stream: Box<dyn Stream>, peer: Peer) -> String {
    let login = server.login.read().clone();
    let mut connection = Connection {
        dialog: Dialog::new(server.clone(), peer),
        guard: login.map(|login| Guard::new(&login.username, &login.password)),
        failures: 0,
        framer: Framer::new(Limits::SERVER),
        out: Outgoing::default(),
        heard: Instant::now(),
        progress: Instant::now(),
        is_over: false,
    };
    let end = connection.dialog.end().clone();
    let ended = tokio::select! {
        () = end.cancelled() => "it was told to, or said goodbye".to_owned(),
        ended = connection.run(&mut *stream) => ended.unwrap_or_else(|error| error.to_string()),
    };
    connection.dialog.end_session();
    ended
}

struct Connection {
    dialog: Dialog,
    /// `None`: everybody may watch, or this player has said the password.
    guard: Option<Guard>,
    failures: u32,
    framer: Framer,
    out: Outgoing,
    /// When the player last asked for something, or reported.
    heard: Instant,
    /// When the player last read something.
    progress: Instant,
    /// To be closed once everything is written.
    is_over: bool,
}

impl Connection {
    async fn run(&mut self, stream: &mut dyn Stream) -> io::Result<String> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !self.is_over && self.take_messages(stream).await? {
                return Ok("the player closed it".to_owned());
            }
            if self.is_over && self.out.is_idle() {
                return Ok("done".to_owned());
            }
            let inside = self.dialog.is_inside_unit();
            let may_read = !self.is_over && self.out.text() < MAX_ANSWERS;
            let takes_media = self.out.is_idle() || (inside && self.out.bytes() < MAX_QUEUE);
            let sparing = !self.out.is_idle();
            let (out, framer, dialog) = (&mut self.out, &mut self.framer, &mut self.dialog);
            tokio::select! {
                biased;
                done = poll_fn(|cx| poll_io(stream, out, framer, may_read, cx)) => match done? {
                    Done::Wrote => {
                        self.progress = Instant::now();
                        let sent = self.out.take_sent();
                        self.dialog.count(sent);
                    }
                    Done::Read => {}
                    Done::Closed => return Ok("the player closed it".to_owned()),
                },
                media = dialog.media(sparing), if takes_media => {
                    // What was queued from here on is what the player must take in time.
                    if self.out.is_idle() {
                        self.progress = Instant::now();
                    }
                    if let Err(why) = self.dialog.take_media(media, &mut self.out) {
                        return Ok(why.to_owned());
                    }
                }
                _ = ticks.tick() => if let Some(why) = self.overdue() {
                    return Ok(why.to_owned());
                },
            }
        }
    }

    /// Takes the messages that are read already. True when the player has gone meanwhile.
    async fn take_messages(&mut self, stream: &mut dyn Stream) -> io::Result<bool> {
        while self.out.text() < MAX_ANSWERS {
            match self.framer.next_message() {
                Ok(None) => break,
                Ok(Some(Incoming::Response(..))) => {}
                Ok(Some(Incoming::Data { channel, payload })) => {
                    if self.dialog.take_rtcp(channel, payload) {
                        self.heard = Instant::now();
                    }
                }
                Ok(Some(Incoming::Request(request, _))) => {
                    // Without the password nothing keeps a connection open.
                    if self.guard.is_none() {
                        self.heard = Instant::now();
                    }
                    if self.answer(request, stream).await? {
                        return Ok(true);
                    }
                }
                Err(why) => {
                    tracing::debug!("a player {why}");
                    self.out.push_text(Draft::response(400, "0").finish().into_bytes());
                    self.is_over = true;
                    break;
                }
            }
        }
        Ok(false)
    }

    async fn answer(&mut self, request: Request, stream: &mut dyn Stream) -> io::Result<bool> {
        if let Some(refusal) = self.refuse(&request) {
            self.out.push_text(refusal.finish().into_bytes());
            return Ok(false);
        }
        let reply = tokio::select! {
            reply = self.dialog.answer(&request) => reply,
            gone = read_ahead(stream, &mut self.framer) => return gone.map(|()| true),
        };
        if self.out.is_idle() {
            self.progress = Instant::now();
        }
        let Reply { draft, first, is_over } = reply;
        self.out.push_text(draft.finish().into_bytes());
        self.is_over |= is_over;
        if let Some(first) = first
            && self.dialog.take_media(first, &mut self.out).is_err()
        {
            self.is_over = true;
        }
        Ok(false)
    }

    /// What a player gets that has not logged in. OPTIONS is open to all.
    fn refuse(&mut self, request: &Request) -> Option<Draft> {
        let guard = self.guard.as_ref()?;
        let cseq = request.headers.get("CSeq").unwrap_or("0");
        if request.method == "OPTIONS" {
            return None;
        }
        let verdict = guard.check(&request.method, request.headers.get("Authorization"));
        if verdict == Verdict::Granted {
            self.guard = None;
            self.heard = Instant::now();
            return None;
        }
        if verdict == Verdict::Denied {
            self.failures += 1;
            self.is_over = self.failures >= MAX_FAILURES;
            let peer = self.dialog.peer();
            tracing::info!(%peer, "an RTSP player gave a wrong user name or password");
        }
        let challenges = guard.challenges(verdict == Verdict::Stale);
        let draft = Draft::response(401, cseq).with("Server", super::dialog::SERVER);
        Some(challenges.iter().fold(draft, |draft, challenge| draft.with("WWW-Authenticate", challenge)))
    }

    /// Why the connection is to be closed, if it is.
    fn overdue(&self) -> Option<&'static str> {
        if !self.out.is_idle() && self.progress.elapsed() >= STALLED {
            return Some("the player stopped reading");
        }
        let heard = self.dialog.heard().map_or(self.heard, |heard| heard.max(self.heard));
        match self.dialog.patience() {
            // TCP: that it reads is a sign of life.
            Some(_) if self.dialog.is_playing_tcp() => None,
            Some(patience) => (heard.elapsed() >= patience).then_some("the session timed out"),
            None => (heard.elapsed() >= IDLE).then_some("the player asked for nothing"),
        }
    }
}

/// Writes what waits, then reads once.
pub fn poll_io(
    stream: &mut dyn Stream,
    out: &mut Outgoing,
    framer: &mut Framer,
    may_read: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Done>> {
    if !out.is_idle()
        && let Poll::Ready(written) = out.poll_write(stream, cx)
    {
        return Poll::Ready(written.map(|_| Done::Wrote));
    }
    if !may_read {
        return Poll::Pending;
    }
    let mut space = ReadBuf::new(framer.space());
    match Pin::new(stream).poll_read(cx, &mut space) {
        Poll::Ready(Ok(())) => {
            let count = space.filled().len();
            framer.filled(count);
            Poll::Ready(Ok(if count == 0 { Done::Closed } else { Done::Read }))
        }
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

/// Reads what comes while a request is being answered, within bounds. Ends when the player has gone.
async fn read_ahead(stream: &mut dyn Stream, framer: &mut Framer) -> io::Result<()> {
    while framer.unparsed() < MAX_AHEAD {
        match stream.read(framer.space()).await? {
            0 => return Ok(()),
            count => framer.filled(count),
        }
    }
    std::future::pending().await
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
