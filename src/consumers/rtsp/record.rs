//! One connection to a server that records: ANNOUNCE, SETUP, RECORD (RFC 2326 §10.3, §10.11), then media over it.

use super::connection::{Done, poll_io};
use super::feeds::Leased;
use super::outgoing::Outgoing;
use super::playback::{Playback, RtpStream, Sink};
use super::target::TRACK;
use crate::graph::{Consumer, Feed};
use crate::media::StreamTime;
use crate::net::{self, Stream};
use crate::rtsp::auth::{Auth, Challenged};
use crate::rtsp::framing::data_head;
use crate::rtsp::message::Draft;
use crate::rtsp::url::{RtspUrl, not_connected};
use crate::rtsp::{Framer, Incoming, Limits, Response, Transport, sdp};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

const USER_AGENT: &str = super::dialog::SERVER;
/// Between two keepalives.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long the server may read nothing.
const STALLED: Duration = Duration::from_secs(20);
/// Most bytes of a picture's rest that are queued for a slow server.
const MAX_QUEUE: usize = 8 * 1024 * 1024;

/// A connection and the session on it. Dropping it ends both.
struct Recorder<'u> {
    url: &'u RtspUrl,
    stream: Box<dyn Stream>,
    framer: Framer,
    auth: Auth,
    cseq: u32,
    session: Option<String>,
}

/// Publishes until something fails, and says what. `live` is called when the server records.
pub async fn record(
    url: &RtspUrl,
    leased: &Leased,
    name: &str,
    consumer: &Consumer,
    live: impl FnOnce(),
) -> String {
    let stream = match net::connect(&url.host, url.port, url.security, url.timeout).await {
        Ok(connected) => connected.stream,
        Err(error) => return not_connected(&error),
    };
    let started = timeout(url.timeout * 2, Recorder::start(url, stream, leased, name)).await;
    let started = started.unwrap_or_else(|_| Err(format!("{} doesn't answer in time", url.peer())));
    let (mut recorder, channels) = match started {
        Ok(started) => started,
        Err(why) => return why,
    };
    live();
    match recorder.send_media(leased, &channels, consumer).await {
        Ok(()) => "the server closed the connection".to_owned(),
        Err(why) => why,
    }
}

/// How a connection broke. Over TLS a server that just closes it says less than it should.
fn broke(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => format!("the connection broke: {error}"),
    }
}

