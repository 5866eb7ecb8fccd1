//! The demo camera as strict clients meet it.

use super::*;
use crate::graph::{RtpIn, SourceDetails};
use crate::media::{Codec, Track};
use crate::sources::rtsp::Output;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that ends with the test.
async fn camera() -> (u16, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(server::serve(listener, Arc::new(Lineup::demo(Clip::read(CLIP).expect("reads")))));
    (port, server)
}

#[test]
fn only_its_own_url_opens() {
    for url in ["demo:", "demo://", "demo:#media=video"] {
        let source = open(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!((source.url(), source.format_name()), (url, "demo"));
    }
    for url in ["demo:other", "demo://host/x", "demo:#media=smell"] {
        assert!(open(url).is_err(), "{url}");
    }
}

/// Two turns of the clip, in ffmpeg's own words: no time stamp error, and every packet at its time.
#[tokio::test]
async fn ffmpeg_plays_it_over_the_seam_without_a_timestamp_error() {
    let (port, _server) = camera().await;
    let mut player = Command::new("ffmpeg");
    player.args(["-nostdin", "-v", "error", "-xerror", "-rtsp_transport", "tcp", "-timeout", "5000000"]);
    player.args(["-t", "21", "-i", &rtsp_url(port, ""), "-c", "copy", "-f", "framecrc", "-"]);
    let output = tokio::task::spawn_blocking(move || player.output());
    let output = output.await.expect("no panic").expect("ffmpeg can be run");
    let (packets, problems) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && problems.is_empty(), "{problems}");
    for (stream, wanted) in [("0,", 21 * 30), ("1,", 21 * 50)] {
        let times: Vec<i64> = packets
            .lines()
            .filter(|line| line.starts_with(stream))
            .map(|line| line.split(',').nth(1).and_then(|dts| dts.trim().parse().ok()).expect("a time"))
            .collect();
        assert!(times.len().abs_diff(wanted) <= 30, "{} packets", times.len());
        let step = times[times.len() - 1] - times[times.len() - 2];
        assert!(times.windows(2).all(|pair| (pair[1] - pair[0] - step).abs() <= 1), "{times:?}");
    }
}

/// Collects what a source writes, until it has a keyframe's first packets of both tracks.
#[derive(Default)]
struct Collected {
    tracks: Vec<Track>,
    packets: Vec<(usize, u8)>,
    reports: usize,
}

impl Output for Collected {
    fn set_tracks(&mut self, tracks: Vec<Track>, _details: SourceDetails) {
        self.tracks = tracks;
    }

    fn write_rtp(&mut self, packet: RtpIn<'_>) {
        self.packets.push((packet.track, packet.payload[0]));
    }

    fn sender_report(&mut self, _track: usize, _ntp: u64, _rtp: u32) {
        self.reports += 1;
    }

    fn flush(&mut self) {}
}

#[tokio::test]
async fn the_rtsp_source_gets_a_keyframe_first() {
    let (port, _server) = camera().await;
    let mut out = Collected::default();
    let source = RtspSource::open(&rtsp_url(port, "")).expect("opens");
    // It plays without end: the time-out is the end of the test.
    let ended = timeout(Duration::from_secs(2), source.run_into(&mut out)).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(out.tracks.iter().map(|track| track.codec).collect::<Vec<_>>(), [Codec::H264, Codec::Opus]);
    assert_eq!(out.tracks[0].video_info().map(|info| info.width), Some(1280));
    let first = out.packets.iter().find(|(track, _)| *track == 0).expect("video").1;
    // The encoder's SEI (6), or an IDR picture (5), whole or in fragments (28).
    assert!([5, 6, 28].contains(&(first & 31)), "{first}");
    assert!(out.packets.iter().filter(|(track, _)| *track == 1).count() > 50);
    assert_eq!(out.reports, 2);
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let (port, mut server) = camera().await;
    for nonsense in
        ["\0\0\0\0\r\n\r\n".to_owned(), "OPTIONS * RTSP/1.0\r\n".to_owned() + &"X: y\r\n".repeat(100_000)]
    {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
        // May fail when the server has closed already.
        let _ = client.write_all(nonsense.as_bytes()).await;
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "still open after nonsense");
    }
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
    client.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await.expect("sent");
    let mut answer = [0; 15];
    timeout(Duration::from_secs(5), client.read_exact(&mut answer))
        .await
        .expect("in time")
        .expect("an answer");
    assert_eq!(&answer, b"RTSP/1.0 200 OK");
    assert!(server.try_join_next().is_none(), "the server lives");
}

#[tokio::test]
async fn what_is_not_polled_any_more_leaves_no_connection() {
    let (port, server) = camera().await;
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("connected");
    client.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await.expect("sent");
    client.read_exact(&mut [0; 15]).await.expect("an answer");
    drop(server);
    let mut rest = Vec::new();
    // The end or a reset, but not silence.
    let end = timeout(Duration::from_secs(5), client.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the connection outlives its server");
}
