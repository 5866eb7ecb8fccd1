//! The RTSP server, as players know it: ffmpeg, GStreamer, retina, Streamgate itself; over TCP, UDP and TLS; with and without
//! a password; while the source comes and goes.

mod common;
mod rtsp_support;

use common::{Camera, Clip, Streamgate, annexb_nals, delete, eventually, get_json};
use futures_util::StreamExt;
use rtsp_support::*;
use std::pin::Pin;
use std::process::Stdio;
use streamgate::media::rtp::header;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::sync::Barrier;
use tokio::time::timeout;

fn rtsp(streamgate: &Streamgate, rest: &str) -> String {
    format!("rtsp://127.0.0.1:{}/{rest}", streamgate.port)
}

/// Every codec, by ffmpeg, GStreamer and retina, over TCP and UDP, and filtered; without one complaint.
#[tokio::test(flavor = "multi_thread")]
async fn players_play_every_codec_over_tcp_and_udp() {
    let camera = Camera::start_with(
        &[
            ("/aac", "clip=h264_main_g60,audio=aac"),
            ("/opus", "clip=h265_main_g60,audio=opus"),
            ("/pcma", "video=h264,audio=pcma"),
            ("/pcmu", "video=none,audio=pcmu"),
            ("/eye", "video=h264,gop=25"),
            ("/ear", "video=none,audio=pcmu"),
        ],
        None,
    );
    let urls: Vec<String> =
        ["/aac", "/opus", "/pcma", "/pcmu", "/eye", "/ear"].map(|path| camera.url_of(path)).into();
    let yaml = format!(
        "streams:\n  금곡IC: {}\n  opus: {}\n  pcma: {}\n  pcmu: {}\n  both: [{}, {}]\n",
        urls[0], urls[1], urls[2], urls[3], urls[4], urls[5],
    );
    let streamgate = Streamgate::with_config(&yaml);
    let plays = async |path: &str, transport: &str, codecs: &[&str]| {
        let url = rtsp(&streamgate, path);
        assert_eq!(ffprobe(&url, transport).await, codecs, "{path} {transport}");
        let played = ffmpeg(&url, transport, "2", "error").await;
        assert_eq!(played.complaints, "", "{path} {transport}");
        assert!(
            played.packets.len() == codecs.len() && played.packets.iter().all(|n| *n >= 25),
            "{path} {played:?}"
        );
    };
    let gstreamer = async |path: &str, transport: &str, depay: &str| {
        rtspsrc(&rtsp(&streamgate, path), transport, depay, 30).await;
    };
    tokio::join!(
        plays("금곡IC", "tcp", &["h264", "aac"]),
        plays("%EA%B8%88%EA%B3%A1IC", "udp", &["h264", "aac"]),
        plays("opus", "tcp", &["hevc", "opus"]),
        plays("opus", "udp", &["hevc", "opus"]),
        plays("pcma", "tcp", &["h264", "pcm_alaw"]),
        plays("pcmu", "udp", &["pcm_mulaw"]),
        plays("opus?video=h265", "tcp", &["hevc"]),
        plays("pcma?audio=pcma,pcmu", "udp", &["pcm_alaw"]),
        // The picture of one source, the sound of another.
        plays("both", "tcp", &["h264", "pcm_mulaw"]),
    );
    tokio::join!(
        gstreamer("opus", "tcp", "rtph265depay ! h265parse"),
        gstreamer("opus", "udp", "rtpopusdepay"),
        gstreamer("both", "udp", "rtph264depay ! h264parse"),
        gstreamer("%EA%B8%88%EA%B3%A1IC", "tcp", "rtpmp4gdepay ! aacparse"),
        gstreamer("pcma", "udp", "rtppcmadepay"),
        gstreamer("pcmu", "tcp", "rtppcmudepay"),
        retina_plays(&streamgate, "opus", false),
        retina_plays(&streamgate, "%EA%B8%88%EA%B3%A1IC", true),
        retina_plays(&streamgate, "pcmu", true),
    );
    for (path, status) in [
        ("nobody", "404 Not Found: there is no stream \"nobody\""),
        ("opus?video=h264", "415 Unsupported"),
        ("opus?video=vp8", "400 Bad Request"),
    ] {
        let played = ffmpeg(&rtsp(&streamgate, path), "tcp", "1", "error").await;
        assert!(played.complaints.contains(status), "{path}: {}", played.complaints);
    }
}

