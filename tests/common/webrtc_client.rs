//! A real WebRTC viewer on str0m: full ICE, DTLS, SRTP, over a loopback UDP socket or an ICE-TCP connection.
//! It collects decrypted RTP; it can lose packets, ask for keyframes, stop reading, vanish, or say goodbye.
#![allow(dead_code, reason = "each test file uses a part of this")]

use parking_lot::{Mutex, MutexGuard};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, KeyframeRequestKind, MediaKind, Mid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// How a viewer reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    /// ICE-TCP to the first TCP candidate of the answer; nothing goes by UDP.
    Tcp,
}

/// What a viewer offers.
#[derive(Debug, Clone)]
pub struct ViewerOptions {
    pub transport: Transport,
    /// Encoding names of video to offer: `H264`, `H265`, `VP8`. Empty: no video.
    pub video: Vec<&'static str>,
    /// The same of audio: `opus`, `PCMA`, `PCMU`.
    pub audio: Vec<&'static str>,
    /// Of received RTP packets, each `n`th is thrown away as if the network had lost it; 0: none. Lost video is asked
    /// for again (NACK), as any receiver does.
    pub lose_every: usize,
    /// Where its UDP socket is bound.
    pub address: Ipv4Addr,
}

impl Default for ViewerOptions {
    fn default() -> Self {
        ViewerOptions {
            transport: Transport::Udp,
            video: vec!["H264"],
            audio: vec!["opus", "PCMA", "PCMU"],
            lose_every: 0,
            address: Ipv4Addr::LOCALHOST,
        }
    }
}

/// One received RTP packet.
#[derive(Debug, Clone)]
pub struct Rtp {
    pub kind: MediaKind,
    pub payload_type: u8,
    /// Extended over wrap-arounds.
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    pub at: Instant,
}

/// A sender report: RTP timestamp and wall clock of one instant.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    pub kind: MediaKind,
    pub rtp_time: u64,
    pub ntp: SystemTime,
}

#[derive(Default)]
pub struct Seen {
    pub connected: Option<Instant>,
    /// The server said goodbye.
    pub closed: bool,
    /// In order of arrival.
    pub packets: Vec<Rtp>,
    pub reports: Vec<Report>,
    /// RTP packets thrown away by `lose_every`.
    pub lost: usize,
    pub error: Option<String>,
}

enum Order {
    Keyframe,
    Close,
    Vanish,
    StopReading,
    ReadSlowly(usize),
}

/// An offer that waits for its answer.
pub struct Offering {
    options: ViewerOptions,
    rtc: Rtc,
    pending: SdpPendingOffer,
    socket: Option<UdpSocket>,
    /// The SDP.
    pub offer: String,
}

/// A viewer that runs in a thread of its own.
pub struct Viewer {
    seen: Arc<Mutex<Seen>>,
    orders: SyncSender<Order>,
    gone: Arc<AtomicBool>,
}

impl Offering {
    /// Makes an offer.
    pub fn new(options: ViewerOptions) -> Offering {
        let mut config = RtcConfig::new().set_rtp_mode(true).clear_codecs().set_reordering_size_video(1000);
        for name in options.video.iter().chain(&options.audio) {
            config = match *name {
                "H264" => config.enable_h264(true),
                "H265" => config.enable_h265(true),
                "VP8" => config.enable_vp8(true),
                "opus" => config.enable_opus(true, false),
                "PCMA" => config.enable_pcma(true, false),
                "PCMU" => config.enable_pcmu(true, false),
                other => panic!("unknown codec {other}"),
            };
        }
        let mut rtc = config.build(Instant::now());
        let mut socket = None;
        if options.transport == Transport::Udp {
            let udp = UdpSocket::bind((options.address, 0)).expect("a UDP port");
            rtc.add_local_candidate(
                Candidate::host(udp.local_addr().expect("address"), "udp").expect("candidate"),
            );
            socket = Some(udp);
        }
        let mut changes = rtc.sdp_api();
        for (kind, codecs) in [(MediaKind::Audio, &options.audio), (MediaKind::Video, &options.video)] {
            if !codecs.is_empty() {
                changes.add_media(kind, Direction::RecvOnly, None, None, None);
            }
        }
        let (offer, pending) = changes.apply().expect("an offer");
        let offer = offer.to_sdp_string();
        Offering { options, rtc, pending, socket, offer }
    }

