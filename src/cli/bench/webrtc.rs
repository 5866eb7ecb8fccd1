//! One WebRTC viewer on str0m: everything is negotiated as by a browser; media is counted by its clear headers.

use super::check::Checker;
use super::count::{Seen, Sequence};
use super::floor::Shape;
use super::http::Client;
use super::shared::{Role, Shared, micros};
use crate::media::Codec;
use crate::media::rtp::header::is_rtcp;
use hyper::Method;
use quinn_udp::{RecvMeta, UdpSocketState};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::crypto::dtls::DtlsCert;
use str0m::crypto::{CryptoProvider, from_feature_flags};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{sleep_until, timeout};

/// From the answer to the first picture.
const MEDIA_PATIENCE: Duration = Duration::from_secs(15);
/// For the goodbye over HTTP.
const FAREWELL: Duration = Duration::from_secs(2);
/// A keyframe's worth: nothing is to be lost by the viewer itself.
const SOCKET_BUFFER: usize = 1 << 20;
/// Most that the kernel puts together.
const GRO_BYTES: usize = 64 << 10;
/// Reads before other viewers of this thread have their turn.
const MAX_READS: usize = 16;

thread_local! {
    /// Where datagrams are received into, for all viewers of a thread.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; GRO_BYTES]);
}

/// What all viewers have in common.
pub struct Common {
    crypto: CryptoProvider,
    certificate: DtlsCert,
    /// The address of ours that the server is reached from.
    local: IpAddr,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Common").field("local", &self.local).finish_non_exhaustive()
    }
}

impl Common {
    pub fn new(server: SocketAddr) -> Result<Common, String> {
        let crypto = from_feature_flags();
        let certificate = crypto.dtls_provider.generate_certificate().ok_or("no DTLS certificate")?;
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        // Nothing is sent: the system only chooses the address.
        let local = std::net::UdpSocket::bind((any, 0))
            .and_then(|socket| socket.connect(server).and_then(|()| socket.local_addr()))
            .map_err(|error| format!("no way to {server}: {error}"))?;
        Ok(Common { crypto, certificate, local: local.ip() })
    }
}

/// Joins and watches until the run ends. `joined` is set with the first picture.
pub async fn watch(shared: &Shared, role: Role, joined: &mut bool) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let socket = std::net::UdpSocket::bind((shared.webrtc.local, 0)).map_err(text)?;
    socket.set_nonblocking(true).map_err(text)?;
    // The system may allow less.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER);
    let state = UdpSocketState::new((&socket).into()).map_err(text)?;
    let local = socket.local_addr().map_err(text)?;
    let socket = UdpSocket::from_std(socket).map_err(text)?;

    let mut config = RtcConfig::new()
        .set_crypto_provider(shared.webrtc.crypto.clone().into())
        .set_dtls_cert(shared.webrtc.certificate.clone())
        .set_rtp_mode(true)
        .clear_codecs()
        .enable_h264(true)
        .enable_opus(true, false)
        .enable_pcma(true, false)
        .enable_pcmu(true, false)
        .set_reordering_size_video(1000);
    config = config.enable_h265(true);
    let mut rtc = config.build(Instant::now());
    rtc.add_local_candidate(Candidate::host(local, "udp").map_err(|error| error.to_string())?);
    let mut changes = rtc.sdp_api();
    changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
    changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
    let (offer, pending) = changes.apply().ok_or("no offer")?;

    let mut http = Client::connect(shared.address).await?;
    let posted = Instant::now();
    let url = &shared.target.url;
    // As every browser offers it. str0m's feedback is of reduced size anyway.
    let offer = offer.to_sdp_string().replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-rsize\r\n");
    let reply = http.send(Method::POST, url, Some(("application/sdp", offer))).await?;
    shared.samples.lock().answer.push(micros(posted.elapsed()));
    let session = reply.location.as_deref().and_then(|location| url.join(location).ok());
    let answer = String::from_utf8_lossy(&reply.good()?).into_owned();
    let parsed = SdpAnswer::from_sdp_string(&answer).map_err(|error| format!("the answer: {error}"))?;
    rtc.sdp_api().accept_answer(pending, parsed).map_err(|error| format!("the answer: {error}"))?;
    let formats = formats(&answer);
    let has_video = formats.values().any(|format| matches!(format, Format::Video(_)));
    let mut viewer = Viewer {
        shared,
        rtc,
        local,
        posted,
        formats,
        has_video,
        sequences: BTreeMap::new(),
        checker: (role == Role::LooksInside).then(Checker::default),
        stalls: role == Role::Stalls,
        records: role != Role::Stalls && shared.is_recorder(),
        had_packet: false,
        had_frame: false,
        is_closed: false,
    };
    let outcome = viewer.run(&socket, &state, joined).await;
    // Whether the server hears it or not: it is over.
    let _ = viewer.rtc.close();
    let _ = viewer.drain(&socket);
    if let Some(session) = session {
        let _ = timeout(FAREWELL, http.send(Method::DELETE, &session, None)).await;
    }
    outcome
}