/// All tracks, put together to frames of each, without an error.
async fn retina_plays(streamgate: &Streamgate, path: &str, udp: bool) {
    let (mut items, tracks) = retina_begins(&rtsp(streamgate, path), udp).await;
    let mut seen = vec![0; tracks.len()];
    while seen.iter().zip(&tracks).any(|(frames, known)| *known && *frames < 20) {
        seen[retina_frame(&mut items).await] += 1;
    }
}

/// Plays; and which of the tracks retina knows: not Opus.
async fn retina_begins(url: &str, udp: bool) -> (Pin<Box<retina::client::Demuxed>>, Vec<bool>) {
    use retina::client::{PlayOptions, Session, SessionOptions, SetupOptions, Transport};
    let url = url::Url::parse(url).expect("a URL");
    let mut session = Session::describe(url, SessionOptions::default()).await.expect("described");
    let known = |stream: &retina::client::Stream| stream.encoding_name() != "opus";
    let tracks: Vec<bool> = session.streams().iter().map(known).collect();
    for (track, _) in tracks.iter().enumerate().filter(|(_, known)| **known) {
        let transport =
            if udp { Transport::Udp(Default::default()) } else { Transport::Tcp(Default::default()) };
        session.setup(track, SetupOptions::default().transport(transport)).await.expect("set up");
    }
    let session = session.play(PlayOptions::default()).await.expect("plays");
    (Box::pin(session.demuxed().expect("depacketized")), tracks)
}

/// The track of the next frame, before which nothing was lost.
async fn retina_frame(items: &mut Pin<Box<retina::client::Demuxed>>) -> usize {
    loop {
        let item = timeout(SOON, items.next()).await.expect("in time").expect("no end").expect("no error");
        let (track, loss) = match item {
            retina::codec::CodecItem::VideoFrame(frame) => (frame.stream_id(), frame.loss()),
            retina::codec::CodecItem::AudioFrame(frame) => (frame.stream_id(), frame.loss()),
            _ => continue,
        };
        assert_eq!(loss, 0, "of track {track}");
        return track;
    }
}

