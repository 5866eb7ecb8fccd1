//! What a player asks and what it is told (RFC 2326 §10): one stream described, one session set up and played.

use super::feeds::{Leased, lease};
use super::outgoing::Outgoing;
use super::playback::{Got, Playback, RtpStream, Sink};
use super::target::{TRACK, Target};
use super::udp::{Udp, UdpSession, UdpSink};
use super::{Peer, RtspServer};
use crate::graph::{ConnectError, ConsumerGuard, ConsumerInfo, EndReason, Feed, SourceError, Stream};
use crate::media::rtp::header::report_blocks;
use crate::media::{StreamTime, Track};
use crate::rtsp::framing::data_head;
use crate::rtsp::message::Draft;
use crate::rtsp::{Request, Transport, sdp};
use crate::telemetry::mask;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Our name in answers.
pub const SERVER: &str = concat!("Streamgate/", env!("CARGO_PKG_VERSION"));
/// What can be asked for.
const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER";
/// How long a session lives without a sign of life.
const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
/// A sign of life may be this late.
const GRACE: Duration = Duration::from_secs(10);
/// UDP ports below this are those of services.
const FIRST_PLAYERS_PORT: u16 = 1024;

/// A status and its words, where they are not the usual ones.
type Refusal = (u16, Option<String>);

/// An answer, and what follows it.
pub struct Reply {
    /// The answer.
    pub draft: Draft,
    /// Media that was read to make the answer.
    pub first: Option<Media>,
    /// The connection is to be closed then.
    pub is_over: bool,
}

/// Something to be done about media.
pub enum Media {
    /// Packets were read.
    Got(Got),
    /// Datagrams were sent: so many packets and bytes.
    Sent(u64, u64),
}

/// What a URI was found to be.
struct Described {
    name: String,
    stream: Arc<Stream>,
    feeds: Vec<Feed>,
    tracks: Vec<Track>,
    cached: bool,
}

/// How a track is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tcp { rtp: u8, rtcp: u8 },
    Udp { rtp: SocketAddr, rtcp: SocketAddr },
}

struct Session {
    id: String,
    /// For each track that is described.
    ways: Vec<Option<Way>>,
    streams: Vec<RtpStream>,
    playback: Option<Playback>,
    udp: Option<UdpSession>,
    consumer: Option<ConsumerGuard>,
    skipped: u64,
    _place: OwnedSemaphorePermit,
}

/// One player's conversation.
pub struct Dialog {
    server: Arc<RtspServer>,
    peer: Peer,
    user_agent: String,
    described: Option<Described>,
    session: Option<Session>,
    end: CancellationToken,
}

impl Dialog {
    /// Nothing was said.
    pub fn new(server: Arc<RtspServer>, peer: Peer) -> Dialog {
        let (user_agent, end) = (String::new(), server.cancel.child_token());
        Dialog { server, peer, user_agent, described: None, session: None, end }
    }

