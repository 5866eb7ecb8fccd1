//! Whole conversations with a player: the source sends what a test tells it to, and time is the test's.

use super::*;
use crate::config::{Login, StreamConfig};
use crate::consumers::rtsp::Options;
use crate::graph::{BoxFuture, Registry, RtpIn, Source, SourceDetails, SourceError, SourceWriter};
use crate::media::rtp::header::{self, ReportBlock, SenderReport, write_receiver_report};
use crate::media::{Codec, Params, Track};
use std::collections::VecDeque;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0xc8];
const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
const VIDEO: usize = 0;
const AUDIO: usize = 1;

/// What the source does next.
enum Act {
    /// One RTP packet: track, timestamp, marker, payload.
    Send(usize, u32, bool, Vec<u8>),
    /// It comes back, with other timestamps.
    Restart,
    /// A sender report: track, NTP time, timestamp.
    Report(usize, u64, u32),
}

/// A camera with H.264 and PCMU.
struct Camera(Mutex<mpsc::Receiver<Act>>);

impl Source for Camera {
    fn run<'a>(&'a self, out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            let params = Params::H264 { sps: SPS.into(), pps: PPS.into() };
            let video = Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params };
            let audio = Track { codec: Codec::Pcmu, clock_rate: 8000, channels: 1, params: Params::None };
            out.set_tracks(vec![video.clone(), audio.clone()], SourceDetails::default());
            let mut acts = self.0.lock().await;
            while let Some(act) = acts.recv().await {
                match act {
                    Act::Send(track, timestamp, marker, payload) => {
                        let arrival = Instant::now().into_std();
                        out.write_rtp(RtpIn {
                            track,
                            payload: &payload,
                            timestamp,
                            marker,
                            loss: false,
                            arrival,
                        });
                    }
                    Act::Report(track, ntp, rtp) => out.sender_report(track, ntp, rtp),
                    Act::Restart => {
                        out.set_tracks(vec![video.clone(), audio.clone()], SourceDetails::default())
                    }
                }
                out.flush();
            }
            std::future::pending().await
        })
    }

    fn url(&self) -> &str {
        "test:"
    }

    fn format_name(&self) -> &'static str {
        "test"
    }
}

/// A server with the stream `cam`, and its camera.
struct Fixture {
    server: Arc<RtspServer>,
    registry: Arc<Registry>,
    camera: mpsc::Sender<Act>,
}

impl Fixture {
    fn new(login: Option<Login>) -> Fixture {
        let (camera, acts) = mpsc::channel(256);
        let source: Arc<dyn Source> = Arc::new(Camera(Mutex::new(acts)));
        let registry = Registry::new(Arc::new(move |_| Ok(source.clone())));
        registry.set("cam", StreamConfig::new(vec!["test:".to_owned()])).expect("a stream");
        let config = crate::config::Rtsp { login, ..crate::config::Rtsp::default() };
        let server = RtspServer::new(registry.clone(), Options { config, ..Options::default() });
        Fixture { server, registry, camera }
    }

    fn act(&self, act: Act) {
        assert!(self.camera.try_send(act).is_ok(), "the source takes it");
    }

    fn send(&self, track: usize, timestamp: u32, marker: bool, payload: &[u8]) {
        self.act(Act::Send(track, timestamp, marker, payload.to_vec()));
    }

    /// A keyframe of one packet behind its parameter sets.
    fn send_keyframe(&self, timestamp: u32) {
        self.send(VIDEO, timestamp, false, SPS);
        self.send(VIDEO, timestamp, false, PPS);
        self.send(VIDEO, timestamp, true, &[0x65, 0x88, 1, 2, 3]);
    }

    fn consumers(&self) -> usize {
        self.registry.get("cam").expect("the stream").consumers().len()
    }

    fn connect(&self) -> Player {
        let (near, far) = tokio::io::duplex(1 << 20);
        let address = "127.0.0.1:40000".parse().expect("an address");
        let peer = Peer { remote: address, local: address, is_tls: false };
        let task = tokio::spawn(converse(self.server.clone(), Box::new(near), peer));
        let framer = Framer::new(Limits::CLIENT);
        Player { stream: far, framer, cseq: 0, began: Instant::now(), task, media: VecDeque::new() }
    }
}