/// What a recorder writes is what the camera sent, NAL unit by NAL unit.
async fn records_exactly(clip: &'static str, muxer: &str, transport: &str) {
    let camera = Camera::start(&format!("clip={clip},once=yes"));
    let streamgate = Streamgate::with_streams(&[("clip", &camera.url)]);
    let file = streamgate.folder().join("recorded");
    let path = file.display().to_string();
    let url = rtsp(&streamgate, "clip");
    // The camera plays once: the recorder takes as much as there is, less than the last picture.
    let args = ["-nostdin", "-v", "error", "-rtsp_transport", transport, "-i", &url, "-frames:v", "236"];
    let output =
        run("ffmpeg", &[&args[..], &["-c", "copy", "-bsf:v", "null", "-f", muxer, "-y", &path]].concat())
            .await;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let recorded = annexb_nals(&std::fs::read(file).expect("a recording"));
    let sent = Clip::named(clip).nals();
    assert!(recorded.len() >= 236 && recorded.len() <= sent.len(), "{} of {}", recorded.len(), sent.len());
    // ffmpeg puts the parameter sets of the description in front.
    let is_set = |nal: &&Vec<u8>| match muxer {
        "h264" => matches!(nal[0] & 31, 7 | 8),
        _ => matches!(nal[0] >> 1 & 63, 32..=34),
    };
    let pictures = |nals: &[Vec<u8>]| nals.iter().filter(|nal| !is_set(nal)).cloned().collect::<Vec<_>>();
    let (recorded, sent) = (pictures(&recorded), pictures(&sent));
    for (index, (recorded, sent)) in recorded.iter().zip(&sent).enumerate() {
        assert!(recorded == sent, "NAL unit {index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_reach_a_recorder_byte_for_byte() {
    tokio::join!(
        records_exactly("h264_high_g60", "h264", "tcp"),
        records_exactly("h264_main_g60", "h264", "udp"),
        records_exactly("h265_main_g60", "hevc", "tcp"),
        records_exactly("h265_main_g60", "hevc", "udp"),
    );
}

/// Pictures that are watched through a restart, which comes after the first [`BEFORE`].
const PICTURES: usize = 90;
const BEFORE: usize = 30;

/// A program that decodes [`PICTURES`] and prints a line for each: how many lines, and what else it says.
async fn watches_through_a_restart(
    program: &str,
    args: &[&str],
    is_picture: fn(&str) -> bool,
    is_watching: &Barrier,
) -> (usize, String) {
    let mut command = tokio::process::Command::new(program);
    let command = command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut player = command.kill_on_drop(true).spawn().expect("it can be run");
    let mut lines = BufReader::new(player.stdout.take().expect("piped")).lines();
    let (mut pictures, mut said) = (0, String::new());
    while let Some(line) = timeout(SOON, lines.next_line()).await.expect("it goes on").expect("text") {
        if !is_picture(&line) {
            said += &(line + "\n");
            continue;
        }
        pictures += 1;
        if pictures == BEFORE {
            is_watching.wait().await;
        }
    }
    let output = player.wait_with_output().await.expect("its end");
    said += &String::from_utf8_lossy(&output.stderr);
    (pictures, said)
}

async fn ffmpeg_watches_through_a_restart(url: &str, transport: &str, is_watching: &Barrier) {
    let limit = PICTURES.to_string();
    // Its sound is decoded, too; of what is printed only the pictures are looked at.
    let args = ["-nostdin", "-v", "error", "-rtsp_transport", transport, "-i", url, "-map", "0"];
    let args = [&args[..], &["-frames:v", &limit, "-f", "framecrc", "-"]].concat();
    let (pictures, said) =
        watches_through_a_restart("ffmpeg", &args, |line| line.starts_with("0,"), is_watching).await;
    let complaints: Vec<&str> = said.lines().filter(|line| !line.starts_with(['#', '1'])).collect();
    assert_eq!((complaints, pictures), (vec![], PICTURES), "{transport}");
}

async fn gstreamer_watches_through_a_restart(url: &str, transport: &str, is_watching: &Barrier) {
    let pipeline = format!(
        "-v rtspsrc location={url} protocols={transport} latency=0 name=s s. ! application/x-rtp,media=video ! \
         rtph264depay ! h264parse ! avdec_h264 max-errors=0 ! identity silent=false eos-after={PICTURES} ! fakesink"
    );
    let words: Vec<&str> = pipeline.split_whitespace().collect();
    let is_picture = |line: &str| line.contains("last-message = chain");
    // It counts by itself, and does not print every single one.
    let (_, said) = watches_through_a_restart("gst-launch-1.0", &words, is_picture, is_watching).await;
    let (played, _) =
        said.split_once("Got EOS from element").unwrap_or_else(|| panic!("{transport}: {said}"));
    assert!(!played.contains("ERROR") && !played.contains("WARNING"), "{transport}: {said}");
}

async fn retina_watches_through_a_restart(url: &str, udp: bool, is_watching: &Barrier) {
    let (mut items, _) = retina_begins(url, udp).await;
    let mut pictures = 0;
    while pictures < PICTURES {
        pictures += usize::from(retina_frame(&mut items).await == 0);
        if pictures == BEFORE {
            is_watching.wait().await;
            pictures += 1;
        }
    }
}

/// The camera is silent, dies and comes back: to a player that decodes all the time it is a pause.
#[tokio::test(flavor = "multi_thread")]
async fn players_go_on_without_a_decode_error_when_the_source_has_restarted() {
    let mut camera = Camera::start("video=h264,gop=25,audio=aac");
    let streamgate = Streamgate::with_streams(&[("cam", &camera.url)]);
    let (url, all) = (rtsp(&streamgate, "cam"), Barrier::new(7));
    // retina wants to be told the first timestamps, for which there must be some.
    assert_eq!(ffprobe(&url, "tcp").await, ["h264", "aac"]);
    let restart = async {
        all.wait().await;
        // A camera that is cut off within a picture leaves half of it, which no decoder likes.
        camera.stall();
        camera.restart();
    };
    tokio::join!(
        ffmpeg_watches_through_a_restart(&url, "tcp", &all),
        ffmpeg_watches_through_a_restart(&url, "udp", &all),
        gstreamer_watches_through_a_restart(&url, "tcp", &all),
        gstreamer_watches_through_a_restart(&url, "udp", &all),
        retina_watches_through_a_restart(&url, false, &all),
        retina_watches_through_a_restart(&url, true, &all),
        restart
    );
    assert_eq!(camera.clients(), 1, "what was played to the end came from the new camera");
}

/// Digest by ffmpeg, GStreamer and retina (which takes SHA-256), on the port of its own and on the one port; and what an
/// operator sees of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_asked_for_and_every_player_can_say_it() {
    let camera = Camera::start("video=h264,gop=25");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let yaml = format!(
        "rtsp: {{listen: '127.0.0.1:{free}', username: admin, password: 'p:w 비밀', udp_ports: 21000-21999}}\nstreams: {{cam: '{}'}}\n",
        camera.url
    );
    let streamgate = Streamgate::with_config(&yaml);
    let encoded = "admin:p%3Aw%20%EB%B9%84%EB%B0%80";
    for (port, transport) in [(free, "tcp"), (streamgate.port, "udp")] {
        let played = ffmpeg(&format!("rtsp://127.0.0.1:{port}/cam"), transport, "1", "error").await;
        assert!(played.complaints.contains("401 Unauthorized"), "{}", played.complaints);
        let url = format!("rtsp://admin:p:w 비밀@127.0.0.1:{port}/cam");
        let played = ffmpeg(&url, transport, "1", "error").await;
        assert_eq!(played.complaints, "");
        assert!(played.packets[0] >= 20, "{played:?}");
    }
    let url = format!("rtsp://{encoded}@127.0.0.1:{free}/cam");
    rtspsrc(&url, "tcp", "rtph264depay ! h264parse", 30).await;

    // Another Streamgate is a player, too: over UDP, and its own viewer gets the picture.
    let second = Streamgate::with_streams(&[("cam", &format!("{url}#transport=udp"))]);
    assert_eq!(ffprobe(&rtsp(&second, "cam"), "tcp").await, ["h264"]);
    let listed = consumers(&streamgate, "cam").await;
    let of_second: Vec<_> =
        listed.iter().filter(|c| c["user_agent"].as_str().unwrap_or("").starts_with("Streamgate/")).collect();
    assert_eq!(of_second.len(), 1, "{listed:?}");
    assert_eq!(
        (&of_second[0]["format_name"], &of_second[0]["protocol"]),
        (&"rtsp".into(), &"rtsp+udp".into())
    );
    eventually("its reports are read", SOON, async || {
        consumers(&streamgate, "cam")
            .await
            .iter()
            .any(|c| c["rtt"].is_number() && c["bytes_send"].as_u64() > Some(0))
    })
    .await;
    drop(second);
    eventually("its session ends with it", SOON, async || consumers(&streamgate, "cam").await.is_empty())
        .await;

    // retina: Digest with SHA-256.
    let credentials = retina::client::Credentials { username: "admin".into(), password: "p:w 비밀".into() };
    let options = retina::client::SessionOptions::default().creds(Some(credentials));
    let url = url::Url::parse(&format!("rtsp://127.0.0.1:{free}/cam")).expect("a URL");
    let mut session = retina::client::Session::describe(url, options).await.expect("described");
    session.setup(0, retina::client::SetupOptions::default()).await.expect("set up");
    let session = session.play(retina::client::PlayOptions::default()).await.expect("plays");
    let mut frames = Box::pin(session.demuxed().expect("depacketized"));
    for _ in 0..30 {
        let frame = timeout(SOON, frames.next()).await.expect("in time").expect("no end");
        frame.expect("no error");
    }
    drop(frames);

    // Nothing but RTSP is served there.
    let mut web = Client::connect(free, "cam").await;
    web.base = String::new();
    web.send("GET", "/api", "Host: x\r\n").await;
    assert!(web.next().await.is_none());
    let info = get_json(&streamgate.url("/api")).await;
    assert_eq!(info["rtsp"]["listen"], format!("127.0.0.1:{free}"));
    assert!(!streamgate.log().contains("비밀"), "the password is in the log");
}

/// A picture that goes on while the camera is away and comes back; PAUSE; the end with the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_its_source_but_not_its_stream() {
    let mut camera = Camera::start("video=h264,gop=25,audio=opus");
    let streamgate = Streamgate::with_streams(&[("cam", &camera.url)]);
    let mut client = Client::connect(streamgate.port, "cam").await;
    let answer = client.play().await;
    assert!(answer.contains("Range: npt=0-") && answer.contains("trackID=0;seq="), "{answer}");
    let mut gop = Gop::default();
    gop.begins(&mut client, &answer).await;
    gop.plays(&mut client, 40).await;
    assert!(gop.reports >= 2, "a sender report before each track's first packet");
    camera.restart();
    gop.plays(&mut client, 60).await;

    let (status, answer) = client.ask("PAUSE", "", "").await;
    assert_eq!(status, 200, "{answer}");
    let (status, _) = client.ask("GET_PARAMETER", "", "").await;
    assert_eq!(status, 200);
    assert_eq!(consumers(&streamgate, "cam").await.len(), 1, "a pause is no end");
    let (status, answer) = client.ask("PLAY", "", "").await;
    assert_eq!(status, 200);
    gop.begins(&mut client, &answer).await;
    gop.plays(&mut client, 30).await;

    let second = {
        let mut second = Client::connect(streamgate.port, "cam").await;
        second.play().await;
        second
    };
    let id =
        consumers(&streamgate, "cam").await.iter().filter_map(|c| c["id"].as_u64()).max().expect("an id");
    // Whoever may change things may end one viewer, once there is a call for it; the stream's end ends all.
    assert!(id > 0);
    assert_eq!(delete(&streamgate.url("/api/streams/cam")).await.status, 200);
    for mut client in [client, second] {
        let closed = async { while client.next().await.is_some() {} };
        timeout(SOON, closed).await.expect("closed with the stream");
    }
}

