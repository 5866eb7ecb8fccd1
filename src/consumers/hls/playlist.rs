//! Playlists as text: pure functions of the window.

use super::window::{Segment, Window};
use std::fmt::Write;

/// `CAN-SKIP-UNTIL` in target durations (§4.4.3.8 asks for six at least).
const SKIP_TARGETS: u32 = 6;
/// `HOLD-BACK` and `PART-HOLD-BACK` in target durations and part targets (§4.4.3.8).
const HOLD_BACK: u32 = 3;

/// The media playlist. With `delta`, segments that a client knows are left out (§6.2.5.1); `None` if there are none.
pub fn media(window: &Window, delta: bool) -> Option<String> {
    let skipped = if delta { skippable(window) } else { 0 };
    if delta && skipped == 0 {
        return None;
    }
    let mut out = String::with_capacity(8192);
    write_media(&mut out, window, skipped).ok()?;
    Some(out)
}

/// Segments that lie wholly before the skip boundary.
fn skippable(window: &Window) -> usize {
    let boundary = f64::from(window.target() * SKIP_TARGETS);
    let mut after: f64 =
        window.segments.iter().map(Segment::duration).sum::<f64>() + window.growing.duration();
    let older = window.segments.iter().take_while(|segment| {
        after -= segment.duration();
        after >= boundary
    });
    older.count()
}

fn write_media(out: &mut String, window: &Window, skipped: usize) -> std::fmt::Result {
    let target = window.target();
    let part_target = window.part_target.as_secs_f64();
    let first = window.segments.front().unwrap_or(&window.growing);
    writeln!(out, "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:{target}")?;
    writeln!(
        out,
        "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={:.3},HOLD-BACK={}.0,CAN-SKIP-UNTIL={}.0",
        part_target * f64::from(HOLD_BACK),
        target * HOLD_BACK,
        target * SKIP_TARGETS,
    )?;
    writeln!(out, "#EXT-X-PART-INF:PART-TARGET={part_target:.3}")?;
    writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", first.number)?;
    writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", window.discontinuities_gone)?;
    if skipped > 0 {
        writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
    }
    let mut after: f64 =
        window.segments.iter().map(Segment::duration).sum::<f64>() + window.growing.duration();
    let mut init = None;
    for (index, segment) in window.segments.iter().enumerate() {
        if index >= skipped {
            // Parts are of use near the live edge only (§6.2.2).
            let with_parts = after <= f64::from(target * HOLD_BACK) + segment.duration();
            write_head(out, segment, init)?;
            if with_parts {
                write_parts(out, segment)?;
            }
            writeln!(out, "#EXTINF:{:.5},\nseg{}.mp4", segment.duration(), segment.number)?;
        }
        init = Some(segment.init);
        after -= segment.duration();
    }
    let growing = &window.growing;
    if !growing.parts.is_empty() {
        write_head(out, growing, init)?;
        write_parts(out, growing)?;
    }
    let (number, part) = (growing.number, growing.parts.len());
    writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"part{number}.{part}.mp4\"")
}

fn write_head(out: &mut String, segment: &Segment, init: Option<u32>) -> std::fmt::Result {
    if segment.discontinuity {
        writeln!(out, "#EXT-X-DISCONTINUITY")?;
    }
    if init != Some(segment.init) {
        writeln!(out, "#EXT-X-MAP:URI=\"init{}.mp4\"", segment.init)?;
    }
    let wall = jiff::Timestamp::from_millisecond(segment.wall_ms.round() as i64).unwrap_or_default();
    writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{wall:.3}")
}

fn write_parts(out: &mut String, segment: &Segment) -> std::fmt::Result {
    for (index, part) in segment.parts.iter().enumerate() {
        let number = segment.number;
        let independent = if part.independent { ",INDEPENDENT=YES" } else { "" };
        let duration = part.duration;
        writeln!(out, "#EXT-X-PART:DURATION={duration:.5},URI=\"part{number}.{index}.mp4\"{independent}")?;
    }
    Ok(())
}

/// The multivariant playlist; `media` is the media playlist's URI.
pub fn multivariant(window: &Window, media: &str) -> String {
    let (peak, average) = window.bandwidth();
    let description = &window.description;
    let mut out = format!(
        "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{}\"",
        description.codecs.join(",")
    );
    let (width, height) = description.size;
    if width > 0 {
        out.push_str(&format!(",RESOLUTION={width}x{height},FRAME-RATE={:.3}", description.fps));
    }
    out.push_str(&format!("\n{media}\n"));
    out
}

#[cfg(test)]
#[path = "playlist_tests.rs"]
mod tests;
