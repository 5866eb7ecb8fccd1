//! The RTSP source against servers that lie, flood, or fall silent: a clear error in time, and memory stays flat.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use streamgate::graph::{RtpIn, SourceDetails, SourceError};
use streamgate::media::Track;
use streamgate::sources::rtsp::{Output, RtspSource};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// With `#timeout=1`: one second to connect, two to the answer of PLAY, one without media, and as much again for a
/// busy machine.
const DEADLINE: Duration = Duration::from_secs(8);
const MAX_GROWTH: usize = 20 * 1024 * 1024;
const SDP: &str = "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:t0\r\n\
                   m=audio 0 RTP/AVP 8\r\na=control:t1\r\n";

#[derive(Default, Clone)]
struct Counter {
    packets: Arc<AtomicUsize>,
}

impl Output for Counter {
    fn set_tracks(&mut self, _: Vec<Track>, _: SourceDetails) {}
    fn write_rtp(&mut self, _: RtpIn<'_>) {
        self.packets.fetch_add(1, Ordering::Relaxed);
    }
    fn sender_report(&mut self, _: usize, _: u64, _: u32) {}
    fn flush(&mut self) {}
}

/// One client's connection, from the server's side.
struct Client {
    stream: TcpStream,
    /// Connections accepted before this one.
    index: usize,
    host: String,
}

impl Client {
    /// The next request's first line and CSeq; `None` when the client has gone.
    async fn request(&mut self) -> Option<(String, String)> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.ok()?);
        }
        let text = String::from_utf8(head).expect("requests are ASCII");
        let cseq = text.lines().find_map(|l| l.strip_prefix("CSeq: ")).expect("a CSeq").to_owned();
        Some((text.lines().next().expect("a line").to_owned(), cseq))
    }

    /// Sends; that the client has gone is no failure of the server's.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Answers like a good camera until a request of this method comes, which is left to the caller.
    async fn serve_until(&mut self, method: &str) -> Option<String> {
        loop {
            let (line, cseq) = self.request().await?;
            if line.starts_with(method) {
                return Some(cseq);
            }
            let answer = good_answer(&line, &cseq);
            self.send(answer).await;
        }
    }

    /// Waits until the client goes.
    async fn wait_for_goodbye(&mut self) {
        while self.stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
    }
}

fn good_answer(line: &str, cseq: &str) -> String {
    let head = format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n");
    match line.split(' ').next() {
        Some("OPTIONS") => format!("{head}Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER\r\n\r\n"),
        Some("DESCRIBE") => {
            format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len())
        }
        Some("SETUP") => {
            let channels = if line.contains("/t1") { "2-3" } else { "0-1" };
            format!("{head}Session: 1;timeout=2\r\nTransport: RTP/AVP/TCP;interleaved={channels}\r\n\r\n")
        }
        _ => format!("{head}Session: 1\r\n\r\n"),
    }
}

/// Serves each connection with `serve` and returns `host:port`.
async fn server<F, S>(serve: F) -> String
where
    F: Fn(Client) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let host = listener.local_addr().expect("address").to_string();
    let own = host.clone();
    tokio::spawn(async move {
        for index in 0.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(Client { stream, index, host: own.clone() }));
        }
    });
    host
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("pages") * 4096
}

/// One run at a time, so that memory that grows is that run's.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Runs the source to its end: in time, with bounded memory.
async fn run(url: &str) -> (SourceError, usize) {
    let _alone = ALONE.lock().await;
    let source = RtspSource::open(url).expect("a URL");
    let mut out = Counter::default();
    let packets = Arc::clone(&out.packets);
    let (before, start) = (resident_bytes(), Instant::now());
    let mut most = before;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let run = source.run_into(&mut out);
    tokio::pin!(run);
    let error = loop {
        tokio::select! {
            ended = &mut run => break ended.expect_err("ends with why"),
            _ = ticks.tick() => most = most.max(resident_bytes()),
        }
        assert!(start.elapsed() < DEADLINE, "no end after {:?}", start.elapsed());
    };
    let grown = most.saturating_sub(before);
    assert!(grown < MAX_GROWTH, "memory grew by {} KiB", grown / 1024);
    (error, packets.load(Ordering::Relaxed))
}