    /// The player's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer.remote
    }

    /// How long the player may be silent; `None` without a session.
    pub fn patience(&self) -> Option<Duration> {
        self.session.as_ref().map(|_| SESSION_TIMEOUT + GRACE)
    }

    /// When the player was last heard by UDP.
    pub fn heard(&self) -> Option<Instant> {
        self.session.as_ref()?.udp.as_ref().map(UdpSession::heard)
    }

    /// Whether media goes over the connection.
    pub fn is_playing_tcp(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.playback.is_some() && session.udp.is_none())
    }

    /// Whether a picture was begun whose rest should follow.
    pub fn is_inside_unit(&self) -> bool {
        let playback = self.session.as_ref().and_then(|session| session.playback.as_ref());
        playback.is_some_and(Playback::is_inside_unit)
    }

    /// Cancelled when the connection is to end: the stream was removed, somebody ended this viewer, the player said
    /// goodbye by UDP, or the server ends.
    pub fn end(&self) -> &CancellationToken {
        &self.end
    }

    /// Waits for media to be read, or sends what waits. Cancel-safe.
    pub async fn media(&mut self, sparing: bool) -> Media {
        let Some(Session { playback: Some(playback), udp, .. }) = &mut self.session else {
            return std::future::pending().await;
        };
        match udp {
            Some(udp) if !udp.is_idle() => {
                let (packets, bytes) = udp.send_some().await;
                Media::Sent(packets, bytes)
            }
            _ => Media::Got(playback.read(sparing).await),
        }
    }

    /// Queues what was read.
    ///
    /// # Errors
    /// Why the session can't go on.
    pub fn take_media(&mut self, media: Media, out: &mut Outgoing) -> Result<(), &'static str> {
        let got = match media {
            Media::Sent(packets, bytes) => {
                self.count((packets, bytes));
                return Ok(());
            }
            Media::Got(got) => got,
        };
        let Some(session) = &mut self.session else { return Ok(()) };
        let Some(playback) = &mut session.playback else { return Ok(()) };
        let now = std::time::Instant::now();
        let written = match &mut session.udp {
            Some(udp) => playback.write(&got, now, &mut UdpSink(udp)),
            None => playback.write(&got, now, &mut TcpSink { out, ways: &session.ways }),
        };
        let skipped = playback.skipped();
        if let Some(consumer) = &session.consumer {
            consumer.drops.fetch_add(skipped.saturating_sub(session.skipped), Relaxed);
            if let Some(udp) = &session.udp {
                consumer.loss_permille.store(udp.loss_permille(), Relaxed);
                consumer.rtt_us.store(udp.rtt_us(), Relaxed);
            }
        }
        session.skipped = skipped;
        written
    }

    /// Counts packets and bytes that were sent.
    pub fn count(&self, (packets, bytes): (u64, u64)) {
        if let Some(consumer) = self.session.as_ref().and_then(|session| session.consumer.as_ref()) {
            consumer.packets.fetch_add(packets, Relaxed);
            consumer.bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// Takes an interleaved packet of the player's. False if it is none that it should send.
    pub fn take_rtcp(&mut self, channel: u8, packet: &[u8]) -> bool {
        let Some(session) = &self.session else { return false };
        let is_rtcp = |way: &Way| matches!(way, Way::Tcp { rtcp, .. } if *rtcp == channel);
        let is_ours = session.ways.iter().flatten().any(is_rtcp);
        if let (true, Some(consumer)) = (is_ours, &session.consumer)
            && let Some(worst) = report_blocks(packet).map(|block| block.fraction_lost).max()
        {
            consumer.loss_permille.store(u32::from(worst) * 1000 / 256, Relaxed);
        }
        is_ours
    }

    /// Ends the session, if there is one.
    pub fn end_session(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        if let (Some(udp), Some(playback)) = (&mut session.udp, &session.playback) {
            playback.say_goodbye(std::time::Instant::now(), &mut UdpSink(udp));
            udp.send_reports();
        }
        let name = self.described.as_ref().map(|described| described.name.as_str());
        if session.consumer.is_some() {
            tracing::info!(stream = name, peer = %self.peer.remote, "RTSP viewer left");
        }
    }

    /// Answers a request.
    pub async fn answer(&mut self, request: &Request) -> Reply {
        let cseq = request.headers.get("CSeq").filter(|cseq| cseq.len() <= 20);
        let dated = |draft: Draft| draft.with("Server", SERVER);
        let mut reply =
            Reply { draft: dated(Draft::response(200, cseq.unwrap_or("0"))), first: None, is_over: false };
        let done = match cseq {
            Some(_) => self.react(request, &mut reply).await,
            None => Err((400, Some("Bad Request: CSeq is missing".to_owned()))),
        };
        if let Err((status, words)) = done {
            let cseq = cseq.unwrap_or("0");
            let draft = match words {
                Some(words) => Draft::response_saying(status, &words, cseq),
                None => Draft::response(status, cseq),
            };
            reply.draft = dated(draft);
            if matches!(status, 405 | 501) {
                reply.draft = reply.draft.with("Allow", METHODS);
            }
            if status == 551 {
                reply.draft = reply.draft.with_some("Unsupported", request.headers.get("Require"));
            }
        }
        reply
    }

    async fn react(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Refusal> {
        if request.headers.get("Require").is_some() {
            return Err((551, None));
        }
        if let Some(agent) = request.headers.get("User-Agent") {
            self.user_agent = agent.chars().take(200).collect();
        }
        let id = self.session.as_ref().map(|session| session.id.clone());
        if let Some(given) = request.headers.get("Session") {
            let given = given.split(';').next().unwrap_or_default().trim();
            if id.as_deref() != Some(given) {
                return Err((454, None));
            }
        }
        match request.method.as_str() {
            "OPTIONS" => reply.draft.add("Public", METHODS),
            "DESCRIBE" => return self.describe(request, reply).await,
            "SETUP" => return self.setup(request, reply).await,
            "GET_PARAMETER" | "SET_PARAMETER" => {}
            "PLAY" | "PAUSE" | "TEARDOWN" if id.is_none() => return Err((454, None)),
            "PLAY" => self.play(request, reply)?,
            "PAUSE" => self.pause(),
            "TEARDOWN" => {
                self.end_session();
                reply.is_over = true;
                return Ok(());
            }
            "ANNOUNCE" | "RECORD" | "REDIRECT" => return Err((405, None)),
            _ => return Err((501, None)),
        }
        if let Some(id) = id {
            reply.draft.add("Session", &format!("{id};timeout={}", SESSION_TIMEOUT.as_secs()));
        }
        Ok(())
    }

    async fn describe(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Refusal> {
        if self.session.is_some() {
            return Err((455, None));
        }
        let target = Target::parse(&request.uri).map_err(|(status, words)| (status, Some(words)))?;
        if target.track.is_some() {
            return Err((404, None));
        }
        // What was described before is let go only when the new source is leased.
        let described = find(&self.server, target).await?;
        let controls: Vec<String> =
            (0..described.tracks.len()).map(|track| format!("{TRACK}{track}")).collect();
        let tracks = described.tracks.iter().zip(&controls);
        let tracks = tracks.map(|(track, control)| (track, sdp::payload_type(track), control.as_str()));
        let description = sdp::describe(&described.name, tracks);
        let base = request.uri.split('?').next().unwrap_or_default().trim_end_matches('/');
        let base = percent_encoding::utf8_percent_encode(base, percent_encoding::CONTROLS);
        self.described = Some(described);
        reply.draft.add("Content-Base", &format!("{base}/"));
        reply.draft.set_body("application/sdp", description);
        Ok(())
    }

    async fn setup(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Refusal> {
        let target = Target::parse(&request.uri).map_err(|(status, words)| (status, Some(words)))?;
        // Some players know from before what they will get.
        if self.described.as_ref().is_none_or(|described| described.name != target.name) {
            if self.session.is_some() {
                return Err((459, None));
            }
            self.described = Some(find(&self.server, target.clone()).await?);
        }
        let Some(described) = &self.described else { return Err((404, None)) };
        let index = match target.track {
            Some(index) => index,
            None if described.tracks.len() == 1 => 0,
            None => return Err((459, None)),
        };
        if index >= described.tracks.len() {
            return Err((404, Some("Not Found: no such track".to_owned())));
        }
        if self.session.as_ref().is_some_and(|session| session.playback.is_some()) {
            return Err((455, None));
        }
        if self.session.is_none() {
            let busy =
                || (453, Some("Not Enough Bandwidth: there are too many RTSP sessions already".to_owned()));
            let place = self.server.take_place().ok_or_else(busy)?;
            self.session = Some(Session {
                id: format!("{:016x}", rand::random::<u64>()),
                ways: vec![None; described.tracks.len()],
                streams: described.tracks.iter().map(|t| RtpStream::new(t, sdp::payload_type(t))).collect(),
                playback: None,
                udp: None,
                consumer: None,
                skipped: 0,
                _place: place,
            });
        }
        let Some(session) = &mut self.session else { return Err((454, None)) };
        let ssrc = session.streams.get(index).map_or(0, |stream| stream.ssrc);
        let mut refusal = (461, None);
        let offers = Transport::parse_all(request.headers.get("Transport").unwrap_or_default());
        for offer in offers.iter().filter(|offer| is_plain(offer)) {
            let way = match offer.is_tcp {
                true => session.way_by_tcp(offer, index).map_err(str::to_owned),
                false => session.way_by_udp(offer, index, &self.server.udp, self.peer, &self.end),
            };
            let (way, transport) = match way {
                Ok(found) => found,
                Err(why) => {
                    refusal = (461, Some(format!("Unsupported Transport: {why}")));
                    continue;
                }
            };
            if let Some(slot) = session.ways.get_mut(index) {
                *slot = Some(way);
            }
            reply.draft.add("Transport", &format!("{transport};ssrc={ssrc:08X}"));
            reply.draft.add("Session", &format!("{};timeout={}", session.id, SESSION_TIMEOUT.as_secs()));
            return Ok(());
        }
        if session.ways.iter().all(Option::is_none) {
            self.session = None;
        }
        Err(refusal)
    }

    fn play(&mut self, request: &Request, reply: &mut Reply) -> Result<(), Refusal> {
        let (Some(described), Some(session)) = (&self.described, &mut self.session) else {
            return Err((454, None));
        };
        reply.draft.add("Range", "npt=0-");
        if session.playback.is_some() {
            return Ok(());
        }
        let feeds: Vec<Option<&Feed>> =
            described.feeds.iter().zip(&session.ways).map(|(feed, way)| way.map(|_| feed)).collect();
        if session.consumer.is_none() {
            let info = ConsumerInfo {
                format_name: "rtsp",
                protocol: if session.udp.is_some() { "rtsp+udp" } else { "rtsp+tcp" },
                remote_addr: self.peer.remote.to_string(),
                user_agent: self.user_agent.clone(),
                codecs: feeds.iter().filter_map(|feed| (*feed)?.codec()).collect(),
                ..ConsumerInfo::default()
            };
            let end = self.end.clone();
            let on_end = Box::new(move |_: EndReason| end.cancel());
            let consumer = described.stream.add_consumer(info, on_end).map_err(refusal)?;
            session.consumer = Some(consumer);
            tracing::info!(stream = described.name, peer = %self.peer.remote, "RTSP viewer");
        }
        let streams = session.streams.clone();
        let mut playback = Playback::start(&feeds, streams, described.cached);
        let first = playback.read_now();
        let times = first.as_ref().and_then(|got| playback.first_timestamps(got)).unwrap_or_default();
        let base = request.uri.split('?').next().unwrap_or_default().trim_end_matches('/');
        let infos = playback.streams().iter().enumerate().zip(&session.ways).filter(|(_, way)| way.is_some());
        let infos: Vec<String> = infos
            .map(|((index, stream), _)| {
                let time = times.iter().find(|(stream, _)| *stream == index);
                let time = time.map_or_else(String::new, |(_, time)| format!(";rtptime={time}"));
                format!("url={base}/{TRACK}{index};seq={}{time}", stream.sequence)
            })
            .collect();
        reply.draft.add("RTP-Info", &infos.join(","));
        session.playback = Some(playback);
        reply.first = first.map(Media::Got);
        Ok(())
    }

    fn pause(&mut self) {
        let Some(session) = &mut self.session else { return };
        if let Some(playback) = session.playback.take() {
            session.streams = playback.into_streams();
            session.skipped = 0;
            if let Some(udp) = &mut session.udp {
                udp.forget_media();
            }
        }
    }
}

/// RTP to one player, and nothing that we don't do.
fn is_plain(offer: &Transport) -> bool {
    offer.is_rtp && !offer.is_multicast && !offer.is_record && !offer.is_malformed
}

impl Session {
    fn way_by_tcp(&self, offer: &Transport, index: usize) -> Result<(Way, String), &'static str> {
        if self.udp.is_some() {
            return Err("another track of this session is sent by UDP");
        }
        let others = self.ways.iter().enumerate().filter(|(other, _)| *other != index);
        let taken: Vec<u8> = others
            .filter_map(|(_, way)| match way {
                Some(Way::Tcp { rtp, rtcp }) => Some([*rtp, *rtcp]),
                _ => None,
            })
            .flatten()
            .collect();
        let free = |(rtp, rtcp): &(u8, u8)| rtp != rtcp && !taken.contains(rtp) && !taken.contains(rtcp);
        let (rtp, rtcp) = match offer.interleaved {
            Some(channels) => Some(channels).filter(free),
            None => (0..127_u8).map(|pair| (pair * 2, pair * 2 + 1)).find(free),
        }
        .ok_or("these channels are taken")?;
        Ok((Way::Tcp { rtp, rtcp }, format!("RTP/AVP/TCP;unicast;interleaved={rtp}-{rtcp}")))
    }

    fn way_by_udp(
        &mut self,
        offer: &Transport,
        index: usize,
        ports: &Udp,
        peer: Peer,
        end: &CancellationToken,
    ) -> Result<(Way, String), String> {
        if peer.is_tls {
            return Err("media by UDP would not be encrypted: use TCP".to_owned());
        }
        if self.ways.iter().flatten().any(|way| matches!(way, Way::Tcp { .. })) {
            return Err("another track of this session is sent by TCP".to_owned());
        }
        let (rtp_port, rtcp_port) = offer.client_port.ok_or("client_port is missing")?;
        // No player asks for these; a service that listens there is not to be talked to.
        if rtp_port.min(rtcp_port) < FIRST_PLAYERS_PORT {
            return Err(format!("client_port must be {FIRST_PLAYERS_PORT} or more"));
        }
        // Whatever `destination` says: nobody but who asks is sent anything.
        let at = |port| SocketAddr::new(peer.remote.ip(), port);
        let (rtp, rtcp) = (at(rtp_port), at(rtcp_port));
        if self.udp.is_none() {
            self.udp = Some(ports.session(peer.local.ip(), end)?);
        }
        let Some(udp) = &mut self.udp else { return Err("there is no UDP".to_owned()) };
        udp.send_to(index, rtp, rtcp)?;
        let (ours, ours_rtcp) = udp.ports();
        Ok((
            Way::Udp { rtp, rtcp },
            format!("RTP/AVP/UDP;unicast;client_port={rtp_port}-{rtcp_port};server_port={ours}-{ours_rtcp}"),
        ))
    }
}

/// Packets into the connection's queue.
struct TcpSink<'s> {
    out: &'s mut Outgoing,
    ways: &'s [Option<Way>],
}

impl Sink for TcpSink<'_> {
    fn rtp(&mut self, track: usize, header: [u8; 12], payload: Arc<[u8]>, _time: StreamTime) {
        if let Some(Some(Way::Tcp { rtp, .. })) = self.ways.get(track) {
            self.out.push_media(*rtp, header, payload);
        }
    }

    fn rtcp(&mut self, track: usize, packet: Vec<u8>) {
        if let Some(Some(Way::Tcp { rtcp, .. })) = self.ways.get(track) {
            let length = u16::try_from(packet.len()).unwrap_or(0);
            self.out.push_text([&data_head(*rtcp, length)[..], &packet].concat());
        }
    }
}

/// Finds the stream and leases its sources; waits until they are described.
async fn find(server: &RtspServer, target: Target) -> Result<Described, Refusal> {
    let Target { name, wants, cached, .. } = target;
    let unknown = || (404, Some(format!("Not Found: there is no stream {name:?}")));
    let stream = server.registry.get(&name).ok_or_else(unknown)?;
    let Leased { feeds, tracks } =
        lease(&stream, &wants, server.options.source_deadline).await.map_err(refusal)?;
    Ok(Described { name, stream, feeds, tracks, cached })
}

/// A failed connect as a status with its reason.
fn refusal(error: ConnectError) -> Refusal {
    let status = match &error {
        ConnectError::NoCommonCodec { .. } => 415,
        ConnectError::Source(SourceError::TimedOut(_)) => 504,
        ConnectError::Source(_) => 503,
        ConnectError::Removed => 404,
    };
    let words: String = mask(&error.to_string()).chars().take(300).collect();
    (status, Some(format!("{}: {words}", crate::rtsp::message::reason(status))))
}
