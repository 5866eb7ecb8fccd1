//! Streams as JSON: go2rtc's field names, and what they lack.

use crate::graph::preload::FORMAT_NAME;
use crate::graph::{Consumer, Producer, State, Status, Stream};
use crate::media::{Codec, Kind, Track, VideoInfo};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

/// All streams by name.
pub type StreamsView = BTreeMap<String, StreamView>;

/// One stream. What is not known is `null`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct StreamView {
    producers: Vec<ProducerView>,
    consumers: Vec<ConsumerView>,
    /// Of the source that is furthest on its way; the following three too.
    state: &'static str,
    #[schema(required)]
    last_error: Option<String>,
    retries: u32,
    /// When the state was entered, RFC 3339.
    since: String,
    on_demand: bool,
    audio: bool,
    linger: String,
    viewers: usize,
    #[schema(required)]
    video_codec: Option<&'static str>,
    #[schema(required)]
    audio_codec: Option<&'static str>,
    /// Pixels.
    #[schema(required)]
    width: Option<u32>,
    #[schema(required)]
    height: Option<u32>,
    /// Pictures a second, as they come in; `null` unless live.
    #[schema(required)]
    fps: Option<f64>,
    /// Bits a second, all sources together; `null` unless live.
    #[schema(required)]
    bitrate: Option<u64>,
    /// Pictures from one keyframe to the next.
    #[schema(required)]
    gop: Option<u32>,
}

/// One source.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ProducerView {
    /// Its place in the configuration, from 1.
    id: usize,
    format_name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    protocol: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    remote_addr: String,
    url: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    sdp: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    server: String,
    medias: Vec<String>,
    receivers: Vec<TrackView>,
    state: &'static str,
    #[schema(required)]
    last_error: Option<String>,
    retries: u32,
    since: String,
    bytes_recv: u64,
    packets: u64,
    /// Packets cut out after loss on the way from the camera.
    drops: u64,
}

/// A track of a source or of a viewer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TrackView {
    /// From 1, in the order of the source's description.
    id: usize,
    codec: CodecView,
}

/// A codec in ffprobe's words.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CodecView {
    /// `h264`, `hevc`, `aac` …
    pub codec_name: &'static str,
    /// `video` or `audio`.
    pub codec_type: &'static str,
    /// Of video, e.g. `High`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
    /// As coded: `31` is 3.1 for H.264, `93` for H.265.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Of audio, in Hz.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// Of audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
}

impl fmt::Display for CodecView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.codec_name)?;
        if let Some(profile) = self.profile {
            write!(f, " {profile}")?;
        }
        if let Some(level) = self.level {
            let tenths = if self.codec_name == Codec::H265.ffmpeg_name() { level / 3 } else { level };
            write!(f, ", level {}.{}", tenths / 10, tenths % 10)?;
        }
        if let Some(rate) = self.sample_rate {
            write!(f, ", {rate} Hz")?;
        }
        match self.channels {
            None => Ok(()),
            Some(1) => f.write_str(", 1 channel"),
            Some(channels) => write!(f, ", {channels} channels"),
        }
    }
}

/// One viewer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ConsumerView {
    id: u64,
    format_name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    protocol: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    remote_addr: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    medias: Vec<String>,
    senders: Vec<TrackView>,
    bytes_send: u64,
    packets: u64,
    drops: u64,
    /// Seconds since it came.
    age: u64,
    /// Milliseconds; `null` until measured.
    #[schema(required)]
    rtt: Option<f64>,
    /// Share of packets lost on the way, 0 to 1.
    loss: f64,
    /// What it does not get, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
    /// Of a server that the stream is published to; the following two too.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
}

/// What is shown of one source, looked at once so that everything fits together.
struct Look {
    status: Status,
    tracks: Vec<Track>,
    observed: crate::graph::writer::Observed,
    is_supported: bool,
}

impl Look {
    fn at(producer: &Producer) -> Look {
        Look {
            status: producer.status(),
            tracks: producer.epoch().tracks.clone(),
            observed: producer.observed(),
            is_supported: producer.unsupported().is_none(),
        }
    }