impl Recorder<'_> {
    async fn start<'u>(
        url: &'u RtspUrl,
        stream: Box<dyn Stream>,
        leased: &Leased,
        name: &str,
    ) -> Result<(Recorder<'u>, Vec<(u8, u8)>), String> {
        let auth = Auth::new(url.credentials.clone());
        let framer = Framer::new(Limits::SERVER);
        let mut recorder = Recorder { url, stream, framer, auth, cseq: 0, session: None };
        let uri = url.request_uri.clone();
        let controls: Vec<String> = (0..leased.tracks.len()).map(|track| format!("{TRACK}{track}")).collect();
        let tracks = leased.tracks.iter().zip(&controls);
        let tracks = tracks.map(|(track, control)| (track, sdp::payload_type(track), control.as_str()));
        recorder.ask("ANNOUNCE", &uri, &[], Some(sdp::describe(name, tracks))).await?;
        let mut channels = Vec::new();
        for (control, index) in controls.iter().zip(0_u8..) {
            let proposed = (index * 2, index * 2 + 1);
            let transport =
                format!("RTP/AVP/TCP;unicast;interleaved={}-{};mode=record", proposed.0, proposed.1);
            let below = format!("{}/{control}", uri.trim_end_matches('/'));
            let answer = recorder.ask("SETUP", &below, &[("Transport", &transport)], None).await?;
            if let Some(session) = answer.headers.get("Session") {
                recorder.session = Some(session.split(';').next().unwrap_or_default().trim().to_owned());
            }
            let granted = answer.headers.get("Transport").map(Transport::parse).unwrap_or_default();
            channels.push(granted.interleaved.unwrap_or(proposed));
        }
        recorder.ask("RECORD", &uri, &[("Range", "npt=0-")], None).await?;
        Ok((recorder, channels))
    }

    /// Asks and waits for a good answer, through logging in.
    async fn ask(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Response, String> {
        for attempts in 0.. {
            let mut draft = self.draft(method, uri).with_all(headers);
            if let Some(body) = &body {
                draft.set_body("application/sdp", body.clone());
            }
            let lost = |error: io::Error| format!("{} (at {method})", broke(&error));
            self.stream.write_all(draft.finish().as_bytes()).await.map_err(lost)?;
            self.stream.flush().await.map_err(lost)?;
            let answer = self.answer().await.map_err(|why| format!("{why} (asked for {method})"))?;
            if answer.is_success() {
                self.auth.accepted();
                return Ok(answer);
            }
            if answer.status != 401 {
                let reason: String = answer.reason.chars().take(60).collect();
                return Err(self
                    .url
                    .hide(&format!("{} {reason}: the server's answer to {method}", answer.status)));
            }
            let challenge = answer.headers.get("WWW-Authenticate");
            if let Challenged::GiveUp(why) = self.auth.challenged(challenge, attempts) {
                return Err(format!("401 Unauthorized: {why}"));
            }
        }
        Err("401 Unauthorized".to_owned())
    }

    fn draft(&mut self, method: &str, uri: &str) -> Draft {
        self.cseq = self.cseq.wrapping_add(1);
        let authorization = self.auth.authorization(method, uri);
        Draft::request(method, uri, self.cseq)
            .with("User-Agent", USER_AGENT)
            .with_some("Session", self.session.as_deref())
            .with_some("Authorization", authorization.as_deref())
    }

    async fn answer(&mut self) -> Result<Response, String> {
        loop {
            match self.framer.next_message().map_err(|why| format!("the server {why}"))? {
                Some(Incoming::Response(answer, _)) if answer.status >= 200 => return Ok(answer),
                Some(_) => {}
                None => match self.stream.read(self.framer.space()).await {
                    Ok(0) => return Err("the server closed the connection".to_owned()),
                    Ok(count) => self.framer.filled(count),
                    Err(error) => return Err(broke(&error)),
                },
            }
        }
    }

    async fn send_media(
        &mut self,
        leased: &Leased,
        channels: &[(u8, u8)],
        consumer: &Consumer,
    ) -> Result<(), String> {
        let streams = leased.tracks.iter().map(|track| RtpStream::new(track, sdp::payload_type(track)));
        let feeds: Vec<Option<&Feed>> = leased.feeds.iter().map(Some).collect();
        let mut playback = Playback::start(&feeds, streams.collect(), true);
        let mut out = Outgoing::default();
        let (mut progress, mut skipped) = (Instant::now(), 0);
        let mut keepalive = interval(KEEPALIVE / 4);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut keepalive_due = Instant::now() + KEEPALIVE;
        loop {
            while let Some(message) = self.framer.next_message().map_err(|why| format!("the server {why}"))? {
                if let Incoming::Response(answer, _) = message
                    && matches!(answer.status, 454 | 500..)
                {
                    return Err(format!("{}: the server's answer to a keepalive", answer.status));
                }
            }
            let takes_media = out.is_idle() || (playback.is_inside_unit() && out.bytes() < MAX_QUEUE);
            let sparing = !out.is_idle();
            let (stream, framer, queue) = (&mut *self.stream, &mut self.framer, &mut out);
            tokio::select! {
                biased;
                done = poll_fn(|cx| poll_io(stream, queue, framer, true, cx)) => {
                    match done.map_err(|error| broke(&error))? {
                        Done::Wrote => {
                            progress = Instant::now();
                            let (packets, bytes) = out.take_sent();
                            consumer.packets.fetch_add(packets, Relaxed);
                            consumer.bytes.fetch_add(bytes, Relaxed);
                        }
                        Done::Read => {}
                        Done::Closed => return Ok(()),
                    }
                }
                got = playback.read(sparing), if takes_media => {
                    if out.is_idle() {
                        progress = Instant::now();
                    }
                    let sink = &mut Interleaved { out: &mut out, channels };
                    playback.write(&got, std::time::Instant::now(), sink)?;
                    let now = playback.skipped();
                    consumer.drops.fetch_add(now - skipped, Relaxed);
                    skipped = now;
                }
                _ = keepalive.tick() => {
                    if !out.is_idle() && progress.elapsed() >= STALLED {
                        return Err("the server stopped reading".to_owned());
                    }
                    if keepalive_due <= Instant::now() {
                        keepalive_due = Instant::now() + KEEPALIVE;
                        let uri = self.url.request_uri.clone();
                        out.push_text(self.draft("OPTIONS", &uri).finish().into_bytes());
                    }
                }
            }
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if self.session.is_some() {
            let uri = self.url.request_uri.clone();
            let farewell = self.draft("TEARDOWN", &uri).finish();
            // Best effort, at once or not at all: the connection's end says the same.
            let cx = &mut Context::from_waker(Waker::noop());
            if let Poll::Ready(Ok(_)) = Pin::new(&mut self.stream).poll_write(cx, farewell.as_bytes()) {
                let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
            }
        }
    }
}

struct Interleaved<'s> {
    out: &'s mut Outgoing,
    channels: &'s [(u8, u8)],
}

impl Sink for Interleaved<'_> {
    fn rtp(&mut self, track: usize, header: [u8; 12], payload: Arc<[u8]>, _time: StreamTime) {
        if let Some((rtp, _)) = self.channels.get(track) {
            self.out.push_media(*rtp, header, payload);
        }
    }

    fn rtcp(&mut self, track: usize, packet: Vec<u8>) {
        if let Some((_, rtcp)) = self.channels.get(track) {
            let length = u16::try_from(packet.len()).unwrap_or(0);
            self.out.push_text([&data_head(*rtcp, length)[..], &packet].concat());
        }
    }
}