struct Player {
    stream: DuplexStream,
    framer: Framer,
    cseq: u32,
    began: Instant,
    task: JoinHandle<String>,
    /// Interleaved packets that have come and were not looked at.
    media: VecDeque<(u8, Vec<u8>)>,
}

impl Player {
    async fn send(&mut self, method: &str, below: &str, headers: &str) {
        self.cseq += 1;
        let request =
            format!("{method} rtsp://h/cam{below} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.cseq);
        self.stream.write_all(request.as_bytes()).await.expect("sent");
    }

    async fn ask(&mut self, method: &str, below: &str, headers: &str) -> crate::rtsp::Response {
        self.send(method, below, headers).await;
        loop {
            if let Some(response) = self.read().await.expect("the connection lives") {
                return response;
            }
        }
    }

    async fn must(&mut self, method: &str, below: &str, headers: &str) -> crate::rtsp::Response {
        let response = self.ask(method, below, headers).await;
        assert_eq!(response.status, 200, "{method} {below} {headers}: {response:?}");
        response
    }

    /// Takes the next message: an answer, or media that is kept. `None` when the connection has ended.
    async fn read(&mut self) -> Option<Option<crate::rtsp::Response>> {
        loop {
            match self.framer.next_message().expect("RTSP") {
                Some(Incoming::Response(response, _)) => return Some(Some(response)),
                Some(Incoming::Data { channel, payload }) => {
                    self.media.push_back((channel, payload.to_vec()));
                    return Some(None);
                }
                Some(Incoming::Request(request, _)) => panic!("{request:?}"),
                None => {}
            }
            let count = self.stream.read(self.framer.space()).await.expect("read");
            if count == 0 {
                return None;
            }
            self.framer.filled(count);
        }
    }

    /// The next interleaved packet.
    async fn packet(&mut self) -> (u8, Vec<u8>) {
        let next = async {
            loop {
                if let Some(packet) = self.media.pop_front() {
                    return packet;
                }
                assert!(self.read().await.expect("the connection lives").is_none(), "an answer");
            }
        };
        timeout(Duration::from_secs(20), next).await.expect("a packet")
    }

    /// Both tracks over TCP.
    async fn set_up_tcp(&mut self) {
        self.must("DESCRIBE", "", "").await;
        for track in 0..2 {
            self.must("SETUP", &format!("/trackID={track}"), "Transport: RTP/AVP/TCP;unicast\r\n").await;
        }
    }

    /// Waits for the end of the conversation: how long it lasted, and why it ended.
    async fn end(self) -> (Duration, String) {
        let why = timeout(Duration::from_secs(1000), self.task).await.expect("an end").expect("no panic");
        (self.began.elapsed(), why)
    }
}

/// What `RTP-Info` says of each track's first packet: its number, and its timestamp if it is known.
fn rtp_info(response: &crate::rtsp::Response) -> Vec<(u16, Option<u32>)> {
    let field = |track: &str, name: &str| -> Option<u32> {
        track.split(';').find_map(|field| field.strip_prefix(name))?.parse().ok()
    };
    let tracks = response.headers.get("RTP-Info").expect("RTP-Info").split(',');
    tracks.map(|track| (field(track, "seq=").expect("a number") as u16, field(track, "rtptime="))).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pause_inside_a_picture_is_a_packet_that_is_missed() {
    let fixture = Fixture::new(None);
    let mut player = fixture.connect();
    player.set_up_tcp().await;
    fixture.send_keyframe(90_000);
    fixture.send(AUDIO, 8000, false, &[0xff; 160]);
    // The next picture comes in two packets, and the second one late.
    fixture.send(VIDEO, 93_600, false, &[0x41, 0x9a, 1, 2, 3]);
    sleep(Duration::from_millis(100)).await;

    let mut cut = None;
    for round in 0..3 {
        let answer = player.must("PLAY", "", "").await;
        let told = rtp_info(&answer);
        let mut last = [None, None];
        while last[VIDEO].is_none_or(|(count, _)| count < 4) || last[AUDIO].is_none() {
            let (channel, packet) = player.packet().await;
            if channel % 2 == 1 {
                continue;
            }
            let (header, _) = header::parse(&packet).expect("RTP");
            let track = usize::from(channel / 2);
            match last[track] {
                None => assert_eq!((header.sequence, Some(header.timestamp)), told[track], "round {round}"),
                Some((_, sequence)) => assert_eq!(header.sequence, u16::wrapping_add(sequence, 1)),
            }
            last[track] = Some((last[track].map_or(1, |(count, _)| count + 1), header.sequence));
        }
        let [Some((_, video)), Some(_)] = last else { panic!("both tracks") };
        if let Some(cut) = cut.replace(video) {
            // Four packets, and between the rounds one that a player must miss: the rest of the picture.
            assert_eq!(video.wrapping_sub(cut), 5, "round {round}");
        }
        player.must("PAUSE", "", "").await;
        assert_eq!(player.media.len(), 0);
    }
}

/// The sound comes 320 ms after its picture, and the camera says so only after a second; it comes back, with other clocks.
/// Whoever plays, or has paused meanwhile, knows where a packet belongs when it comes.
#[tokio::test(start_paused = true)]
async fn what_the_camera_says_of_its_clocks_is_passed_on_at_once() {
    /// Some moment in this century.
    const NTP: u64 = 0xe0 << 56;
    for pauses in [false, true] {
        let fixture = Fixture::new(None);
        let mut player = fixture.connect();
        player.set_up_tcp().await;
        player.must("PLAY", "", "").await;
        let mut reports: [Option<SenderReport>; 2] = [None, None];
        for run in 0..2_u32 {
            if run > 0 {
                sleep(Duration::from_millis(1234)).await;
                fixture.act(Act::Restart);
            }
            let began = [90_000 + run * 77_777_777, 1_000_000 + run * 99_999_999];
            for step in 0..50_u8 {
                let (picture, at) =
                    (began[VIDEO] + u32::from(step) * 3600, u32::from(step.saturating_sub(8)));
                match step % 25 {
                    0 => fixture.send_keyframe(picture),
                    _ => fixture.send(VIDEO, picture, true, &[0x41, 0x9a, step]),
                }
                if step >= 8 {
                    fixture.send(AUDIO, began[AUDIO] + at * 320, false, &[step - 8; 320]);
                }
                sleep(Duration::from_millis(40)).await;
                match step {
                    22 if pauses => drop(player.must("PAUSE", "", "").await),
                    25 => {
                        fixture.act(Act::Report(AUDIO, NTP, began[AUDIO]));
                        fixture.act(Act::Report(VIDEO, NTP, began[VIDEO]));
                    }
                    30 if pauses => drop(player.must("PLAY", "", "").await),
                    _ => {}
                }
            }
            // Where pictures and sound of the same moments, after that, belong on the wall clock; in seconds.
            let mut walls = [[0.0; 50]; 2];
            while walls[VIDEO][49] == 0.0 || walls[AUDIO][41] == 0.0 {
                let (channel, packet) = player.packet().await;
                let track = usize::from(channel / 2);
                if channel % 2 == 1 {
                    reports[track] = header::sender_reports(&packet).next();
                    continue;
                }
                let (header, payload) = header::parse(&packet).expect("RTP");
                let report = reports[track].expect("a report before the packet");
                let ticks = header.timestamp.wrapping_sub(report.rtp).cast_signed();
                let wall = report.ntp as f64 / 2f64.powi(32) + f64::from(ticks) / [90_000.0, 8000.0][track];
                let step = usize::from(*payload.last().expect("a byte"));
                if header.payload_type == 0 || (header.marker && payload.len() == 3) {
                    walls[track][step] = wall;
                }
            }
            let [pictures, sound] = walls;
            for (step, (picture, sound)) in pictures.iter().zip(sound).enumerate().take(42).skip(30) {
                let apart = picture - sound;
                assert!(apart.abs() < 0.02, "run {run}, pauses: {pauses}, step {step}: {apart} s");
            }
        }
    }
}

/// A session by UDP with both tracks, and the sockets of the first one.
async fn by_udp(fixture: &Fixture) -> (Player, UdpSocket, UdpSocket, u16) {
    let mut player = fixture.connect();
    player.must("DESCRIBE", "", "").await;
    let bound = async || UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let (rtp, rtcp) = (bound().await, bound().await);
    let port = |socket: &UdpSocket| socket.local_addr().expect("bound").port();
    let offer = format!("Transport: RTP/AVP;unicast;client_port={}-{}\r\n", port(&rtp), port(&rtcp));
    let answer = player.must("SETUP", "/trackID=0", &offer).await;
    assert!(answer.headers.get("Session").is_some_and(|session| session.ends_with(";timeout=60")));
    let transport = answer.headers.get("Transport").expect("a transport");
    let (_, server) = crate::rtsp::Transport::parse(transport).server_port.expect("its ports");
    player.must("PLAY", "", "").await;
    assert_eq!(fixture.consumers(), 1);
    (player, rtp, rtcp, server)
}

#[tokio::test(start_paused = true)]
async fn a_session_by_udp_lives_as_long_as_its_player_is_heard() {
    let fixture = Fixture::new(None);
    let (silent, ..) = by_udp(&fixture).await;
    let (lasted, why) = silent.end().await;
    assert!((60..=72).contains(&lasted.as_secs()) && why.contains("timed out"), "{lasted:?}: {why}");
    assert_eq!(fixture.consumers(), 0);

    let mut report = Vec::new();
    write_receiver_report(7, &ReportBlock::default(), &mut report);
    for sign in ["OPTIONS", "GET_PARAMETER", "SET_PARAMETER", "a receiver report", "somebody else's report"] {
        let (mut player, _rtp, rtcp, server) = by_udp(&fixture).await;
        let other = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let is_heard = !sign.starts_with("somebody");
        for _ in 0..if is_heard { 4 } else { 1 } {
            sleep(Duration::from_secs(50)).await;
            match sign {
                "a receiver report" => drop(rtcp.send_to(&report, ("127.0.0.1", server)).await),
                "somebody else's report" => drop(other.send_to(&report, ("127.0.0.1", server)).await),
                method => drop(player.must(method, "", "").await),
            }
        }
        let (lasted, why) = player.end().await;
        let expected = if is_heard { 260..=272 } else { 60..=72 };
        assert!(
            expected.contains(&lasted.as_secs()) && why.contains("timed out"),
            "{sign}: {lasted:?}: {why}"
        );
        assert_eq!(fixture.consumers(), 0, "{sign}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_password_no_request_keeps_a_connection_open() {
    let login = Login { username: "admin".to_owned(), password: "secret".to_owned() };
    let fixture = Fixture::new(Some(login));
    for method in ["OPTIONS", "DESCRIBE", "GET_PARAMETER"] {
        let mut player = fixture.connect();
        let expected = if method == "OPTIONS" { 200 } else { 401 };
        while !player.task.is_finished() {
            assert_eq!(player.ask(method, "", "").await.status, expected, "{method}");
            assert!(player.began.elapsed() < Duration::from_secs(40), "{method}: still there");
            sleep(Duration::from_secs(3)).await;
        }
        let (lasted, why) = player.end().await;
        assert!((30..=34).contains(&lasted.as_secs()) && why.contains("nothing"), "{lasted:?}: {why}");
    }
    // With it, requests do.
    let mut player = fixture.connect();
    let basic = "Authorization: Basic YWRtaW46c2VjcmV0\r\n";
    for _ in 0..20 {
        player.must("DESCRIBE", "", basic).await;
        sleep(Duration::from_secs(3)).await;
    }
    assert!(!player.task.is_finished());
}