    /// Takes the answer and connects.
    pub fn connect(mut self, answer: &str) -> Viewer {
        let parsed = SdpAnswer::from_sdp_string(answer).unwrap_or_else(|e| panic!("answer: {e}\n{answer}"));
        let wire = match self.options.transport {
            Transport::Udp => {
                let socket = self.socket.take().expect("bound");
                socket.set_read_timeout(Some(Duration::from_millis(5))).expect("timeout");
                Wire::Udp(socket)
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(tcp_candidate(answer)).expect("ICE-TCP connects");
                stream.set_read_timeout(Some(Duration::from_millis(5))).expect("timeout");
                stream.set_nodelay(true).expect("nodelay");
                let local = stream.local_addr().expect("address");
                let candidate = Candidate::builder().tcp().host(local).tcptype(TcpType::Active).build();
                self.rtc.add_local_candidate(candidate.expect("candidate"));
                Wire::Tcp { stream, buffer: Vec::new(), rate: None }
            }
        };
        self.rtc.sdp_api().accept_answer(self.pending, parsed).unwrap_or_else(|e| panic!("{e}\n{answer}"));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let gone = Arc::new(AtomicBool::new(false));
        let (orders, received) = sync_channel(64);
        let mut client = Client {
            rtc: self.rtc,
            wire,
            options: self.options,
            seen: seen.clone(),
            mids: Vec::new(),
            rtp_count: 0,
            reading: true,
        };
        let done = gone.clone();
        std::thread::spawn(move || {
            if let Err(error) = client.run(&received) {
                client.seen().error = Some(error);
            }
            done.store(true, Ordering::Release);
        });
        Viewer { seen, orders, gone }
    }
}

/// The first TCP candidate of an answer.
fn tcp_candidate(answer: &str) -> SocketAddr {
    let line = answer.lines().find(|line| line.starts_with("a=candidate:") && line.contains(" tcp "));
    let words: Vec<&str> = line.expect("the answer has a TCP candidate").split(' ').collect();
    assert!(words.ends_with(&["typ", "host", "tcptype", "passive"]), "{words:?}");
    format!("{}:{}", words[4], words[5]).parse().expect("an address")
}

impl Viewer {
    /// What it has seen up to now.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    pub fn is_connected(&self) -> bool {
        self.seen().connected.is_some()
    }

    /// The server ended the session.
    pub fn is_closed(&self) -> bool {
        self.seen().closed
    }

    /// Its thread has ended.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Received packets of a kind, by sequence number, without repetitions.
    pub fn packets(&self, kind: MediaKind) -> Vec<Rtp> {
        let mut packets: Vec<Rtp> = self.seen().packets.iter().filter(|p| p.kind == kind).cloned().collect();
        packets.sort_by_key(|packet| packet.sequence);
        packets.dedup_by_key(|packet| packet.sequence);
        packets
    }

    pub fn video(&self) -> Vec<Rtp> {
        self.packets(MediaKind::Video)
    }

    pub fn audio(&self) -> Vec<Rtp> {
        self.packets(MediaKind::Audio)
    }

    /// Access units of video, as `(timestamp, NAL units)`, each up to its marker. A unit that is not complete ends
    /// the list.
    pub fn units(&self, h265: bool) -> Vec<(u32, Vec<Vec<u8>>)> {
        access_units(&self.video(), h265)
    }

    /// Sends a PLI for the video.
    pub fn request_keyframe(&self) {
        let _ = self.orders.try_send(Order::Keyframe);
    }

    /// Says goodbye.
    pub fn close(&self) {
        let _ = self.orders.try_send(Order::Close);
    }

    /// Is gone without a word; the socket stays open for a moment.
    pub fn vanish(&self) {
        let _ = self.orders.try_send(Order::Vanish);
    }

    /// Reads at most so many bytes a second from now on (ICE-TCP).
    pub fn read_slowly(&self, bytes_per_second: usize) {
        let _ = self.orders.try_send(Order::ReadSlowly(bytes_per_second));
    }

    /// Reads nothing any more, without closing.
    pub fn stop_reading(&self) {
        let _ = self.orders.try_send(Order::StopReading);
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.close();
    }
}

enum Wire {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, buffer: Vec<u8>, rate: Option<usize> },
}

struct Client {
    rtc: Rtc,
    wire: Wire,
    options: ViewerOptions,
    seen: Arc<Mutex<Seen>>,
    mids: Vec<(Mid, MediaKind)>,
    rtp_count: usize,
    reading: bool,
}