async fn refusal(host: &str) -> String {
    match run(&format!("rtsp://{host}/cam#timeout=1")).await.0 {
        SourceError::Refused(why) => why,
        other => panic!("not a refusal: {other:?}"),
    }
}

/// Answers DESCRIBE with these bytes, over and over if so wanted.
async fn describing(answer: impl Into<Vec<u8>>, for_ever: Option<&'static [u8]>) -> String {
    let answer: Vec<u8> = answer.into();
    server(move |mut client| {
        let answer = answer.clone();
        async move {
            client.serve_until("DESCRIBE").await;
            client.send(answer).await;
            if let Some(more) = for_ever {
                let block = more.repeat(1 + 100_000 / more.len());
                while client.send(&block).await {}
            }
            client.wait_for_goodbye().await;
        }
    })
    .await
}

#[tokio::test]
async fn endless_headers_are_cut_off() {
    let lines = describing("RTSP/1.0 200 OK\r\n", Some(b"X-Junk: y\r\n")).await;
    assert!(refusal(&lines).await.contains("head of more than"));
    let line = describing("RTSP/1.0 200 OK\r\nServer: ", Some(b"x")).await;
    assert!(refusal(&line).await.contains("head of more than 64 KiB"));
    let empty = describing("", Some(b"\r\n")).await;
    assert!(refusal(&empty).await.contains("head of more than"));
}

#[tokio::test]
async fn lengths_that_can_not_be_are_quoted() {
    for length in ["-1", "99999999999", "18446744073709551616", "1048577", "ten", "5\r\nContent-Length: 7"] {
        let answer =
            format!("RTSP/1.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n");
        let why = refusal(&describing(answer, Some(b"v=0\r\n")).await).await;
        let first = length.split('\r').next().expect("a part");
        assert!(why.contains(&format!("Content-Length: {first}")) && why.contains("DESCRIBE"), "{why}");
    }
}

#[tokio::test]
async fn a_length_that_lies_is_found_out() {
    let long = format!("RTSP/1.0 200 OK\r\nContent-Length: 5000\r\n\r\n{SDP}");
    let (error, _) = run(&format!("rtsp://{}/#timeout=1", describing(long, None).await)).await;
    assert!(matches!(&error, SourceError::TimedOut(why) if why.contains("only in part")), "{error:?}");
    let cut = SDP.find("a=control").expect("in the description");
    let short = format!("RTSP/1.0 200 OK\r\nContent-Length: {cut}\r\n\r\n{SDP}");
    let why = refusal(&describing(short, None).await).await;
    assert!(why.contains("no RTSP"), "{why}");
}

#[tokio::test]
async fn garbage_is_refused() {
    let mut noise = 1u32;
    let garbage: Vec<u8> = (0..100_000)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8 | 0x80
        })
        .collect();
    assert!(refusal(&describing(garbage, None).await).await.contains("no RTSP"));
    let web = describing("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", None).await;
    assert!(refusal(&web).await.contains("HTTP/1.1 400 Bad Request"));
    let nothing = describing("RTSP/1.0 200 OK\r\n\r\n", None).await;
    assert!(refusal(&nothing).await.contains("described no media"));
    let foreign = describing(
        "RTSP/1.0 200 OK\r\nContent-Length: 48\r\n\r\nm=video 0 RTP/AVP 32\r\nm=application 0 RTP/AVP 99",
        None,
    )
    .await;
    let why = refusal(&foreign).await;
    assert!(why.contains("it has video MPV, application"), "{why}");
}