/// What a payload type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Video(Option<Codec>),
    Audio,
    Retransmission,
}

/// The payload types of an answer (RFC 8866 §6.6).
fn formats(answer: &str) -> BTreeMap<u8, Format> {
    let (mut formats, mut is_video) = (BTreeMap::new(), false);
    for line in answer.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            is_video = media.starts_with("video");
        }
        let Some((number, encoding)) = line.strip_prefix("a=rtpmap:").and_then(|map| map.split_once(' '))
        else {
            continue;
        };
        let (Ok(number), Some(name)) = (number.parse(), encoding.split('/').next()) else { continue };
        let format = match (name.eq_ignore_ascii_case("rtx"), is_video) {
            (true, _) => Format::Retransmission,
            (false, true) => Format::Video(Codec::from_rtpmap(name)),
            (false, false) => Format::Audio,
        };
        formats.insert(number, format);
    }
    formats
}

struct Viewer<'run> {
    shared: &'run Shared,
    rtc: Rtc,
    local: SocketAddr,
    posted: Instant,
    formats: BTreeMap<u8, Format>,
    has_video: bool,
    /// By SSRC.
    sequences: BTreeMap<u32, Sequence>,
    checker: Option<Checker>,
    stalls: bool,
    records: bool,
    had_packet: bool,
    had_frame: bool,
    is_closed: bool,
}