impl Client {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    fn run(&mut self, orders: &Receiver<Order>) -> Result<(), String> {
        let mut closing: Option<Instant> = None;
        let mut timeout = self.drain()?;
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Vanish => return Ok(()),
                    Order::StopReading => self.reading = false,
                    Order::ReadSlowly(rate) => {
                        if let Wire::Tcp { rate: limit, .. } = &mut self.wire {
                            *limit = Some(rate);
                        }
                    }
                    Order::Keyframe => self.request_keyframe(),
                    Order::Close => {
                        self.rtc.close().map_err(|e| e.to_string())?;
                        closing = Some(Instant::now());
                    }
                }
                timeout = self.drain()?;
            }
            if closing.is_some_and(|at| at.elapsed() > Duration::from_millis(200)) || !self.rtc.is_alive() {
                return Ok(());
            }
            if !self.reading {
                // Only the sockets are held open.
                std::thread::park_timeout(Duration::from_millis(20));
                continue;
            }
            let datagram = self.wire.receive().map_err(|e| e.to_string())?;
            let now = Instant::now();
            if let Some((source, data)) = datagram {
                if self.loses(&data) {
                    continue;
                }
                let (proto, destination) = self.wire.local();
                if let Ok(receive) = Receive::new(proto, source, destination, &data) {
                    self.rtc.handle_input(Input::Receive(now, receive)).map_err(|e| e.to_string())?;
                    timeout = self.drain()?;
                }
            }
            if timeout <= now {
                self.rtc.handle_input(Input::Timeout(now)).map_err(|e| e.to_string())?;
                timeout = self.drain()?;
            }
        }
    }

    /// Whether the network is to have lost this one. RTCP has types 192 to 223 in its second byte.
    fn loses(&mut self, data: &[u8]) -> bool {
        let is_rtp = matches!(data, [128..=191, second, ..] if !(192..=223).contains(second));
        if !is_rtp || self.options.lose_every == 0 {
            return false;
        }
        self.rtp_count += 1;
        let lost = self.rtp_count.is_multiple_of(self.options.lose_every);
        self.seen().lost += usize::from(lost);
        lost
    }

    fn request_keyframe(&mut self) {
        let Some((mid, _)) = self.mids.iter().find(|(_, kind)| *kind == MediaKind::Video).copied() else {
            return;
        };
        let mut direct = self.rtc.direct_api();
        if let Some(stream) = direct.stream_rx_by_mid(mid, None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
        let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
    }

    fn kind_of(&mut self, mid: Mid) -> Option<MediaKind> {
        if let Some((_, kind)) = self.mids.iter().find(|(known, _)| *known == mid) {
            return Some(*kind);
        }
        let kind = self.rtc.media(mid)?.kind();
        self.mids.push((mid, kind));
        Some(kind)
    }

    fn drain(&mut self) -> Result<Instant, String> {
        loop {
            match self.rtc.poll_output().map_err(|e| e.to_string())? {
                Output::Timeout(at) => return Ok(at),
                Output::Transmit(transmit) => self.wire.send(transmit.destination, &transmit.contents),
                Output::Event(Event::Connected) => self.seen().connected = Some(Instant::now()),
                Output::Event(Event::Closed) => self.seen().closed = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    let ssrc = packet.header.ssrc;
                    let mid = self.rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid());
                    let Some(kind) = mid.and_then(|mid| self.kind_of(mid)) else { continue };
                    let mut seen = self.seen();
                    if let Some(info) = packet.last_sender_info {
                        let report = Report { kind, rtp_time: info.rtp_time.numer(), ntp: info.ntp_time };
                        let last = seen.reports.iter().rev().find(|known| known.kind == kind);
                        if last.is_none_or(|last| last.ntp != report.ntp) {
                            seen.reports.push(report);
                        }
                    }
                    seen.packets.push(Rtp {
                        kind,
                        payload_type: *packet.header.payload_type,
                        sequence: *packet.seq_no,
                        timestamp: packet.header.timestamp,
                        marker: packet.header.marker,
                        payload: packet.payload,
                        at: packet.timestamp,
                    });
                }
                Output::Event(_) => {}
            }
        }
    }
}

impl Wire {
    fn local(&self) -> (Protocol, SocketAddr) {
        match self {
            Wire::Udp(socket) => (Protocol::Udp, socket.local_addr().expect("bound")),
            Wire::Tcp { stream, .. } => (Protocol::Tcp, stream.local_addr().expect("bound")),
        }
    }

