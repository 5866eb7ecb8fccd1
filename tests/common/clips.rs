//! The clips that `tests/tools/make-clips.sh` makes, made when the first test asks for one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let target =
        Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's tmp folder is inside target");
    let output = Command::new(tool("make-clips.sh"))
        .arg(target.join("test-media"))
        .output()
        .expect("tests/tools/make-clips.sh can be run");
    assert!(
        output.status.success(),
        "make-clips.sh failed (is ffmpeg installed? tests/tools/bootstrap.sh installs it):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim())
});

/// The folder of all clips.
pub fn clips_folder() -> &'static Path {
    &FOLDER
}

/// A file of `tests/tools`.
pub fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools").join(name)
}

/// One video clip; the names are listed in `make-clips.sh`.
pub struct Clip {
    name: &'static str,
}

impl Clip {
    /// 8 s at 30 fps, a keyframe every 2 s.
    pub const FRAMES: usize = 240;

    pub fn named(name: &'static str) -> Clip {
        Clip { name }
    }

    /// The clip as an MP4 file.
    pub fn mp4(&self) -> PathBuf {
        clips_folder().join(format!("{}.mp4", self.name))
    }

    /// The clip's NAL units in order: what a player of [`super::Camera`]'s `clip=NAME,once=yes` must get.
    pub fn nals(&self) -> Vec<Vec<u8>> {
        let extension = if self.name.starts_with("h265") { "265" } else { "264" };
        let path = clips_folder().join(format!("{}.{extension}", self.name));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        annexb_nals(&bytes)
    }
}

/// Splits a byte stream at its start codes (ITU-T H.264 Annex B); trailing zero bytes belong to no NAL unit.
pub fn annexb_nals(bytes: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> =
        bytes.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            let nal = &bytes[start + 3..end];
            let length = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            nal[..length].to_vec()
        })
        .collect()
}