    /// Lower is further on its way.
    fn rank(&self) -> u8 {
        match self.status.state {
            State::Live => 0,
            State::Connecting => 1,
            State::Retrying => 2,
            State::Idle if self.is_supported => 3,
            State::Idle => 4,
        }
    }

    fn track(&self, kind: Kind) -> Option<&Track> {
        self.tracks.iter().find(|track| track.kind() == kind)
    }

    fn rates(&self, now: Instant) -> Option<(u64, f64)> {
        (self.status.state == State::Live).then(|| self.observed.meter.read(now))
    }
}

/// A stream as it is now.
pub fn stream(stream: &Stream) -> StreamView {
    let now = Instant::now();
    let looks: Vec<Look> = stream.producers().iter().map(|producer| Look::at(producer)).collect();
    let producers = stream.producers().iter().zip(&looks).enumerate();
    let producers =
        producers.map(|(index, (producer, look))| producer_view(index + 1, producer, look)).collect();
    let consumers: Vec<_> = stream.consumers().iter().map(consumer).collect();
    let config = stream.config();

    // The best source leads; one that lacks a kind of track leaves it to the next.
    let mut ranked: Vec<&Look> = looks.iter().collect();
    ranked.sort_by_key(|look| look.rank());
    let leading = ranked.first();
    let video = ranked.iter().find_map(|look| Some((look.track(Kind::Video)?, look)));
    let audio = ranked.iter().find_map(|look| look.track(Kind::Audio)).filter(|_| config.audio);
    let info = video.and_then(|(track, _)| track.video_info());
    let bitrates: Vec<u64> =
        looks.iter().filter_map(|look| look.rates(now)).map(|(bitrate, _)| bitrate).collect();
    let status = leading.map(|look| &look.status);

    StreamView {
        producers,
        state: status.map_or(State::Idle, |status| status.state).as_str(),
        last_error: status.and_then(error_text),
        retries: status.map_or(0, |status| status.retries),
        since: rfc3339(status.map_or_else(SystemTime::now, |status| status.since)),
        on_demand: config.on_demand,
        audio: config.audio,
        linger: duration_text(config.linger),
        viewers: consumers.iter().filter(|consumer| consumer.format_name != FORMAT_NAME).count(),
        video_codec: video.map(|(track, _)| track.codec.ffmpeg_name()),
        audio_codec: audio.map(|track| track.codec.ffmpeg_name()),
        width: info.as_ref().map(|info| info.width),
        height: info.as_ref().map(|info| info.height),
        fps: video.and_then(|(_, look)| look.rates(now)).map(|(_, fps)| fps),
        bitrate: (!bitrates.is_empty()).then(|| bitrates.iter().sum()),
        gop: video.and_then(|(_, look)| look.observed.gop),
        consumers,
    }
}

/// All of them.
pub fn streams(list: &[Arc<Stream>]) -> StreamsView {
    list.iter().map(|one| (one.name().to_owned(), stream(one))).collect()
}

fn error_text(status: &Status) -> Option<String> {
    status.last_error.as_ref().map(|error| crate::telemetry::mask(&error.to_string()).into_owned())
}

fn producer_view(id: usize, producer: &Producer, look: &Look) -> ProducerView {
    let (status, observed) = (&look.status, &look.observed);
    // Who is not connected receives nothing; `medias` still says what is known from the last time.
    let tracks = look.tracks.iter().filter(|_| status.described).enumerate();
    ProducerView {
        id,
        format_name: producer.format_name(),
        protocol: observed.details.protocol,
        remote_addr: observed.details.remote_addr.clone(),
        url: crate::telemetry::mask(producer.url()).into_owned(),
        sdp: observed.details.sdp.clone(),
        server: observed.details.server.clone(),
        medias: look
            .tracks
            .iter()
            .map(|track| media_line(track.kind(), "recvonly", &track_text(track)))
            .collect(),
        receivers: tracks
            .map(|(index, track)| TrackView { id: index + 1, codec: track_codec(track) })
            .collect(),
        state: status.state.as_str(),
        last_error: error_text(status),
        retries: status.retries,
        since: rfc3339(status.since),
        bytes_recv: observed.bytes,
        packets: observed.packets,
        drops: observed.dropped,
    }
}

