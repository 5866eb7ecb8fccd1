//! A router with a camera in the same process, on a real UDP and TCP port, for tests of WebRTC viewers.
//! The camera writes real RTP of a real clip; nothing of the router is replaced.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod bad_link;

use bytes::Bytes;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use streamgate::config::{Filters, StreamConfig, Webrtc};
use streamgate::consumers::webrtc::{Answer, Client, DatagramSocket, OfferError, Options, WebRtc};
use streamgate::graph::{
    BoxFuture, Registry, RtpIn, Source, SourceDetails, SourceError, SourceWriter, Stream,
};
use streamgate::media::rtp::packetize::Packetizer;
use streamgate::media::{Codec, Frame, Params, StreamTime, Track, h264, h265};
use streamgate::server::UdpPort;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::common::Clip;
use crate::webrtc_client::{Offering, Rtp, Viewer, ViewerOptions, access_units};

pub const DEADLINE: Duration = Duration::from_secs(10);

/// A clip, cut into access units.
pub struct Units {
    pub track: Track,
    /// NAL units of each picture, parameter sets included.
    pub units: Vec<Vec<Vec<u8>>>,
    pub h265: bool,
}

impl Units {
    pub fn of(name: &'static str) -> Arc<Units> {
        let h265 = name.starts_with("h265");
        let mut units: Vec<Vec<Vec<u8>>> = Vec::new();
        let (mut unit, mut has_picture) = (Vec::new(), false);
        for nal in Clip::named(name).nals() {
            let (vcl, first) = if h265 {
                let kind = h265::nal_type(nal[0]);
                (h265::is_vcl(kind), h265::first_slice_segment_in_pic(&nal).unwrap_or(true))
            } else {
                let kind = h264::nal_type(nal[0]);
                (h264::is_vcl(kind), h264::slice_header(&nal).is_none_or(|slice| slice.first_in_picture))
            };
            if has_picture && (!vcl || first) {
                units.push(std::mem::take(&mut unit));
                has_picture = false;
            }
            has_picture |= vcl;
            unit.push(nal);
        }
        units.push(unit);
        let find = |kind: u8| -> Arc<[u8]> {
            let nal = units[0]
                .iter()
                .find(|nal| kind == if h265 { h265::nal_type(nal[0]) } else { h264::nal_type(nal[0]) });
            nal.expect("parameter sets stand before the first picture").as_slice().into()
        };
        let params = if h265 {
            Params::H265 { vps: find(32), sps: find(33), pps: find(34) }
        } else {
            Params::H264 { sps: find(7), pps: find(8) }
        };
        let codec = if h265 { Codec::H265 } else { Codec::H264 };
        Arc::new(Units { track: Track { codec, clock_rate: 90_000, channels: 0, params }, units, h265 })
    }

    fn frame(&self, index: usize, rtp_time: u64) -> Frame {
        let mut data = Vec::new();
        for nal in &self.units[index % self.units.len()] {
            data.extend_from_slice(&(nal.len() as u32).to_be_bytes());
            data.extend_from_slice(nal);
        }
        Frame { track: 0, rtp_time, time: StreamTime::default(), keyframe: false, data: Bytes::from(data) }
    }

    /// Where in the clip these units stand, which may run over its end. Panics if they are nowhere, byte for byte.
    pub fn position(&self, received: &[(u32, Vec<Vec<u8>>)]) -> usize {
        let first = received.first().expect("something was received");
        let start =
            self.units.iter().position(|unit| *unit == first.1).expect("the first unit is the clip's");
        for (offset, (_, unit)) in received.iter().enumerate() {
            let expected = &self.units[(start + offset) % self.units.len()];
            assert!(
                expected == unit,
                "unit {offset} after {start} differs: {:?} {:?}",
                sizes(expected),
                sizes(unit)
            );
        }
        start
    }
}

/// Goes through what a viewer could show: whole pictures from a keyframe up to the next gap. Each must be the clip's,
/// in the clip's order. Says how many there are and how often it began anew.
pub fn shown(units: &Units, packets: &[Rtp]) -> (usize, usize) {
    let is_key = |unit: &[Vec<u8>]| unit.iter().any(|nal| nal[0] & 0x1f == 5);
    let (mut pictures, mut starts) = (0, 0);
    for run in packets.chunk_by(|a, b| a.sequence + 1 == b.sequence) {
        // Behind a gap, the rest of a picture can't be told from a whole one.
        let whole = run.iter().position(|packet| packet.marker).map_or(run.len(), |at| at + 1);
        let from = if run[0].sequence == packets[0].sequence { 0 } else { whole };
        let mut place = None;
        for (_, unit) in access_units(&run[from..], false) {
            if is_key(&unit) {
                let found = units.units.iter().position(|known| *known == unit);
                if place.is_none_or(|place| found != Some(place % units.units.len())) {
                    starts += 1;
                }
                place = Some(found.expect("a keyframe is the clip's, byte for byte"));
            }
            if let Some(at) = place {
                assert!(units.units[at % units.units.len()] == unit, "picture {at} is another, or broken");
                (pictures, place) = (pictures + 1, Some(at + 1));
            }
        }
    }
    (pictures, starts)
}

