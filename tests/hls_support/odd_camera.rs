//! A camera whose timestamps jitter by ±12 ms, whose keyframes come 1 to 4 s apart, and which tells its parameter sets
//! only within the stream. RTSP over TCP, as much of it as a client needs.

use super::super::common::annexb_nals;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

const FRAME: Duration = Duration::from_millis(40);
/// Where keyframes are, in seconds.
const KEYFRAMES: &str = "0,1,5,7.4,8.6,12.5,14,18,19.2,21.2,25,26.1,29.9";
const SECONDS: &str = "32";

pub struct OddCamera {
    pub url: String,
    /// Changes when all clients are thrown out.
    round: watch::Sender<u32>,
    accepting: JoinHandle<()>,
}

impl Drop for OddCamera {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl OddCamera {
    pub async fn start() -> OddCamera {
        let units = tokio::task::spawn_blocking(|| Arc::new(access_units())).await.expect("no panic");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("rtsp://{}/cam", listener.local_addr().expect("an address"));
        let (round, rounds) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (units, mut rounds) = (units.clone(), rounds.clone());
                rounds.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = rounds.changed() => {}
                        _ = serve(stream, &units) => {}
                    }
                });
            }
        });
        OddCamera { url, round, accepting }
    }

    /// Throws all clients out; they may come again.
    pub fn drop_clients(&self) {
        self.round.send_modify(|round| *round += 1);
    }
}

/// The NAL units of each picture.
fn access_units() -> Vec<Vec<Vec<u8>>> {
    let picture = "testsrc2=size=320x240:rate=25";
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", picture, "-t", SECONDS])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "9999"])
        .args(["-sc_threshold", "0", "-x264-params", "aud=1:repeat-headers=1:sliced-threads=0"])
        .args(["-force_key_frames", KEYFRAMES, "-pix_fmt", "yuv420p", "-f", "h264", "-"])
        .output()
        .expect("ffmpeg can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut units: Vec<Vec<Vec<u8>>> = Vec::new();
    for nal in annexb_nals(&output.stdout) {
        match nal[0] & 31 {
            9 => units.push(Vec::new()),
            _ => units.last_mut().expect("a delimiter first").push(nal),
        }
    }
    units
}

async fn serve(stream: TcpStream, units: &Arc<Vec<Vec<Vec<u8>>>>) -> std::io::Result<()> {
    let (read, write) = stream.into_split();
    let write = Arc::new(Mutex::new(write));
    let mut lines = BufReader::new(read).lines();
    let mut sending = tokio::task::JoinSet::new();
    let (mut method, mut sequence) = (String::new(), String::new());
    while let Some(line) = lines.next_line().await? {
        if let Some(number) = line.strip_prefix("CSeq:") {
            sequence = number.trim().to_owned();
        } else if method.is_empty() {
            // Frames from the client begin with a dollar sign and are not lines: none is expected before PLAY.
            method = line.split(' ').next().unwrap_or_default().to_owned();
        } else if line.is_empty() {
            let (headers, body) = answer(&method);
            let text = format!(
                "RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            write.lock().await.write_all(text.as_bytes()).await?;
            if method == "PLAY" {
                sending.spawn(send(write.clone(), units.clone()));
            }
            method.clear();
        }
    }
    Ok(())
}

fn answer(method: &str) -> (&'static str, &'static str) {
    match method {
        "OPTIONS" => ("Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n", ""),
        "DESCRIBE" => (
            "Content-Type: application/sdp\r\n",
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=odd\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n\
             c=IN IP4 0.0.0.0\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n",
        ),
        "SETUP" => ("Session: 12345678;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", ""),
        _ => ("Session: 12345678\r\n", ""),
    }
}

async fn send(write: Arc<Mutex<OwnedWriteHalf>>, units: Arc<Vec<Vec<Vec<u8>>>>) -> std::io::Result<()> {
    let start = Instant::now();
    let (mut sequence, mut random) = (0u16, 12_345u32);
    for (number, unit) in (0u32..).zip(units.iter().cycle()) {
        sleep_until(start + FRAME * number).await;
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let jitter = (random >> 16) % 2161;
        let time = 1_000_000u32.wrapping_add(number * 3600).wrapping_add(jitter).wrapping_sub(1080);
        let mut packets = Vec::new();
        for nal in unit {
            fragments(nal, &mut packets);
        }
        let last = packets.len() - 1;
        let mut write = write.lock().await;
        for (index, payload) in packets.iter().enumerate() {
            let mut frame = vec![b'$', 0];
            frame.extend(((payload.len() + 12) as u16).to_be_bytes());
            frame.extend([0x80, 96 | if index == last { 0x80 } else { 0 }]);
            frame.extend(sequence.to_be_bytes());
            frame.extend(time.to_be_bytes());
            frame.extend([0, 0, 0, 7]);
            frame.extend(payload);
            write.write_all(&frame).await?;
            sequence = sequence.wrapping_add(1);
        }
    }
    Ok(())
}

/// RFC 6184: one NAL unit in a packet, or in pieces (FU-A).
fn fragments(nal: &[u8], packets: &mut Vec<Vec<u8>>) {
    if nal.len() <= 1400 {
        return packets.push(nal.to_vec());
    }
    let pieces: Vec<&[u8]> = nal[1..].chunks(1398).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let start = if index == 0 { 0x80 } else { 0 };
        let end = if index + 1 == pieces.len() { 0x40 } else { 0 };
        packets.push([&[nal[0] & 0xe0 | 28, start | end | nal[0] & 31], *piece].concat());
    }
}
