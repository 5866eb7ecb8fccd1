//! Playlists, read line by line; a line that is not known is an error. `m3u8-rs` reads each as well.

/// One playlist.
#[derive(Debug)]
pub struct Playlist {
    /// The lines that must never change: target duration, server control, part target.
    pub fixed: [String; 3],
    pub target: f64,
    pub part_target: f64,
    pub hold_back: f64,
    pub part_hold_back: f64,
    pub skip_until: f64,
    pub segments: Vec<Segment>,
    /// The part that the preload hint names.
    pub next: (u64, usize),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Segment {
    pub number: u64,
    pub discontinuity: bool,
    pub init: String,
    pub wall_ms: i64,
    pub parts: Vec<Part>,
    /// `None` while it grows.
    pub duration: Option<f64>,
    pub uri: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub uri: String,
    pub duration: f64,
    pub independent: bool,
}

fn attribute<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, attributes) = line.split_once(':')?;
    attributes.split(',').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == key).then(|| value.trim_matches('"'))
    })
}

fn seconds(line: &str, key: &str) -> f64 {
    attribute(line, key).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key} in {line}"))
}

impl Playlist {
    pub fn parse(text: &str) -> Playlist {
        let find =
            |tag: &str| text.lines().find(|line| line.starts_with(tag)).unwrap_or_else(|| panic!("{tag}"));
        let number =
            |tag: &str| find(tag).split_once(':').expect("a value").1.parse::<u64>().expect("a number");
        let (target, control, part_inf) =
            (find("#EXT-X-TARGETDURATION"), find("#EXT-X-SERVER-CONTROL"), find("#EXT-X-PART-INF"));
        assert!(control.contains("CAN-BLOCK-RELOAD=YES"));
        let mut playlist = Playlist {
            fixed: [target.to_owned(), control.to_owned(), part_inf.to_owned()],
            target: number("#EXT-X-TARGETDURATION") as f64,
            part_target: seconds(part_inf, "PART-TARGET"),
            hold_back: seconds(control, "HOLD-BACK"),
            part_hold_back: seconds(control, "PART-HOLD-BACK"),
            skip_until: seconds(control, "CAN-SKIP-UNTIL"),
            segments: Vec::new(),
            next: (0, 0),
        };
        assert!(text.starts_with("#EXTM3U\n"));
        let mut segment = Segment { number: number("#EXT-X-MEDIA-SEQUENCE"), ..Segment::default() };
        for line in text.lines() {
            playlist.read(line, &mut segment);
        }
        if !segment.parts.is_empty() {
            playlist.segments.push(segment);
        }
        let (_, third_party) = m3u8_rs::parse_media_playlist(text.as_bytes()).expect("m3u8-rs reads it");
        let complete = playlist.segments.iter().filter(|segment| segment.duration.is_some());
        assert_eq!(third_party.segments.len(), complete.count());
        assert_eq!(third_party.target_duration as f64, playlist.target);
        playlist
    }

    fn read(&mut self, line: &str, segment: &mut Segment) {
        let tag = line.split_once(':').map_or(line, |(tag, _)| tag);
        match tag {
            "#EXT-X-DISCONTINUITY" => segment.discontinuity = true,
            "#EXT-X-MAP" => segment.init = attribute(line, "URI").expect("a URI").to_owned(),
            "#EXT-X-PROGRAM-DATE-TIME" => {
                let time: jiff::Timestamp = line.split_once(':').expect("a value").1.parse().expect("a time");
                segment.wall_ms = time.as_millisecond();
            }
            "#EXT-X-PART" => segment.parts.push(Part {
                uri: attribute(line, "URI").expect("a URI").to_owned(),
                duration: seconds(line, "DURATION"),
                independent: attribute(line, "INDEPENDENT") == Some("YES"),
            }),
            "#EXTINF" => {
                let value = line.strip_prefix("#EXTINF:").and_then(|rest| rest.strip_suffix(','));
                segment.duration = Some(value.expect("a value").parse().expect("a number"));
            }
            "#EXT-X-PRELOAD-HINT" => {
                let uri = attribute(line, "URI").expect("a URI");
                let numbers =
                    uri.strip_prefix("part").and_then(|uri| uri.strip_suffix(".mp4")).expect("a part");
                let (number, index) = numbers.split_once('.').expect("two numbers");
                self.next = (number.parse().expect("a number"), index.parse().expect("a number"));
            }
            "#EXTM3U"
            | "#EXT-X-VERSION"
            | "#EXT-X-TARGETDURATION"
            | "#EXT-X-SERVER-CONTROL"
            | "#EXT-X-PART-INF"
            | "#EXT-X-MEDIA-SEQUENCE"
            | "#EXT-X-DISCONTINUITY-SEQUENCE" => {}
            uri if !uri.starts_with('#') => {
                segment.uri = uri.to_owned();
                let next =
                    Segment { number: segment.number + 1, init: segment.init.clone(), ..Segment::default() };
                self.segments.push(std::mem::replace(segment, next));
            }
            other => panic!("unknown line: {other}"),
        }
    }
}