fn sizes(nals: &[Vec<u8>]) -> Vec<usize> {
    nals.iter().map(Vec::len).collect()
}

/// What the camera is to do; a change of `run` ends the connection and is in force with the next.
#[derive(Clone)]
pub struct Orders {
    pub video: Option<Arc<Units>>,
    pub audio: Option<Codec>,
    pub run: u32,
    /// The camera does not answer.
    pub down: bool,
    pub fps: u32,
}

/// A camera that plays clips in a loop, in real time.
pub struct ClipCamera {
    pub orders: watch::Sender<Orders>,
}

/// G.711 bytes of the `n`th packet of 20 ms.
pub fn audio_payload(n: u64) -> Vec<u8> {
    (0..160).map(|i| (n.wrapping_mul(31) + i) as u8).collect()
}

struct CameraSource(Arc<ClipCamera>);

impl Source for CameraSource {
    fn run<'a>(&'a self, out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async move {
            let orders = self.0.orders.borrow().clone();
            if orders.down {
                return Err(SourceError::Unreachable("the camera is down".into()));
            }
            let mut tracks: Vec<Track> = orders.video.iter().map(|units| units.track.clone()).collect();
            let audio_track = orders.audio.map(|codec| {
                let clock_rate = if codec == Codec::Opus { 48_000 } else { 8_000 };
                tracks.push(Track { codec, clock_rate, channels: 1, params: Params::None });
                tracks.len() - 1
            });
            out.set_tracks(tracks, SourceDetails::default());
            let base: u32 = rand::random();
            let mut packets = Vec::new();
            let mut packetizer = orders.video.as_ref().map(|units| Packetizer::new(&units.track, 1200));
            let began = Instant::now();
            let (mut pictures, mut sounds) = (0u64, 0u64);
            loop {
                let elapsed = began.elapsed();
                if let (Some(units), Some(packetizer)) = (&orders.video, &mut packetizer) {
                    while elapsed.as_secs_f64() * f64::from(orders.fps) >= pictures as f64 {
                        let timestamp = base.wrapping_add((pictures * u64::from(90_000 / orders.fps)) as u32);
                        packetizer.packetize(&units.frame(pictures as usize, 0), &mut packets);
                        for packet in packets.drain(..) {
                            out.write_rtp(RtpIn {
                                track: 0,
                                payload: &packet.payload,
                                timestamp,
                                marker: packet.ends_unit,
                                loss: false,
                                arrival: Instant::now(),
                            });
                        }
                        pictures += 1;
                        out.flush();
                    }
                }
                if let Some(track) = audio_track {
                    while elapsed.as_millis() as u64 / 20 >= sounds {
                        let ticks = if orders.audio == Some(Codec::Opus) { 960 } else { 160 };
                        let timestamp = base.wrapping_add((sounds * ticks) as u32);
                        let payload = audio_payload(sounds);
                        let arrival = Instant::now();
                        out.write_rtp(RtpIn {
                            track,
                            payload: &payload,
                            timestamp,
                            marker: false,
                            loss: false,
                            arrival,
                        });
                        sounds += 1;
                    }
                    out.flush();
                }
                let changed = {
                    let now = self.0.orders.borrow();
                    now.run != orders.run || now.down
                };
                if changed {
                    return Err(SourceError::Ended("the camera was restarted".into()));
                }
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        })
    }

    fn url(&self) -> &str {
        "test://camera"
    }

    fn format_name(&self) -> &'static str {
        "test"
    }
}

impl ClipCamera {
    pub fn new(clip: &'static str, audio: Option<Codec>) -> Arc<ClipCamera> {
        let orders = Orders { video: Some(Units::of(clip)), audio, run: 0, down: false, fps: 30 };
        Arc::new(ClipCamera { orders: watch::Sender::new(orders) })
    }

    pub fn units(&self) -> Arc<Units> {
        self.orders.borrow().video.clone().expect("a camera with video")
    }

    /// Ends the connection; the next one is as `change` says.
    pub fn restart(&self, change: impl FnOnce(&mut Orders)) {
        self.orders.send_modify(|orders| {
            orders.run += 1;
            change(orders);
        });
    }
}