/// PAUSE by UDP: what waited is dropped, nothing more comes, and PLAY goes on at a keyframe, with the numbers it names.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_by_udp_is_silent_and_ends_at_a_keyframe() {
    let camera = Camera::start("clip=h264_main_g120,audio=opus");
    let streamgate = Streamgate::with_streams(&[("cam", &camera.url)]);
    // It shows that the camera goes on, and that a group of pictures is cached that takes a while to send.
    let mut other = Client::connect(streamgate.port, "cam").await;
    other.play().await;
    let mut shown = Gop::default();
    shown.plays(&mut other, 45).await;

    let mut client = Client::connect(streamgate.port, "cam").await;
    client.ask("DESCRIBE", "", "").await;
    let [video, audio] = [client.set_up_udp(0).await, client.set_up_udp(1).await].map(|[rtp, _]| rtp);
    let mut packet = [0; 2000];
    let (mut before, mut timed) = (None, 0);
    for packets in [1, 150, 150] {
        let (status, answer) = client.ask("PLAY", "", "").await;
        assert_eq!(status, 200, "{answer}");
        let told = rtp_info(&answer);
        let mut gop = Gop { wants_keyframe: true, ..Gop::default() };
        for index in 0..packets {
            let length = timeout(SOON, video.recv(&mut packet)).await.expect("in time").expect("received");
            let (header, _) = header::parse(&packet[..length]).expect("RTP");
            if index == 0 {
                assert_is_told(&packet[..length], told[0]);
                let is_new = before.is_none_or(|before: u16| header.sequence.wrapping_sub(before) < 1 << 15);
                assert!(is_new, "{before:?}, then {}", header.sequence);
            }
            gop.take(0, &packet[..length]);
        }
        assert!(packets == 1 || gop.units > 1, "{packets} packets of {} pictures", gop.units);
        let length = timeout(SOON, audio.recv(&mut packet)).await.expect("in time").expect("received");
        assert_is_told(&packet[..length], told[1]);
        timed += told.iter().filter(|(_, timestamp)| timestamp.is_some()).count();
        let (status, answer) = client.ask("PAUSE", "", "").await;
        assert_eq!(status, 200, "{answer}");
        // On loopback what was sent has arrived.
        while let Ok(length) = video.try_recv(&mut packet) {
            before = header::parse(&packet[..length]).map(|(header, _)| header.sequence);
        }
        while audio.try_recv(&mut packet).is_ok() {}
        shown.plays(&mut other, 30).await;
        let late = [video.try_recv(&mut packet), audio.try_recv(&mut packet)];
        assert!(late.iter().all(Result::is_err), "after {packets} packets: {late:?}");
    }
    assert!(timed > 0, "the timestamps are told when they are known");
}