impl Viewer<'_> {
    async fn run(
        &mut self,
        socket: &UdpSocket,
        state: &UdpSocketState,
        joined: &mut bool,
    ) -> Result<(), String> {
        let give_up = Instant::now() + MEDIA_PATIENCE;
        let mut due = self.drain(socket)?;
        loop {
            if self.is_closed || !self.rtc.is_alive() {
                return Err("the server ended the session".to_owned());
            }
            if self.had_frame && !*joined {
                *joined = true;
                self.shared.counters.joined.fetch_add(1, Relaxed);
            }
            if *joined && self.stalls {
                // As a computer that was put to sleep: no reading, no answers, and the socket is there.
                self.shared.stop.cancelled().await;
                return Ok(());
            }
            let now = Instant::now();
            if !*joined && now >= give_up {
                let what = if self.had_packet { "no whole picture" } else { "no media" };
                return Err(format!("{what} within {} s", MEDIA_PATIENCE.as_secs()));
            }
            if due <= now {
                self.rtc.handle_input(Input::Timeout(now)).map_err(|error| error.to_string())?;
                due = self.drain(socket)?;
                continue;
            }
            tokio::select! {
                () = self.shared.stop.cancelled() => return Ok(()),
                ready = socket.readable() => {
                    ready.map_err(|error| error.to_string())?;
                    if self.receive(socket, state)? {
                        due = self.drain(socket)?;
                    }
                }
                () = sleep_until(due.into()) => {}
            }
        }
    }

    /// Reads what is there. Tells whether str0m was given something.
    fn receive(&mut self, socket: &UdpSocket, state: &UdpSocketState) -> Result<bool, String> {
        let mut fed = false;
        for _ in 0..MAX_READS {
            let more = SCRATCH.with_borrow_mut(|scratch| {
                let mut metas = [RecvMeta::default()];
                let mut buffers = [IoSliceMut::new(scratch)];
                let read = || state.recv(socket.into(), &mut buffers, &mut metas);
                match socket.try_io(Interest::READABLE, read) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error.to_string()),
                }
                let [meta] = metas;
                let data = scratch.get(..meta.len).unwrap_or_default();
                for datagram in data.chunks(meta.stride.max(1)) {
                    fed |= self.take(meta.addr, datagram, socket)?;
                }
                Ok(true)
            })?;
            if !more {
                break;
            }
        }
        Ok(fed)
    }

    fn take(&mut self, source: SocketAddr, datagram: &[u8], socket: &UdpSocket) -> Result<bool, String> {
        // RFC 7983: RTP and RTCP begin with 128 to 191.
        let is_media = matches!(datagram, [128..=191, ..]) && !is_rtcp(datagram);
        // str0m must have seen the stream, to report on it; then it gets no more of it.
        let wanted = !is_media || self.checker.is_some() || !self.had_frame;
        if is_media {
            self.count(datagram);
        }
        if !wanted {
            return Ok(false);
        }
        if let Ok(receive) = Receive::new(Protocol::Udp, source, self.local, datagram) {
            let input = Input::Receive(Instant::now(), receive);
            self.rtc.handle_input(input).map_err(|error| error.to_string())?;
            // Each datagram's output must be taken before the next is given.
            self.drain(socket)?;
        }
        Ok(true)
    }

    /// Counts a packet by its clear header (RFC 3550 §5.1).
    fn count(&mut self, packet: &[u8]) {
        let Some(&[_, kind, s0, s1, _, _, _, _, c0, c1, c2, c3]) = packet.first_chunk::<12>() else { return };
        let format = self.formats.get(&(kind & 0x7f)).copied();
        let counters = &self.shared.counters;
        if matches!(format, None | Some(Format::Retransmission)) {
            return;
        }
        let sequence = self.sequences.entry(u32::from_be_bytes([c0, c1, c2, c3])).or_default();
        match sequence.push(u16::from_be_bytes([s0, s1])) {
            Seen::Next { missing } => counters.missing.fetch_add(missing.into(), Relaxed),
            Seen::Late => {
                counters.reordered.fetch_add(1, Relaxed);
                counters.missing.fetch_sub(1, Relaxed)
            }
            Seen::Again => {
                counters.duplicates.fetch_add(1, Relaxed);
                return;
            }
        };
        counters.packets.fetch_add(1, Relaxed);
        counters.bytes.fetch_add(packet.len() as u64, Relaxed);
        if !self.had_packet {
            self.had_packet = true;
            self.shared.samples.lock().first_media.push(micros(self.posted.elapsed()));
        }
        let is_frame = matches!(format, Some(Format::Video(_))) && kind & 0x80 != 0;
        if self.records
            && let Ok(size) = u16::try_from(packet.len())
        {
            self.shared.shape(Shape { size, ends_frame: is_frame, at: Instant::now() });
        }
        if is_frame {
            counters.frames.fetch_add(1, Relaxed);
        }
        if !self.had_frame && (is_frame || !self.has_video) {
            self.had_frame = true;
            self.shared.samples.lock().first_frame.push(micros(self.posted.elapsed()));
        }
    }

    /// Sends what str0m has to say. When it wants to be asked again.
    fn drain(&mut self, socket: &UdpSocket) -> Result<Instant, String> {
        loop {
            match self.rtc.poll_output().map_err(|error| error.to_string())? {
                Output::Timeout(at) => return Ok(at),
                // A full socket is the network's business: all of it is repeated.
                Output::Transmit(send) => drop(socket.try_send_to(&send.contents, send.destination)),
                Output::Event(Event::Closed) => self.is_closed = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    let format = self.formats.get(&*packet.header.payload_type).copied();
                    let (Some(Format::Video(Some(codec))), Some(checker)) = (format, &mut self.checker)
                    else {
                        continue;
                    };
                    checker.push(codec, *packet.seq_no, &packet.header, &packet.payload);
                    checker.tell(self.shared, self.posted);
                }
                Output::Event(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_what_each_payload_type_is() {
        let answer = "v=0\r\nm=audio 9 x 111\r\na=rtpmap:111 opus/48000/2\r\nm=video 9 x 102 103\r\n\
            a=rtpmap:102 H264/90000\r\na=rtpmap:103 rtx/90000\r\na=rtpmap:104 VP8/90000\r\na=rtpmap:x y\r\n";
        let expected = [
            (102, Format::Video(Some(Codec::H264))),
            (103, Format::Retransmission),
            (104, Format::Video(None)),
            (111, Format::Audio),
        ];
        assert_eq!(formats(answer), BTreeMap::from(expected));
    }
}