struct Port(UdpPort);

impl DatagramSocket for Port {
    fn try_send(&self, to: SocketAddr, from: Option<IpAddr>, contents: &[u8], size: usize) -> io::Result<()> {
        self.0.try_send(to, from, contents, size)
    }
    fn max_segments(&self) -> usize {
        self.0.max_segments()
    }
    fn local_port(&self) -> u16 {
        self.0.local_port()
    }
}

/// A registry, the WebRTC consumer and its port.
pub struct Router {
    pub registry: Arc<Registry>,
    pub webrtc: Arc<WebRtc>,
    pub camera: Arc<ClipCamera>,
    pub stream: Arc<Stream>,
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    port: Arc<Port>,
    tasks: Vec<JoinHandle<()>>,
}

static INIT: LazyLock<()> = LazyLock::new(|| {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
});

impl Router {
    pub async fn start(camera: Arc<ClipCamera>) -> Router {
        Router::with(camera, Options { workers: 2, ..Options::default() }).await
    }

    pub async fn with(camera: Arc<ClipCamera>, options: Options) -> Router {
        Router::at(Ipv4Addr::LOCALHOST, camera, options).await
    }

    /// On an address of this machine, or of the network namespace that the calling thread is in.
    pub async fn at(address: Ipv4Addr, camera: Arc<ClipCamera>, options: Options) -> Router {
        LazyLock::force(&INIT);
        let socket = std::net::UdpSocket::bind((address, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let udp = socket.local_addr().unwrap();
        let port = Arc::new(Port(UdpPort::new(socket).unwrap()));
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let tcp = listener.local_addr().unwrap();
        let only_here =
            Filters { loopback: Some(true), ips: Some(vec![IpAddr::V4(address)]), ..Filters::default() };
        let options = Options { config: Webrtc { filters: only_here, ..options.config }, ..options };
        let webrtc = WebRtc::start(options, port.clone(), tcp.port()).unwrap();
        let (mut receiver, acceptor) = (webrtc.receiver(), webrtc.clone());
        let receiving = port.clone();
        let tasks = vec![
            tokio::task::spawn_blocking(move || {
                let on_datagrams =
                    move |datagrams: &mut dyn Iterator<Item = streamgate::server::Datagram<'_>>| {
                        let urgent = datagrams
                            .fold(false, |u, d| u | receiver.take(d.source, d.local_ip, d.at, d.contents));
                        receiver.deliver();
                        urgent
                    };
                receiving.0.receive(Box::new(on_datagrams));
            }),
            tokio::spawn(async move {
                while let Ok((stream, peer)) = listener.accept().await {
                    let local = stream.local_addr().unwrap();
                    tokio::spawn(acceptor.clone().serve_tcp(stream, peer, local));
                }
            }),
        ];
        let source = camera.clone();
        let registry =
            Registry::new(Arc::new(move |_| Ok(Arc::new(CameraSource(source.clone())) as Arc<dyn Source>)));
        registry.set("front", StreamConfig::new(vec!["test://camera".into()])).unwrap();
        let stream = registry.get("front").unwrap();
        Router { registry, webrtc, camera, stream, udp, tcp, port, tasks }
    }

    pub async fn offer(&self, sdp: &str) -> Result<Answer, OfferError> {
        let client = Client { remote: SocketAddr::from(([127, 0, 0, 1], 5555)), user_agent: "test".into() };
        self.webrtc.offer(&self.stream, sdp, client).await
    }

    /// A connected viewer and its session.
    pub async fn viewer(&self, options: ViewerOptions) -> (Viewer, Answer) {
        let offering = Offering::new(options);
        let answer = self.offer(&offering.offer).await.unwrap();
        let viewer = offering.connect(&answer.sdp);
        crate::common::eventually("the viewer connects", DEADLINE, async || {
            let seen = viewer.seen();
            assert!(seen.error.is_none(), "{:?}", seen.error);
            seen.connected.is_some()
        })
        .await;
        (viewer, answer)
    }

    pub fn consumers(&self) -> usize {
        self.stream.consumers().len()
    }

    pub async fn stop(self) {
        self.webrtc.shutdown().await;
        self.registry.shutdown().await;
        self.port.0.stop();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Sequence numbers without a gap, timestamps that never go backwards.
pub fn assert_continuous(packets: &[Rtp]) {
    for pair in packets.windows(2) {
        assert_eq!(pair[0].sequence + 1, pair[1].sequence, "sequence numbers have no gap");
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32;
        assert!(step >= 0, "timestamps go backwards by {step}");
        assert!(step < 20 * 90_000, "timestamps jump by {step}");
    }
}
