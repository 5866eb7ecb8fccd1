//! Decodes one keyframe and makes it a JPEG, by a child process: what a hostile bitstream does to a decoder stays in there.

use super::shot::Shot;
use crate::media::Codec;
use crate::media::nal::length_prefixed_nals;
use bytes::Bytes;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Largest picture that is decoded: 8192 × 4320 and a little more.
const MAX_PIXELS: u32 = 36_000_000;
/// Largest JPEG that is taken.
const MAX_JPEG: u64 = 16 << 20;
/// Of what the decoder complains about.
const MAX_COMPLAINT: u64 = 4096;

/// How large a picture is to be. With one side the other keeps the aspect ratio; with none it is as it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Size {
    /// Pixels.
    pub width: Option<u16>,
    /// Pixels.
    pub height: Option<u16>,
}

impl Size {
    /// Sides may have.
    pub const RANGE: std::ops::RangeInclusive<u16> = 16..=4096;

    fn filter(self) -> Option<String> {
        let side = |side: Option<u16>| side.map_or_else(|| "-2".to_owned(), |pixels| pixels.to_string());
        (self != Size::default()).then(|| format!("scale={}:{}", side(self.width), side(self.height)))
    }
}

/// Why a keyframe did not become a picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is no decoder.
    #[error("ffmpeg is needed to decode {codec} and can't be run: {why}")]
    NoDecoder {
        /// What was to be decoded.
        codec: Codec,
        /// Why not.
        why: String,
    },
    /// It would take too much memory.
    #[error("a picture of {0}×{1} is too large to be decoded")]
    TooLarge(u32, u32),
    /// The decoder could not.
    #[error("ffmpeg made no picture of the {codec} keyframe: {why}")]
    Failed {
        /// What was to be decoded.
        codec: Codec,
        /// What ffmpeg said.
        why: String,
    },
    /// It took too long, or too many others were before it.
    #[error("no picture was made within {0:?}")]
    TimedOut(Duration),
}

/// A keyframe as a JPEG file. The child ends when the future is dropped.
pub async fn jpeg(program: &std::path::Path, shot: &Shot, size: Size) -> Result<Bytes, DecodeError> {
    let codec = shot.codec();
    if let Some(info) = shot.track.video_info()
        && info.width.saturating_mul(info.height) > MAX_PIXELS
    {
        return Err(DecodeError::TooLarge(info.width, info.height));
    }
    let failed = |why: String| DecodeError::Failed { codec, why };
    let spawned = command(program.as_os_str(), codec, size).spawn();
    let mut child = spawned.map_err(|error| DecodeError::NoDecoder { codec, why: error.to_string() })?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed("no pipes".to_owned()));
    };
    let input = elementary(shot);
    let write = async {
        // A decoder that has seen enough closes its end: that is no fault.
        let _ = stdin.write_all(&input).await;
        drop(stdin);
    };
    let ((), jpeg, complaint) = tokio::join!(write, read(stdout, MAX_JPEG + 1), read(stderr, MAX_COMPLAINT));
    let status = child.wait().await.map_err(|error| failed(error.to_string()))?;
    let jpeg = jpeg.map_err(|error| failed(error.to_string()))?;
    if !status.success() || !jpeg.starts_with(&[0xff, 0xd8]) {
        let complaint = String::from_utf8_lossy(&complaint.unwrap_or_default()).trim().to_owned();
        return Err(failed(if complaint.is_empty() { status.to_string() } else { complaint }));
    }
    whole(jpeg).map(Bytes::from).map_err(failed)
}

/// Half a picture is none.
fn whole(jpeg: Vec<u8>) -> Result<Vec<u8>, String> {
    let fits = jpeg.len() as u64 <= MAX_JPEG;
    let why = || format!("the JPEG is larger than {} MiB: ask for a smaller one with w or h", MAX_JPEG >> 20);
    if fits { Ok(jpeg) } else { Err(why()) }
}

/// Reads to the end, and keeps what comes up to `limit`.
async fn read(mut from: impl AsyncRead + Unpin, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(limit).read_to_end(&mut bytes).await?;
    // What comes after that is thrown away, so that the child isn't held up by it.
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

fn command(program: &OsStr, codec: Codec, size: Size) -> Command {
    let format = match codec {
        Codec::H265 => "hevc",
        Codec::Jpeg => "mjpeg",
        _ => "h264",
    };
    let mut command = Command::new(program);
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-protocol_whitelist", "pipe"]);
    command.args(["-threads", "1", "-max_pixels", &MAX_PIXELS.to_string(), "-f", format, "-i", "pipe:0"]);
    command.args(["-an", "-frames:v", "1"]);
    if let Some(filter) = size.filter() {
        command.args(["-vf", &filter]);
    }
    command.args(["-threads", "1", "-c:v", "mjpeg", "-q:v", "4", "-f", "mjpeg", "pipe:1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// As decoders read it from a pipe: NAL units behind start codes; a JPEG as it is.
fn elementary(shot: &Shot) -> Cow<'_, [u8]> {
    if shot.codec() == Codec::Jpeg {
        return Cow::Borrowed(&shot.frame.data);
    }
    let mut bytes = Vec::with_capacity(shot.frame.data.len());
    for nal in length_prefixed_nals(&shot.frame.data) {
        bytes.extend_from_slice(&[0, 0, 0, 1]);
        bytes.extend_from_slice(nal);
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_picture_that_is_too_large_is_refused_and_not_cut() {
        let read = async |length| read(&vec![7; length as usize][..], MAX_JPEG + 1).await.unwrap();
        assert_eq!(whole(read(MAX_JPEG).await).unwrap().len() as u64, MAX_JPEG);
        assert!(whole(read(MAX_JPEG + 1).await).unwrap_err().contains("16 MiB"));
        assert!(whole(read(MAX_JPEG + 9).await).is_err());
    }

    #[test]
    fn a_side_that_is_not_given_follows_the_other() {
        let size = |width, height| Size { width, height }.filter();
        assert_eq!(size(None, None), None);
        assert_eq!(size(Some(320), None).as_deref(), Some("scale=320:-2"));
        assert_eq!(size(None, Some(90)).as_deref(), Some("scale=-2:90"));
        assert_eq!(size(Some(64), Some(64)).as_deref(), Some("scale=64:64"));
    }
}