#[tokio::test]
async fn silence_is_a_timeout_that_says_where() {
    let silent = server(|mut client| async move { client.wait_for_goodbye().await }).await;
    let (error, _) = run(&format!("rtsp://{silent}/#timeout=1")).await;
    assert!(
        matches!(&error, SourceError::TimedOut(why) if why.contains("didn't answer OPTIONS in 2 s")),
        "{error:?}"
    );
    for method in ["DESCRIBE", "SETUP", "PLAY"] {
        let host = server(move |mut client| async move {
            client.serve_until(method).await;
            client.wait_for_goodbye().await;
        })
        .await;
        let (error, _) = run(&format!("rtsp://{host}/#timeout=1")).await;
        assert!(matches!(&error, SourceError::TimedOut(why) if why.contains(method)), "{error:?}");
    }
    let half = describing("RTSP/1.0 200 OK\r\nCSeq: 2\r\nConte", None).await;
    let (error, _) = run(&format!("rtsp://{half}/#timeout=1")).await;
    assert!(
        matches!(&error, SourceError::TimedOut(why) if why.contains("DESCRIBE only in part")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_slow_drip_does_not_stretch_the_deadline() {
    let host = server(|mut client| async move {
        client.serve_until("DESCRIBE").await;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        while client.send("R").await {
            ticks.tick().await;
        }
    })
    .await;
    let (error, _) = run(&format!("rtsp://{host}/#timeout=1")).await;
    assert!(matches!(error, SourceError::TimedOut(_)), "{error:?}");
}

#[tokio::test]
async fn a_closed_connection_says_when() {
    let host = server(|mut client| async move {
        client.serve_until("SETUP").await;
    })
    .await;
    let why = refusal(&host).await;
    assert!(why.contains("closed the connection when it was asked for SETUP"), "{why}");
}

#[tokio::test]
async fn a_login_that_never_succeeds_ends() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let host = server(move |mut client| {
        let tries = Arc::clone(&counted);
        async move {
            while let Some((_, cseq)) = client.request().await {
                let n = tries.fetch_add(1, Ordering::Relaxed);
                let challenge = format!("Digest realm=\"r\", nonce=\"{n}\", stale=TRUE");
                client
                    .send(format!(
                        "RTSP/1.0 401 Unauthorized\r\nCSeq: {cseq}\r\nWWW-Authenticate: {challenge}\r\n\r\n"
                    ))
                    .await;
            }
        }
    })
    .await;
    let why = refusal(&format!("admin:secret@{host}")).await;
    assert_eq!(why, "401 Unauthorized: user name or password is wrong");
    assert!(tries.load(Ordering::Relaxed) <= 3);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let host = server(|mut client| async move {
        let cseq = client.serve_until("DESCRIBE").await.expect("asks");
        let to = format!("rtsp://{}/{}", client.host, client.index);
        client.send(format!("RTSP/1.0 302 Moved\r\nCSeq: {cseq}\r\nLocation: {to}\r\n\r\n")).await;
        client.wait_for_goodbye().await;
    })
    .await;
    assert!(refusal(&host).await.contains("more than 3 redirects"));
    let web = describing("RTSP/1.0 302 Moved\r\nLocation: http://x/\r\n\r\n", None).await;
    assert!(refusal(&web).await.contains("redirects to what can't be followed"));
}

#[tokio::test]
async fn one_redirect_is_followed() {
    let host = server(|mut client| async move {
        let cseq = client.serve_until("DESCRIBE").await.expect("asks");
        if client.index == 0 {
            let to = format!("rtsp://{}/other", client.host);
            client.send(format!("RTSP/1.0 302 Moved\r\nCSeq: {cseq}\r\nLocation: {to}\r\n\r\n")).await;
        } else {
            client.send(format!("RTSP/1.0 404 Not Found\r\nCSeq: {cseq}\r\n\r\n")).await;
        }
        client.wait_for_goodbye().await;
    })
    .await;
    assert_eq!(refusal(&host).await, "404 Not Found: no such path on the camera");
}

/// Plays like a good camera, then sends these bytes and waits.
async fn playing(media: Vec<u8>) -> String {
    server(move |mut client| {
        let media = media.clone();
        async move {
            let Some(cseq) = client.serve_until("PLAY").await else { return };
            client.send(good_answer("PLAY", &cseq)).await;
            client.send(media).await;
            client.wait_for_goodbye().await;
        }
    })
    .await
}

fn interleaved(channel: u8, packet: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len()).expect("fits").to_be_bytes();
    [&[b'$', channel, length[0], length[1]], packet].concat()
}

fn rtp(sequence: u8) -> Vec<u8> {
    vec![0x80, 96, 0, sequence, 0, 0, 0, 0, 0, 0, 0, 7, 0x65, 1, 2, 3]
}

#[tokio::test]
async fn lying_media_is_dropped_and_good_media_passes() {
    let mut media = interleaved(0, &rtp(1));
    for flags in [0x00, 0x8f, 0x90, 0xa0, 0xff] {
        let mut lying = rtp(2);
        lying[0] = flags;
        *lying.last_mut().expect("a byte") = 200;
        for channel in [0, 1, 2, 3, 77, 255] {
            media.extend(interleaved(channel, &lying));
        }
    }
    media.extend(interleaved(0, &[]));
    media.extend(interleaved(1, &vec![0x80; 65535]));
    media.extend(interleaved(0, &rtp(2)));
    let (error, packets) = run(&format!("rtsp://{}/#timeout=1", playing(media).await)).await;
    assert_eq!(error, SourceError::Ended("no media for 1 s".into()));
    assert_eq!(packets, 2);
}

#[tokio::test]
async fn a_frame_longer_than_announced_ends_the_run() {
    let mut media = interleaved(0, &rtp(1));
    media.extend([b'$', 0, 0, 4]);
    media.extend(rtp(2));
    let (error, packets) = run(&format!("rtsp://{}/#timeout=1", playing(media).await)).await;
    assert!(matches!(&error, SourceError::Ended(why) if why.contains("no RTSP")), "{error:?}");
    assert_eq!(packets, 1);
}

#[tokio::test]
async fn media_from_before_the_answer_to_play_is_kept() {
    let host = server(|mut client| async move {
        let Some(cseq) = client.serve_until("PLAY").await else { return };
        for sequence in 1..=5 {
            client.send(interleaved(0, &rtp(sequence))).await;
        }
        client.send(good_answer("PLAY", &cseq)).await;
        client.wait_for_goodbye().await;
    })
    .await;
    let (error, packets) = run(&format!("rtsp://{host}/#timeout=1")).await;
    assert_eq!((error, packets), (SourceError::Ended("no media for 1 s".into()), 5));
}

#[tokio::test]
async fn a_camera_that_asks_without_reading_is_left() {
    let host = server(|mut client| async move {
        let Some(cseq) = client.serve_until("PLAY").await else { return };
        client.send(good_answer("PLAY", &cseq)).await;
        let flood = "SET_PARAMETER * RTSP/1.0\r\nCSeq: 1\r\n\r\n".repeat(1000);
        while client.send(&flood).await {}
    })
    .await;
    let (error, _) = run(&format!("rtsp://{host}/#timeout=2")).await;
    assert!(matches!(error, SourceError::Ended(_)), "{error:?}");
}

#[tokio::test]
async fn keepalives_are_sent_signed_anew_and_need_no_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let host = server(move |mut client| {
        let asked = Arc::clone(&counted);
        async move {
            let Some(cseq) = client.serve_until("PLAY").await else { return };
            client.send(good_answer("PLAY", &cseq)).await;
            // The session's timeout is 2 s: a keepalive each second. The first gets a new nonce, the rest no answer.
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            let (mut sequence, mut read) = (0u8, Vec::new());
            while asked.load(Ordering::Relaxed) < 3 {
                ticks.tick().await;
                sequence = sequence.wrapping_add(1);
                client.send(interleaved(0, &rtp(sequence))).await;
                let mut more = [0; 1024];
                if let Ok(n) = client.stream.try_read(&mut more) {
                    read.extend_from_slice(&more[..n]);
                }
                if read.ends_with(b"\r\n\r\n") {
                    let text = String::from_utf8(std::mem::take(&mut read)).expect("ASCII");
                    assert!(
                        text.starts_with("GET_PARAMETER rtsp://") && text.contains("Session: 1\r\n"),
                        "{text}"
                    );
                    match asked.fetch_add(1, Ordering::Relaxed) {
                        0 => {
                            let head = "RTSP/1.0 401 Unauthorized\r\nCSeq: 99\r\n";
                            let challenge =
                                "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", stale=TRUE\r\n\r\n";
                            client.send(format!("{head}{challenge}")).await;
                        }
                        _ => assert!(text.contains("Authorization: Digest"), "{text}"),
                    }
                }
            }
        }
    })
    .await;
    let (error, packets) = run(&format!("rtsp://admin:pass@{host}/#timeout=1")).await;
    assert!(
        matches!(&error, SourceError::Ended(why) if why.contains("closed") || why.contains("cut")),
        "{error:?}"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert!(packets > 15, "{packets}");
}

#[tokio::test]
async fn a_track_that_is_refused_is_left_out() {
    let host = server(|mut client| async move {
        while let Some((line, cseq)) = client.request().await {
            let answer = match line.contains("/t1 ") {
                true => format!("RTSP/1.0 500 Broken\r\nCSeq: {cseq}\r\n\r\n"),
                false => good_answer(&line, &cseq),
            };
            client.send(answer).await;
            if line.starts_with("PLAY") {
                client.send(interleaved(0, &rtp(1))).await;
            }
        }
    })
    .await;
    let (error, packets) = run(&format!("rtsp://{host}/#timeout=1")).await;
    assert_eq!((error, packets), (SourceError::Ended("no media for 1 s".into()), 1));
}

#[tokio::test]
async fn udp_that_does_not_come_through_becomes_tcp() {
    let host = server(|mut client| async move {
        while let Some((line, cseq)) = client.request().await {
            let over_udp = client.index == 0 && line.starts_with("SETUP");
            let answer = match over_udp {
                true => {
                    let transport = "RTP/AVP;unicast;client_port=1-2;server_port=9-10";
                    format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nSession: 1\r\nTransport: {transport}\r\n\r\n")
                }
                false => good_answer(&line, &cseq),
            };
            client.send(answer).await;
            if line.starts_with("PLAY") && client.index == 1 {
                client.send(interleaved(0, &rtp(1))).await;
            }
        }
    })
    .await;
    let (error, packets) = run(&format!("rtsp://{host}/#timeout=1#transport=udp")).await;
    assert_eq!((error, packets), (SourceError::Ended("no media for 1 s".into()), 1));
}

#[tokio::test]
async fn answers_without_cseq_are_taken() {
    let host = server(|mut client| async move {
        while let Some((line, cseq)) = client.request().await {
            let answer = good_answer(&line, &cseq).replace(&format!("CSeq: {cseq}\r\n"), "");
            client.send(answer).await;
            if line.starts_with("PLAY") {
                client.send(interleaved(0, &rtp(1))).await;
            }
        }
    })
    .await;
    let (error, packets) = run(&format!("rtsp://{host}/#timeout=1")).await;
    assert_eq!((error, packets), (SourceError::Ended("no media for 1 s".into()), 1));
}

#[tokio::test]
async fn a_camera_that_asks_is_answered() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Arc::new(parking_lot::Mutex::new(Some(tell)));
    let host = server(move |mut client| {
        let tell = Arc::clone(&tell);
        async move {
            let Some(cseq) = client.serve_until("PLAY").await else { return };
            client.send(good_answer("PLAY", &cseq)).await;
            client
                .send("OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\nANNOUNCE rtsp://h/ RTSP/1.0\r\nCSeq: 8\r\n\r\n")
                .await;
            let first = client.request().await.expect("answers");
            let second = client.request().await.expect("answers");
            tell.lock().take().expect("once").send((first, second)).expect("waits");
            client.wait_for_goodbye().await;
        }
    })
    .await;
    run(&format!("rtsp://{host}/#timeout=1")).await;
    let (first, second) = told.await.expect("told");
    assert_eq!(first, ("RTSP/1.0 200 OK".into(), "7".into()));
    assert_eq!(second, ("RTSP/1.0 501 Not Implemented".into(), "8".into()));
}

