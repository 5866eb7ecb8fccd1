//! A WebSocket client that is not ours, and a reader of what it gets.
#![allow(dead_code, reason = "each test binary uses its own part")]

// tests/hls_support/media.rs: whoever uses this names it `media` in its root.
use crate::media;

use crate::common::Streamgate;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub const DEADLINE: Duration = Duration::from_secs(30);
/// What Chromium says it can play.
pub const CODECS: &str = "avc1.640029,avc1.64002A,avc1.640033,mp4a.40.2,mp4a.40.5,flac,opus";

/// One socket on `/api/ws`.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What came.
#[derive(Debug)]
pub enum Got {
    Text(Value),
    Media(Vec<u8>),
    /// It is closed.
    End(Option<CloseFrame>),
}

impl Socket {
    pub async fn open(streamgate: &Streamgate, stream: &str) -> Socket {
        let url = format!("ws://127.0.0.1:{}/api/ws?src={stream}", streamgate.port);
        Socket(connect_async(url).await.expect("the socket opens").0)
    }

    /// One by a connection that holds little: small segments and a small receive buffer. What it does not read piles up at the
    /// server soon.
    pub async fn open_narrow(streamgate: &Streamgate, stream: &str) -> Socket {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_tcp_mss(1000).expect("small segments");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        let server = std::net::SocketAddr::from(([127, 0, 0, 1], streamgate.port));
        socket.connect(&server.into()).expect("it connects");
        socket.set_nonblocking(true).expect("for tokio");
        let connection = TcpStream::from_std(socket.into()).expect("for tokio");
        let url = format!("ws://127.0.0.1:{}/api/ws?src={stream}", streamgate.port);
        let connection = MaybeTlsStream::Plain(connection);
        Socket(tokio_tungstenite::client_async(url, connection).await.expect("the socket opens").0)
    }

    pub async fn send(&mut self, kind: &str, value: impl Into<Value>) {
        self.send_raw(&json!({"type": kind, "value": value.into()}).to_string()).await;
    }

    pub async fn send_raw(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("it is open");
    }

    pub async fn send_binary(&mut self, bytes: Vec<u8>) {
        self.0.send(Message::binary(bytes)).await.expect("it is open");
    }

    /// The next message; pings are answered meanwhile.
    pub async fn next(&mut self) -> Got {
        loop {
            match timeout(DEADLINE, self.0.next()).await.expect("a message in time") {
                Some(Ok(Message::Text(text))) => {
                    return Got::Text(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Binary(bytes))) => return Got::Media(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => return Got::End(frame),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Got::End(None),
            }
        }
    }

    /// The value of the next message of a type; media and other messages before it are passed over.
    pub async fn message(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Got::Text(mut message) if message["type"] == kind => return message["value"].take(),
                Got::Text(message) => assert_ne!(message["type"], "error", "{message}"),
                Got::Media(_) => {}
                Got::End(frame) => panic!("closed ({frame:?}) before a message {kind:?}"),
            }
        }
    }

    /// The next error.
    pub async fn error(&mut self) -> String {
        loop {
            match self.next().await {
                Got::Text(message) if message["type"] == "error" => {
                    return message["value"].as_str().expect("a text").to_owned();
                }
                Got::Text(_) | Got::Media(_) => {}
                Got::End(frame) => panic!("closed ({frame:?}) before an error"),
            }
        }
    }

    /// The next binary frame.
    pub async fn media(&mut self) -> Vec<u8> {
        loop {
            match self.next().await {
                Got::Media(bytes) => return bytes,
                Got::Text(message) => assert_ne!(message["type"], "error", "{message}"),
                Got::End(frame) => panic!("closed ({frame:?}) before media"),
            }
        }
    }

    /// Reads to the end: the close code, if one was sent.
    pub async fn end(&mut self) -> Option<u16> {
        loop {
            if let Got::End(frame) = self.next().await {
                return frame.map(|frame| frame.code.into());
            }
        }
    }

    /// Lets go without a word.
    pub fn abort(self) {
        drop(self);
    }
}

/// What a viewer by MSE was given.
#[derive(Default)]
pub struct Watched {
    /// MIME types, each time one was told.
    pub mimes: Vec<String>,
    /// Init segments.
    pub inits: Vec<Vec<u8>>,
    /// All of it: a file for each init segment.
    pub files: Vec<Vec<u8>>,
    /// Start and end of each sample's decode time and its keyframe flag, by track, since the last init segment, in seconds.
    pub tracks: [Vec<(f64, f64, bool)>; 2],
}

impl Watched {
    pub fn add(&mut self, got: Got) {
        match got {
            Got::Text(message) if message["type"] == "mse" => {
                self.mimes.push(message["value"].as_str().expect("a text").to_owned());
            }
            Got::Text(message) => assert_ne!(message["type"], "error", "{message}"),
            Got::Media(bytes) => {
                if bytes.get(4..8) == Some(b"ftyp") {
                    self.files.push(bytes.clone());
                    self.inits.push(bytes);
                    self.tracks = Default::default();
                    return;
                }
                self.files.last_mut().expect("an init segment first").extend_from_slice(&bytes);
                let scales = media::timescales(self.inits.last().expect("an init segment first"));
                for fragment in media::fragment(&bytes) {
                    for track in fragment.tracks {
                        let rate = f64::from(scales[&track.id]);
                        let start = track.decode_time as f64 / rate;
                        let end = start + track.duration as f64 / rate;
                        self.tracks[track.id as usize - 1].push((start, end, track.keyframes[0]));
                    }
                }
            }
            Got::End(frame) => panic!("closed: {frame:?}"),
        }
    }

    /// Reads until it has so many seconds of its first track since the last init segment.
    pub async fn watch(&mut self, socket: &mut Socket, seconds: f64) {
        while self.tracks[0].last().is_none_or(|(_, end, _)| *end < seconds) {
            self.add(socket.next().await);
        }
    }

    /// Each fragment of a track begins where the one before ended.
    pub fn assert_gapless(&self) {
        for track in &self.tracks {
            for pair in track.windows(2) {
                assert!((pair[0].1 - pair[1].0).abs() < 1e-9, "{pair:?}");
            }
        }
    }

    /// Where the tracks end.
    pub fn ends(&self) -> [f64; 2] {
        [0, 1].map(|at| self.tracks[at].last().map_or(0.0, |(_, end, _)| *end))
    }
}
