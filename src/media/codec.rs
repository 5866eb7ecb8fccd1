//! The codecs that pass through Streamgate, under the names RTP gives them.

use std::fmt;

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

impl Kind {
    /// `"video"` or `"audio"`, as in SDP's media lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Video => "video",
            Kind::Audio => "audio",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A codec that Streamgate can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Codec {
    /// H.264/AVC, RTP payload format RFC 6184.
    H264,
    /// H.265/HEVC, RTP payload format RFC 7798.
    H265,
    /// JPEG, RTP payload format RFC 2435: each picture stands alone.
    Jpeg,
    /// MPEG-4 AAC, RTP payload format RFC 3640 (`mpeg4-generic`, `AAC-hbr`).
    Aac,
    /// Opus, RTP payload format RFC 7587.
    Opus,
    /// G.711 A-law, RFC 3551 §4.5.14.
    Pcma,
    /// G.711 µ-law, RFC 3551 §4.5.14.
    Pcmu,
}

impl Codec {
    /// All of them, video first.
    pub const ALL: [Codec; 7] =
        [Codec::H264, Codec::H265, Codec::Jpeg, Codec::Aac, Codec::Opus, Codec::Pcma, Codec::Pcmu];

    /// The codecs of a kind that a filter such as `h264,h265` names; empty, `any`, `all` and `copy` name all.
    ///
    /// # Errors
    /// What is not known, and what is.
    pub fn named(kind: Kind, filter: &str) -> Result<Vec<Codec>, String> {
        let mut codecs = Vec::new();
        for name in filter.split(',') {
            let matches = |codec: &Codec| match name.to_ascii_lowercase().as_str() {
                "" | "any" | "all" | "copy" => true,
                name => {
                    name == codec.ffmpeg_name()
                        || Codec::from_rtpmap(name) == Some(*codec)
                        || name.eq_ignore_ascii_case(codec.name())
                }
            };
            let of_kind = || Codec::ALL.into_iter().filter(|codec| codec.kind() == kind);
            let mut named = of_kind().filter(matches).peekable();
            if named.peek().is_none() {
                let known: Vec<_> = of_kind().map(Codec::name).collect();
                return Err(format!("unknown {kind} codec {name:?}: any, or of {}", known.join(", ")));
            }
            for codec in named {
                if !codecs.contains(&codec) {
                    codecs.push(codec);
                }
            }
        }
        Ok(codecs)
    }

    /// Audio or video.
    pub fn kind(self) -> Kind {
        match self {
            Codec::H264 | Codec::H265 | Codec::Jpeg => Kind::Video,
            Codec::Aac | Codec::Opus | Codec::Pcma | Codec::Pcmu => Kind::Audio,
        }
    }

    /// The codec an SDP `a=rtpmap` encoding name stands for; names are case-insensitive (RFC 8866 §6.6).
    pub fn from_rtpmap(encoding: &str) -> Option<Codec> {
        Some(match encoding.to_ascii_uppercase().as_str() {
            "H264" => Codec::H264,
            "H265" | "HEVC" => Codec::H265,
            "JPEG" => Codec::Jpeg,
            "MPEG4-GENERIC" => Codec::Aac,
            "OPUS" => Codec::Opus,
            "PCMA" => Codec::Pcma,
            "PCMU" => Codec::Pcmu,
            _ => return None,
        })
    }

    /// The `a=rtpmap` encoding name.
    pub fn rtpmap_name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Jpeg => "JPEG",
            Codec::Aac => "MPEG4-GENERIC",
            Codec::Opus => "opus",
            Codec::Pcma => "PCMA",
            Codec::Pcmu => "PCMU",
        }
    }

    /// The name people use in messages: `H264`, `AAC`, `Opus` …
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Jpeg => "JPEG",
            Codec::Aac => "AAC",
            Codec::Opus => "Opus",
            Codec::Pcma => "PCMA",
            Codec::Pcmu => "PCMU",
        }
    }

    /// ffprobe's name, as in go2rtc's JSON: `h264`, `hevc`, `pcm_alaw` …
    pub fn ffmpeg_name(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
            Codec::H265 => "hevc",
            Codec::Jpeg => "mjpeg",
            Codec::Aac => "aac",
            Codec::Opus => "opus",
            Codec::Pcma => "pcm_alaw",
            Codec::Pcmu => "pcm_mulaw",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