    fn send(&mut self, to: SocketAddr, data: &[u8]) {
        match self {
            Wire::Udp(socket) => {
                let _ = socket.send_to(data, to);
            }
            Wire::Tcp { stream, .. } => {
                let mut frame = (data.len() as u16).to_be_bytes().to_vec();
                frame.extend_from_slice(data);
                let _ = stream.write_all(&frame);
            }
        }
    }

    fn receive(&mut self) -> std::io::Result<Option<(SocketAddr, Vec<u8>)>> {
        let nothing =
            |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        match self {
            Wire::Udp(socket) => {
                let mut datagram = vec![0; 2048];
                match socket.recv_from(&mut datagram) {
                    Ok((length, from)) => {
                        datagram.truncate(length);
                        Ok(Some((from, datagram)))
                    }
                    // ECONNREFUSED of an earlier datagram.
                    Err(error) if nothing(&error) || error.kind() == ErrorKind::ConnectionRefused => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Wire::Tcp { stream, buffer, rate } => {
                let frame_length = |buffer: &[u8]| match buffer {
                    [high, low, rest @ ..] => Some(usize::from(u16::from_be_bytes([*high, *low])))
                        .filter(|length| rest.len() >= *length),
                    _ => None,
                };
                if frame_length(buffer).is_none() {
                    let mut chunk = vec![0; 64 << 10];
                    match stream.read(&mut chunk) {
                        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                        Ok(length) => {
                            buffer.extend_from_slice(&chunk[..length]);
                            if let Some(rate) = rate {
                                std::thread::park_timeout(Duration::from_secs_f64(
                                    length as f64 / *rate as f64,
                                ));
                            }
                        }
                        Err(error) if nothing(&error) => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                let Some(length) = frame_length(buffer) else { return Ok(None) };
                let frame = buffer[2..2 + length].to_vec();
                buffer.drain(..2 + length);
                Ok(Some((stream.peer_addr()?, frame)))
            }
        }
    }
}

/// Puts access units together (RFC 6184, RFC 7798). A gap ends the list.
pub fn access_units(packets: &[Rtp], h265: bool) -> Vec<(u32, Vec<Vec<u8>>)> {
    let mut units: Vec<(u32, Vec<Vec<u8>>)> = Vec::new();
    let (mut nals, mut fragment): (Vec<Vec<u8>>, Vec<u8>) = (Vec::new(), Vec::new());
    for (index, packet) in packets.iter().enumerate() {
        if index > 0 && packet.sequence != packets[index - 1].sequence + 1 {
            break;
        }
        if h265 {
            h265_payload(&packet.payload, &mut nals, &mut fragment)
        } else {
            h264_payload(&packet.payload, &mut nals, &mut fragment)
        }
        if packet.marker {
            units.push((packet.timestamp, std::mem::take(&mut nals)));
        }
    }
    units
}

fn aggregated(mut rest: &[u8], nals: &mut Vec<Vec<u8>>) {
    while let [high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        nals.push(tail[..length].to_vec());
        rest = &tail[length..];
    }
}

fn h264_payload(payload: &[u8], nals: &mut Vec<Vec<u8>>, fragment: &mut Vec<u8>) {
    match payload[0] & 0x1f {
        24 => aggregated(&payload[1..], nals),
        28 => {
            if payload[1] & 0x80 != 0 {
                *fragment = vec![payload[0] & 0xe0 | payload[1] & 0x1f];
            }
            fragment.extend_from_slice(&payload[2..]);
            if payload[1] & 0x40 != 0 {
                nals.push(std::mem::take(fragment));
            }
        }
        _ => nals.push(payload.to_vec()),
    }
}

fn h265_payload(payload: &[u8], nals: &mut Vec<Vec<u8>>, fragment: &mut Vec<u8>) {
    match (payload[0] >> 1) & 0x3f {
        48 => aggregated(&payload[2..], nals),
        49 => {
            if payload[2] & 0x80 != 0 {
                *fragment = vec![payload[0] & 0x81 | (payload[2] & 0x3f) << 1, payload[1]];
            }
            fragment.extend_from_slice(&payload[3..]);
            if payload[2] & 0x40 != 0 {
                nals.push(std::mem::take(fragment));
            }
        }
        _ => nals.push(payload.to_vec()),
    }
}