/// A viewer as it is now.
pub fn consumer(consumer: &Arc<Consumer>) -> ConsumerView {
    let info = consumer.info.lock().clone();
    let rtt_us = consumer.rtt_us.load(Relaxed);
    let senders = info.codecs.iter().enumerate();
    let dialled = info.dialled.as_ref();
    ConsumerView {
        id: consumer.id,
        format_name: info.format_name,
        protocol: info.protocol,
        medias: info
            .codecs
            .iter()
            .map(|codec| media_line(codec.kind(), "sendonly", &upper(*codec)))
            .collect(),
        senders: senders
            .map(|(index, codec)| TrackView { id: index + 1, codec: codec_view(*codec) })
            .collect(),
        remote_addr: info.remote_addr,
        user_agent: info.user_agent,
        bytes_send: consumer.bytes.load(Relaxed),
        packets: consumer.packets.load(Relaxed),
        drops: consumer.drops.load(Relaxed),
        age: consumer.since.elapsed().unwrap_or_default().as_secs(),
        rtt: (rtt_us > 0).then(|| f64::from(rtt_us / 100) / 10.0),
        loss: f64::from(consumer.loss_permille.load(Relaxed)) / 1000.0,
        left_out: info.left_out,
        url: dialled.map(|dialled| dialled.url.clone()),
        state: dialled.map(|dialled| dialled.state.as_str()),
        last_error: dialled.and_then(|dialled| dialled.last_error.clone()),
    }
}

/// As go2rtc writes a media: `video, recvonly, H264`.
fn media_line(kind: Kind, direction: &str, codec: &str) -> String {
    format!("{kind}, {direction}, {codec}")
}

fn upper(codec: Codec) -> String {
    codec.name().to_ascii_uppercase()
}

/// `H264`, `AAC/16000`, `OPUS/48000/2`.
fn track_text(track: &Track) -> String {
    let mut text = upper(track.codec);
    if track.kind() == Kind::Audio {
        text.push_str(&format!("/{}", track.clock_rate));
        if track.channels > 1 {
            text.push_str(&format!("/{}", track.channels));
        }
    }
    text
}

fn codec_view(codec: Codec) -> CodecView {
    CodecView {
        codec_name: codec.ffmpeg_name(),
        codec_type: codec.kind().as_str(),
        profile: None,
        level: None,
        sample_rate: None,
        channels: None,
    }
}

/// What is known of a track's codec.
pub fn track_codec(track: &Track) -> CodecView {
    let info: Option<VideoInfo> = track.video_info();
    let audio = track.kind() == Kind::Audio;
    CodecView {
        profile: info.as_ref().map(|info| info.profile),
        level: info.as_ref().map(|info| info.level),
        sample_rate: audio.then_some(track.clock_rate),
        channels: audio.then_some(track.channels).filter(|&channels| channels > 0),
        ..codec_view(track.codec)
    }
}

/// `2026-01-31T12:00:00.123Z`.
pub fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}

/// As the configuration writes it: `10s`, `500ms`.
fn duration_text(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 1000 == 0 => format!("{}s", millis / 1000),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Params;

    fn track(codec: Codec, clock_rate: u32, channels: u8) -> Track {
        Track { codec, clock_rate, channels, params: Params::None }
    }

    #[test]
    fn codecs_are_written_as_go2rtc_and_ffprobe_do() {
        assert_eq!(track_text(&track(Codec::H265, 90_000, 0)), "H265");
        assert_eq!(track_text(&track(Codec::Aac, 16_000, 1)), "AAC/16000");
        assert_eq!(track_text(&track(Codec::Opus, 48_000, 2)), "OPUS/48000/2");
        let json = serde_json::to_value(track_codec(&track(Codec::Pcma, 8000, 1))).unwrap();
        let expected = serde_json::json!({
            "codec_name": "pcm_alaw", "codec_type": "audio", "sample_rate": 8000, "channels": 1
        });
        assert_eq!(json, expected);
        let json = serde_json::to_value(track_codec(&track(Codec::H264, 90_000, 0))).unwrap();
        assert_eq!(json, serde_json::json!({"codec_name": "h264", "codec_type": "video"}));
    }

    #[test]
    fn times_and_durations_are_text() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_120);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.120Z");
        assert_eq!(duration_text(Duration::from_secs(90)), "90s");
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
    }
}
