//! A bare RTSP client for tests, and other programs that play.

// Not every test file uses all of it.
#![allow(dead_code)]

use super::common::{Streamgate, get_json};
use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use streamgate::media::rtp::header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

pub const SOON: Duration = Duration::from_secs(30);

/// What ffmpeg says of a stream that it copies for so many seconds: packets for each track, and its complaints.
#[derive(Debug)]
pub struct Played {
    pub packets: Vec<usize>,
    pub complaints: String,
}

/// Runs a program beside the test's own tasks.
pub async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", program]).args(args).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    output.unwrap_or_else(|error| panic!("{program} can be run: {error}"))
}

/// ffmpeg copies `seconds` of a URL. `level`: what it may complain about.
pub async fn ffmpeg(url: &str, transport: &str, seconds: &str, level: &str) -> Played {
    let args = ["-nostdin", "-v", level, "-rtsp_transport", transport, "-t", seconds, "-i", url];
    let output = run("ffmpeg", &[&args[..], &["-c", "copy", "-f", "framecrc", "-"]].concat()).await;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut packets = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let stream: usize = line.split(',').next().and_then(|n| n.trim().parse().ok()).expect("a stream");
        *packets.entry(stream).or_insert(0) += 1;
    }
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    Played { packets: packets.into_values().collect(), complaints }
}