/// Ten recorders that are stopped for longer than the ring and the sockets hold: nobody else notices, and when they go on
/// they skip to a keyframe and decode without one error.
#[tokio::test(flavor = "multi_thread")]
async fn players_that_stop_reading_hurt_nobody_and_go_on_without_an_error() {
    let camera = Camera::start("video=h264,size=320x240,fps=30,gop=30,kbps=8000,pattern=snow,audio=aac");
    let streamgate = Streamgate::with_streams(&[("cam", &camera.url)]);
    let url = rtsp(&streamgate, "cam");
    let mut players = Vec::new();
    for _ in 0..10 {
        let mut player = Client::connect(streamgate.port, "cam").await;
        socket2::SockRef::from(&player.stream).set_recv_buffer_size(64 * 1024).expect("a smaller buffer");
        player.play().await;
        players.push(player);
    }
    let before = streamgate.rss_kb();
    let watching = ffmpeg(&url, "tcp", "8", "error").await;
    assert_eq!(watching.complaints, "");
    assert!(watching.packets[0] > 180, "{watching:?}");
    let after = streamgate.rss_kb();
    assert!(after < before + 60_000, "memory went from {before} kB to {after} kB");
    // What they get now: whole pictures, then a jump to a keyframe, and on.
    let mut decoding = Vec::new();
    for (index, mut player) in players.into_iter().enumerate() {
        let file = streamgate.folder().join(format!("{index}.264"));
        decoding.push(async move {
            let mut stream = Depacketized::default();
            while stream.units < 150 || !stream.jumped {
                let Some(Message::Data { channel, packet }) = player.next().await else { panic!("the end") };
                if channel == 0 {
                    stream.take(&packet);
                }
                assert!(stream.units < 2000, "never skipped");
            }
            std::fs::write(&file, &stream.bytes).expect("written");
            let path = file.display().to_string();
            run("ffmpeg", &["-nostdin", "-v", "error", "-i", &path, "-f", "null", "-"]).await
        });
    }
    for output in futures_util::future::join_all(decoding).await {
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    let drops: Vec<u64> = consumers(&streamgate, "cam")
        .await
        .iter()
        .filter_map(|consumer| consumer["drops"].as_u64())
        .collect();
    assert!(drops.iter().all(|drops| *drops > 0), "{drops:?}");
}

/// Requests out of place, and their statuses; datagrams to nobody but who asks; RTSP over TLS.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_place_gets_its_status() {
    let camera = Camera::start("video=h264,gop=25,audio=pcmu");
    let streamgate = Streamgate::with_streams(&[("cam", &camera.url), ("dead", "rtsp://127.0.0.1:1/x")]);
    let mut client = Client::connect(streamgate.port, "cam").await;
    const TCP: &str = "Transport: RTP/AVP/TCP;unicast;interleaved=4-5\r\n";
    // Several are offered, preferred first: the first that is possible is taken (RFC 2326 §12.39).
    const MULTICAST: &str = "RTP/AVP;multicast;client_port=5000-5001";
    const BY_UDP: &str = "RTP/AVP;unicast;client_port=5000-5001";
    let of = |offers: &[&str]| format!("Transport: {}\r\n", offers.join(","));
    let (status, answer) = client.ask("OPTIONS", "", "").await;
    assert!(status == 200 && answer.contains("Public: OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE"), "{answer}");
    for (method, below, headers, expected) in [
        ("PLAY", "", "", 454),
        ("TEARDOWN", "", "", 454),
        ("DESCRIBE", "", "Require: www.onvif.org/ver20/backchannel\r\n", 551),
        ("ANNOUNCE", "", "", 405),
        ("PLAY_NOTIFY", "", "", 501),
        ("DESCRIBE", "/trackID=0", "", 404),
        ("DESCRIBE", "x", "", 404),
        ("DESCRIBE", "", "", 200),
        ("SETUP", "/trackID=2", TCP, 404),
        ("SETUP", "/trackID=0", "", 461),
        ("SETUP", "/trackID=0", "Transport: RTP/AVP;multicast;client_port=5000-5001\r\n", 461),
        ("SETUP", "/trackID=0", "Transport: RTP/AVP;unicast;client_port=0-1\r\n", 461),
        ("SETUP", "/trackID=0", "Transport: RTP/AVP;unicast;client_port=1900-1023\r\n", 461),
        ("SETUP", "/trackID=0", "Transport: RTP/SAVP;unicast;client_port=5000-5001\r\n", 461),
        ("PLAY", "", "", 454),
        ("SETUP", "/trackID=0", &of(&["RTP/SAVP;unicast;client_port=5000-5001", MULTICAST, "x"]), 461),
        ("SETUP", "/trackID=0", &of(&[MULTICAST, "RTP/AVP/TCP;unicast;interleaved=4-5", BY_UDP]), 200),
        ("SETUP", "/trackID=1", TCP, 461),
        ("SETUP", "/trackID=1", "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n", 461),
        ("SETUP", "/trackID=1", "Transport: RTP/AVP/TCP;unicast\r\n", 200),
        ("DESCRIBE", "", "", 455),
        ("PLAY", "", "Session: other\r\n", 454),
        ("PLAY", "", "", 200),
        ("SETUP", "/trackID=1", TCP, 455),
        ("SET_PARAMETER", "", "", 200),
        ("TEARDOWN", "", "", 200),
    ] {
        let (status, answer) = client.ask(method, below, headers).await;
        assert_eq!(status, expected, "{method} {below} {headers}: {answer}");
        let chosen = answer.lines().find_map(|line| line.strip_prefix("Transport: ")).unwrap_or_default();
        let is_tcp = chosen.starts_with("RTP/AVP/TCP;unicast;interleaved=");
        assert!(is_tcp == (method == "SETUP" && status == 200), "{headers}: {chosen}");
    }
    assert!(client.next().await.is_none(), "closed after TEARDOWN");

    let mut client = Client::connect(streamgate.port, "dead").await;
    let (status, answer) = client.ask("DESCRIBE", "", "").await;
    assert!(status == 503 && answer.contains("503 Service Unavailable: 127.0.0.1:1 refuses"), "{answer}");

    // By UDP to the address that asks, whatever it names.
    let (here, there) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.2:0").await.unwrap());
    let port = here.local_addr().unwrap().port();
    let mut client = Client::connect(streamgate.port, "cam").await;
    client.ask("DESCRIBE", "", "").await;
    let former = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let former = format!("Transport: RTP/AVP;unicast;client_port={former}-{}\r\n", former ^ 1);
    assert_eq!(client.ask("SETUP", "/trackID=0", &former).await.0, 200);
    let transport =
        format!("Transport: RTP/AVP;unicast;destination=127.0.0.2;client_port={port}-{}\r\n", port ^ 1);
    let (status, answer) = client.ask("SETUP", "/trackID=0", &transport).await;
    assert!(status == 200 && answer.contains("server_port="), "{answer}");
    assert_eq!(client.ask("PLAY", "", "").await.0, 200);
    let mut packet = [0; 2000];
    timeout(SOON, here.recv_from(&mut packet)).await.expect("media comes").expect("received");
    assert_eq!(&packet[..1], [0x80]);
    assert!(there.try_recv(&mut packet).is_err());
    let mut other = Client::connect(streamgate.port, "cam").await;
    other.ask("DESCRIBE", "", "").await;
    assert_eq!(other.ask("SETUP", "/trackID=0", &former).await.0, 200, "ports that were given up are free");
    drop((client, other));
    eventually("everybody has left", SOON, async || consumers(&streamgate, "cam").await.is_empty()).await;

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("c.pem"), files.path().join("k.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let yaml = format!(
        "api: {{tls_cert: '{}', tls_key: '{}'}}\nstreams: {{cam: '{}'}}\n",
        cert.display(),
        key.display(),
        camera.url
    );
    let secure = Streamgate::with_config(&yaml);
    let played = ffmpeg(&format!("rtsps://127.0.0.1:{}/cam", secure.port), "tcp", "2", "error").await;
    assert_eq!(played.complaints, "");
    assert!(played.packets.len() == 2 && played.packets[0] > 25, "{played:?}");
}
