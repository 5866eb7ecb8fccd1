//! What a viewer must know of an HLS playlist. Pure code.

/// Most parts and segments that are taken of one playlist.
const MAX_PIECES: usize = 1000;

/// A media playlist, its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Media<'text> {
    /// The init segment's URI.
    pub map: Option<&'text str>,
    /// The server holds requests until what is asked for is there.
    pub can_block: bool,
    /// Parts and whole segments in order, with the media sequence number and the part's index in the segment.
    pub parts: Vec<(u64, u64, &'text str)>,
    pub segments: Vec<(u64, &'text str)>,
    /// The next media sequence number and part that are not there yet.
    pub next: (u64, u64),
    /// `EXT-X-TARGETDURATION`, in seconds.
    pub target: u64,
}

impl<'text> Media<'text> {
    pub fn parse(text: &'text str) -> Media<'text> {
        let mut media = Media { target: 1, ..Media::default() };
        for line in text.lines().map(str::trim) {
            if let Some(number) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                media.next.0 = number.parse().unwrap_or(0);
            } else if let Some(seconds) = line.strip_prefix("#EXT-X-TARGETDURATION:") {
                media.target = seconds.parse().unwrap_or(1);
            } else if line.starts_with("#EXT-X-SERVER-CONTROL:") {
                media.can_block |= line.contains("CAN-BLOCK-RELOAD=YES");
            } else if line.starts_with("#EXT-X-MAP:") {
                media.map = uri(line);
            } else if line.starts_with("#EXT-X-PART:") {
                if let Some(uri) = uri(line).filter(|_| media.parts.len() < MAX_PIECES) {
                    media.parts.push((media.next.0, media.next.1, uri));
                }
                media.next.1 += 1;
            } else if !line.is_empty() && !line.starts_with('#') {
                if media.segments.len() < MAX_PIECES {
                    media.segments.push((media.next.0, line));
                }
                media.next = (media.next.0 + 1, 0);
            }
        }
        media
    }
}

/// The first rendition of a multivariant playlist; `None` if it is a media playlist.
pub fn first_variant(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with("#EXT-X-STREAM-INF:"))?;
    lines.find(|line| !line.is_empty() && !line.starts_with('#'))
}

fn uri(line: &str) -> Option<&str> {
    line.split_once("URI=\"")?.1.split_once('"').map(|(uri, _)| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_know_their_segment_and_the_next_is_known() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1\n\
            #EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"i.mp4\"\n#EXTINF:2,\ns7.m4s\n#EXT-X-PART:DURATION=1,URI=\"p8.0\"\n\
            #EXT-X-PART:DURATION=1,URI=\"p8.1\"\n#EXTINF:2,\ns8.m4s\n#EXT-X-PART:DURATION=1,URI=\"p9.0\"\n\
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p9.1\"\n";
        let media = Media::parse(text);
        assert_eq!((media.map, media.can_block, media.target), (Some("i.mp4"), true, 2));
        assert_eq!(media.parts, [(8, 0, "p8.0"), (8, 1, "p8.1"), (9, 0, "p9.0")]);
        assert_eq!(media.segments, [(7, "s7.m4s"), (8, "s8.m4s")]);
        assert_eq!(media.next, (9, 1));
        assert_eq!(first_variant(text), None);
        assert_eq!(first_variant("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n\nv.m3u8\n"), Some("v.m3u8"));
    }
}