/// What ffprobe finds: codec names.
pub async fn ffprobe(url: &str, transport: &str) -> Vec<String> {
    let args = [
        "-v",
        "error",
        "-rtsp_transport",
        transport,
        "-show_entries",
        "stream=codec_name",
        "-of",
        "csv=p=0",
        url,
    ];
    let output = run("ffprobe", &args).await;
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// GStreamer's rtspsrc plays until it has had so many access units. How it says goodbye is its own affair: it may ask for a
/// pause after the end of its session, and then complains.
pub async fn rtspsrc(url: &str, protocol: &str, depay: &str, units: usize) {
    let media = if depay.starts_with("rtph26") { "video" } else { "audio" };
    let pipeline = format!(
        "rtspsrc location={url} protocols={protocol} latency=0 name=s s. ! application/x-rtp,media={media} ! {depay} ! \
         identity eos-after={units} ! fakesink"
    );
    let words: Vec<&str> = pipeline.split_whitespace().collect();
    let output = run("gst-launch-1.0", &words).await;
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    let (played, _) =
        said.split_once("Got EOS from element").unwrap_or_else(|| panic!("{url} {protocol}: {said}"));
    assert!(!played.contains("ERROR"), "{url} {protocol}: {said}");
}

/// What is listed of a stream's viewers.
pub async fn consumers(streamgate: &Streamgate, stream: &str) -> Vec<serde_json::Value> {
    let view = get_json(&streamgate.url(&format!("/api/streams/{stream}"))).await;
    view["consumers"].as_array().expect("a list").clone()
}

/// What PLAY's answer says of each track's first packet: its number and, where the server has it already, its timestamp.
pub fn rtp_info(answer: &str) -> Vec<(u16, Option<u32>)> {
    let info = answer.lines().find_map(|line| line.strip_prefix("RTP-Info: ")).expect("RTP-Info");
    let field = |track: &str, name: &str| -> Option<u32> {
        track
            .split(';')
            .find_map(|field| field.strip_prefix(name))
            .map(|value| value.parse().expect("a number"))
    };
    let number = |track: &str| field(track, "seq=").and_then(|seq| seq.try_into().ok()).expect("a number");
    info.split(',').map(|track| (number(track), field(track, "rtptime="))).collect()
}

/// Whether a packet is the one that [`rtp_info`] tells of.
pub fn assert_is_told(packet: &[u8], (sequence, timestamp): (u16, Option<u32>)) {
    let (header, _) = header::parse(packet).expect("RTP");
    let timestamp = timestamp.unwrap_or(header.timestamp);
    assert_eq!((header.sequence, header.timestamp), (sequence, timestamp));
}

/// Whether a payload is of a keyframe's picture (RFC 6184 §5.2, §5.8).
fn is_keyframe(payload: &[u8]) -> bool {
    match payload {
        [nal, fragment, ..] if nal & 31 == 28 => fragment & 31 == 5,
        [nal, ..] => nal & 31 == 5,
        [] => false,
    }
}

/// What a decoder could follow: numbers without gaps, whole pictures.
#[derive(Default)]
pub struct Gop {
    pub last: Option<u16>,
    pub reports: usize,
    pub wants_keyframe: bool,
    pub units: usize,
}

impl Gop {
    /// After PLAY: the first packet of each track is the one that the answer names, and the picture begins at a keyframe.
    pub async fn begins(&mut self, client: &mut Client, answer: &str) {
        let mut told: Vec<_> = rtp_info(answer).into_iter().map(Some).collect();
        (self.last, self.wants_keyframe) = (None, true);
        while told.iter().any(Option::is_some) {
            let Some(Message::Data { channel, packet }) = client.next().await else { panic!("the end") };
            if channel % 2 == 0
                && let Some(told) = told[usize::from(channel / 2)].take()
            {
                assert_is_told(&packet, told);
            }
            self.take(channel, &packet);
        }
    }

    pub async fn plays(&mut self, client: &mut Client, units: usize) {
        let until = self.units + units;
        while self.units < until {
            let Some(Message::Data { channel, packet }) = client.next().await else { panic!("the end") };
            self.take(channel, &packet);
        }
    }

    pub fn take(&mut self, channel: u8, packet: &[u8]) {
        match channel {
            0 => {
                let (header, payload) = header::parse(packet).expect("RTP");
                if let Some(last) = self.last.replace(header.sequence) {
                    assert_eq!(header.sequence, last.wrapping_add(1));
                }
                self.wants_keyframe &= !is_keyframe(payload);
                assert!(!(self.wants_keyframe && header.marker), "a picture before the keyframe");
                self.units += usize::from(header.marker);
            }
            1 | 3 => self.reports += header::sender_reports(packet).count(),
            _ => {}
        }
    }
}

/// H.264 as a byte stream, made of RTP (RFC 6184).
#[derive(Default)]
pub struct Depacketized {
    pub bytes: Vec<u8>,
    pub units: usize,
    last: Option<(u16, u32)>,
    /// Time went on by more than a second from one picture to the next.
    pub jumped: bool,
}

impl Depacketized {
    pub fn take(&mut self, packet: &[u8]) {
        let (header, payload) = header::parse(packet).expect("RTP");
        if let Some((sequence, timestamp)) = self.last.replace((header.sequence, header.timestamp)) {
            assert_eq!(header.sequence, sequence.wrapping_add(1));
            self.jumped |= header.timestamp.wrapping_sub(timestamp) > 90_000;
        }
        let mut nal = |nal: &[u8]| {
            self.bytes.extend_from_slice(&[0, 0, 0, 1]);
            self.bytes.extend_from_slice(nal);
        };
        match payload {
            [first, rest @ ..] if first & 31 == 24 => {
                let mut rest = rest;
                while let [high, low, after @ ..] = rest {
                    let (one, more) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                    nal(one);
                    rest = more;
                }
            }
            [first, fragment, rest @ ..] if first & 31 == 28 => {
                if fragment & 0x80 != 0 {
                    nal(&[first & 0xe0 | fragment & 31]);
                }
                self.bytes.extend_from_slice(rest);
            }
            whole => nal(whole),
        }
        self.units += usize::from(header.marker);
    }
}

/// A connection that says what it is told to.
pub struct Client {
    pub stream: TcpStream,
    pub base: String,
    cseq: u32,
    pub session: String,
    buffer: Vec<u8>,
}

/// An answer, or an interleaved packet.
#[derive(Debug)]
pub enum Message {
    Answer { status: u16, head: String, body: String },
    Data { channel: u8, packet: Vec<u8> },
}

impl Client {
    pub async fn connect(port: u16, name: &str) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let base = format!("rtsp://127.0.0.1:{port}/{name}");
        Client { stream, base, cseq: 0, session: String::new(), buffer: Vec::new() }
    }

    /// Sends a request about a path below the stream's URL.
    pub async fn send(&mut self, method: &str, below: &str, headers: &str) {
        self.cseq += 1;
        let session =
            if self.session.is_empty() { String::new() } else { format!("Session: {}\r\n", self.session) };
        let request = format!(
            "{method} {}{below} RTSP/1.0\r\nCSeq: {}\r\n{session}{headers}\r\n",
            self.base, self.cseq
        );
        self.stream.write_all(request.as_bytes()).await.expect("sent");
    }

    /// Sends a request and gives the status and the whole answer; media that comes before it is dropped.
    pub async fn ask(&mut self, method: &str, below: &str, headers: &str) -> (u16, String) {
        self.send(method, below, headers).await;
        loop {
            match self.next().await.expect("the connection lives") {
                Message::Answer { status, head, body } => {
                    let session = head.lines().find_map(|line| line.strip_prefix("Session: "));
                    if let Some(session) = session {
                        self.session = session.split(';').next().unwrap_or_default().to_owned();
                    }
                    return (status, head + "\r\n" + &body);
                }
                Message::Data { .. } => {}
            }
        }
    }

    /// From DESCRIBE to PLAY, over TCP, all tracks.
    pub async fn play(&mut self) -> String {
        let (status, description) = self.ask("DESCRIBE", "", "").await;
        assert_eq!(status, 200, "{description}");
        for track in 0..description.matches("m=").count() {
            let transport =
                format!("Transport: RTP/AVP/TCP;unicast;interleaved={}-{}\r\n", track * 2, track * 2 + 1);
            let (status, answer) = self.ask("SETUP", &format!("/trackID={track}"), &transport).await;
            assert_eq!(status, 200, "{answer}");
        }
        let (status, answer) = self.ask("PLAY", "", "Range: npt=0-\r\n").await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Sets a track up over UDP: the sockets that its RTP and RTCP come to.
    pub async fn set_up_udp(&mut self, track: usize) -> [UdpSocket; 2] {
        let bound = async || UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let sockets = [bound().await, bound().await];
        let [rtp, rtcp] = sockets.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        let transport = format!("Transport: RTP/AVP;unicast;client_port={rtp}-{rtcp}\r\n");
        let (status, answer) = self.ask("SETUP", &format!("/trackID={track}"), &transport).await;
        assert_eq!(status, 200, "{answer}");
        sockets
    }

    /// The next message; `None` when the server has closed the connection.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            let mut chunk = [0; 65536];
            let read = timeout(SOON, self.stream.read(&mut chunk)).await.expect("something comes in time");
            match read {
                Ok(count @ 1..) => self.buffer.extend_from_slice(&chunk[..count]),
                _ => return None,
            }
        }
    }

    fn take(&mut self) -> Option<Message> {
        let bytes = &self.buffer;
        if let [b'$', channel, high, low, rest @ ..] = bytes.as_slice() {
            let packet = rest.get(..usize::from(u16::from_be_bytes([*high, *low])))?.to_vec();
            let channel = *channel;
            self.buffer.drain(..4 + packet.len());
            return Some(Message::Data { channel, packet });
        }
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a length"));
        let body = String::from_utf8_lossy(bytes.get(end..end + length)?).into_owned();
        self.buffer.drain(..end + length);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Some(Message::Answer { status, head, body })
    }
}