#[tokio::test]
async fn dropping_the_run_says_teardown_and_closes() {
    let (tell, mut told) = tokio::sync::mpsc::channel(8);
    let host = server(move |mut client| {
        let tell = tell.clone();
        async move {
            let Some(cseq) = client.serve_until("PLAY").await else { return };
            client.send(good_answer("PLAY", &cseq)).await;
            // Unread media, as there always is when a viewer leaves.
            client.send(interleaved(0, &rtp(1)).repeat(5000)).await;
            tell.send("playing".to_owned()).await.expect("waits");
            while let Some((line, _)) = client.request().await {
                tell.send(line).await.expect("waits");
            }
            tell.send("closed".to_owned()).await.expect("waits");
        }
    })
    .await;
    let source = RtspSource::open(&format!("rtsp://{host}/cam")).expect("a URL");
    let task = tokio::spawn(async move { source.run_into(&mut Counter::default()).await });
    let mut next = async || tokio::time::timeout(Duration::from_secs(3), told.recv()).await.expect("in time");
    assert_eq!(next().await.as_deref(), Some("playing"));
    task.abort();
    assert_eq!(next().await, Some(format!("TEARDOWN rtsp://{host}/cam RTSP/1.0")));
    assert_eq!(next().await.as_deref(), Some("closed"));
}
