//! What clients ask for: file names and delivery directives (§6.2.5).

use super::waiters::Place;

/// A file below a session's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// `index.m3u8`.
    Playlist,
    /// `init3.mp4`.
    Init(u32),
    /// `seg42.mp4`.
    Segment(u64),
    /// `part42.7.mp4`.
    Part(u64, usize),
}

impl File {
    /// `None` for any other name; each file has exactly one.
    pub fn parse(name: &str) -> Option<File> {
        if name == "index.m3u8" {
            return Some(File::Playlist);
        }
        let stem = name.strip_suffix(".mp4")?;
        if let Some(id) = stem.strip_prefix("init") {
            return Some(File::Init(u32::try_from(number(id)?).ok()?));
        }
        if let Some(id) = stem.strip_prefix("seg") {
            return Some(File::Segment(number(id)?));
        }
        let (segment, index) = stem.strip_prefix("part")?.split_once('.')?;
        Some(File::Part(number(segment)?, usize::try_from(number(index)?).ok()?))
    }
}

/// Decimal digits without leading zeros, at most 15.
fn number(text: &str) -> Option<u64> {
    let plain = text == "0" || !text.starts_with('0');
    let digits = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (plain && digits).then(|| text.parse().ok()).flatten()
}

/// The delivery directives of a playlist request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reload {
    /// `_HLS_msn`: wait until this segment is there.
    pub segment: Option<u64>,
    /// `_HLS_part`: wait until this part of it is there.
    pub part: Option<u64>,
    /// `_HLS_skip`: a delta update is welcome.
    pub skip: bool,
}

impl Reload {
    /// What it waits for.
    pub fn place(&self) -> Option<Place> {
        self.segment.map(|segment| (segment, self.part))
    }

    /// Reads the directives out of decoded query parameters; all others are ignored.
    ///
    /// # Errors
    /// A number that is none, or a part without its segment: what a 400 says.
    pub fn parse<T: AsRef<str>>(parameters: impl IntoIterator<Item = (T, T)>) -> Result<Reload, String> {
        let mut reload = Reload::default();
        for (key, value) in parameters {
            let (key, value) = (key.as_ref(), value.as_ref());
            let read = || number(value).ok_or_else(|| format!("{key} is {value:?}, which is no number"));
            match key {
                "_HLS_msn" => reload.segment = Some(read()?),
                "_HLS_part" => reload.part = Some(read()?),
                "_HLS_skip" => reload.skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        if reload.part.is_some() && reload.segment.is_none() {
            return Err("_HLS_part needs _HLS_msn".into());
        }
        Ok(reload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_one_name() {
        for (name, file) in [
            ("index.m3u8", Some(File::Playlist)),
            ("init0.mp4", Some(File::Init(0))),
            ("seg12.mp4", Some(File::Segment(12))),
            ("part12.0.mp4", Some(File::Part(12, 0))),
            ("seg012.mp4", None),
            ("seg.mp4", None),
            ("seg-1.mp4", None),
            ("seg+1.mp4", None),
            ("part12.mp4", None),
            ("part1.2.3.mp4", None),
            ("seg9999999999999999.mp4", None),
            ("init4294967296.mp4", None),
            ("../init0.mp4", None),
            ("", None),
        ] {
            assert_eq!(File::parse(name), file, "{name}");
        }
    }

    #[test]
    fn directives_are_read_and_nonsense_is_refused() {
        let read = |pairs: &[(&'static str, &'static str)]| Reload::parse(pairs.iter().copied());
        let all = read(&[("_HLS_msn", "7"), ("_HLS_part", "2"), ("_HLS_skip", "YES"), ("x", "y")]);
        assert_eq!(all, Ok(Reload { segment: Some(7), part: Some(2), skip: true }));
        assert_eq!(read(&[]), Ok(Reload::default()));
        for bad in [("_HLS_msn", ""), ("_HLS_msn", "x"), ("_HLS_msn", "-1"), ("_HLS_part", "1")] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }
}
