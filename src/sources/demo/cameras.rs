//! Synthetic cameras for rehearsals: the demo clip under many paths, with a time stamp in each frame.

use super::CLIP;
use super::clip::{Clip, Media};
use super::lineup::Lineup;
use super::server;
use crate::media::nal::length_prefixed_nals;
use crate::media::{Frame, Kind, Params, StreamTime, stamp};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// H.264 NAL unit types (ITU-T H.264, table 7-1).
const SEI: u8 = 6;
const FILLER: u8 = 12;
/// A filler NAL unit of less than its header, one byte and the trailing bits says nothing.
const MIN_FILLER: usize = 3;

/// What the cameras send.
#[derive(Debug, Clone)]
pub struct Options {
    /// An MP4 file whose H.264 they show. `None`: the demo clip.
    pub clip: Option<Vec<u8>>,
    /// How many; at least 1.
    pub cameras: usize,
    /// Pictures a second; at least 1.
    pub fps: u32,
    /// Bits a second of video that filler data makes up. `None`: what the clip has.
    pub bitrate: Option<u64>,
    /// From keyframe to keyframe. `None`: what the clip has.
    pub gop: Option<Duration>,
    /// All fall silent then, but stay connected.
    pub silent_after: Option<Duration>,
}

/// The cameras, ready to be served.
#[derive(Debug)]
pub struct Cameras {
    lineup: Arc<Lineup>,
    /// Bits a second of video, without RTP's headers.
    pub bitrate: u64,
    /// From keyframe to keyframe.
    pub gop: Duration,
}

impl Cameras {
    /// Prepares the clip. The cameras run from now on.
    ///
    /// # Errors
    /// What the clip can't give.
    pub fn new(options: &Options) -> Result<Cameras, String> {
        let file = options.clip.as_deref().unwrap_or(CLIP);
        let mut video =
            Media::read(file, Some(Kind::Video))?.into_iter().next().ok_or("the clip has no video")?;
        let fps = options.fps.max(1);
        let gop_frames = cut_gops(&mut video.frames, options.gop, fps)?;
        let Params::H264 { sps, pps } = &video.track.params else {
            return Err("the clip's video is not H.264".to_owned());
        };
        let stamp = stamp::sei(UNIX_EPOCH);
        for (frame, number) in video.frames.iter_mut().zip(0_u64..) {
            frame.rtp_time = number * 90_000 / u64::from(fps);
            frame.time = StreamTime(Duration::from_nanos(number * 1_000_000_000 / u64::from(fps)));
            // As cameras do it: parameter sets, SEI, slices.
            let sets: &[&[u8]] = if frame.keyframe { &[sps, pps] } else { &[] };
            let slices = length_prefixed_nals(&frame.data).filter(|nal| nal_type(nal) != SEI);
            let nals = sets.iter().copied().chain([&stamp[..]]).chain(slices);
            frame.data = join(nals);
        }
        if let Some(bitrate) = options.bitrate {
            fill_up(&mut video.frames, bitrate, fps)?;
        }
        let count = video.frames.len() as u64;
        video.period = Duration::from_nanos(count * 1_000_000_000 / u64::from(fps));
        let bytes: usize = video.frames.iter().map(|frame| frame.data.len()).sum();
        let bitrate = bytes as u64 * 8 * u64::from(fps) / count.max(1);
        let mut clip = Clip::of(vec![video])?;
        for unit in &mut clip.units {
            unit.stamp = unit.packets.iter().position(|packet| *packet.payload == stamp);
        }
        let gop = Duration::from_secs(u64::from(gop_frames)) / fps;
        let now = Instant::now();
        let until = options.silent_after.map(|after| now + after);
        // Over a whole GOP, so that their keyframes don't come at one time.
        let lineup = Arc::new(Lineup::cameras(clip, options.cameras, now, gop, until));
        Ok(Cameras { lineup, bitrate, gop })
    }

    /// Serves them until it is dropped, which closes all connections.
    pub async fn serve(&self, listener: TcpListener) {
        server::serve(listener, self.lineup.clone()).await;
    }
}

/// Leaves of each GOP what is asked for. Returns its length in pictures.
fn cut_gops(frames: &mut Vec<Frame>, gop: Option<Duration>, fps: u32) -> Result<u32, String> {
    let has = frames.iter().skip(1).position(|frame| frame.keyframe).map_or(frames.len(), |at| at + 1);
    let wanted = gop.map_or(has as f64, |gop| (gop.as_secs_f64() * f64::from(fps)).round());
    if wanted < 1.0 || wanted > has as f64 {
        let longest = has as f64 / f64::from(fps);
        return Err(format!(
            "a GOP of {wanted} pictures can't be had: the clip has a keyframe every {has}, which is {longest:.1} s at {fps} pictures a second; fewer pictures a second make it longer"
        ));
    }
    let mut since_keyframe = 0;
    frames.retain(|frame| {
        since_keyframe = if frame.keyframe { 1 } else { since_keyframe + 1 };
        f64::from(since_keyframe) <= wanted
    });
    Ok(wanted as u32)
}

/// Brings the frames to the bit rate by filling up the small ones: what an encoder with a constant bit rate does.
fn fill_up(frames: &mut [Frame], bitrate: u64, fps: u32) -> Result<(), String> {
    let budget = bitrate * frames.len() as u64 / 8 / u64::from(fps);
    let sizes: Vec<u64> = frames.iter().map(|frame| frame.data.len() as u64).collect();
    let total = |level: u64| sizes.iter().map(|size| (*size).max(level)).sum::<u64>();
    if total(0) > budget {
        let least = total(0) * 8 * u64::from(fps) / (frames.len() as u64).max(1);
        return Err(format!(
            "the clip alone has {} kbit/s at {fps} pictures a second: ask for at least that, or for fewer pictures",
            least.div_ceil(1000)
        ));
    }
    // The highest level that the budget allows.
    let (mut low, mut high) = (0, budget + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if total(middle) > budget { high = middle } else { low = middle }
    }
    for frame in frames {
        let Some(missing) = (low as usize).checked_sub(frame.data.len() + 4 + MIN_FILLER) else { continue };
        // §7.3.2.7: 0xff as often as wanted, then the trailing bits. After the slices (§7.4.1.2.3).
        let mut filler = vec![0xff; missing + MIN_FILLER];
        if let [first, .., last] = filler.as_mut_slice() {
            (*first, *last) = (FILLER, 0x80);
        }
        frame.data = join(length_prefixed_nals(&frame.data).chain([&filler[..]]));
    }
    Ok(())
}

fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & 31)
}

/// NAL units as a frame has them.
fn join<'nal>(nals: impl Iterator<Item = &'nal [u8]>) -> Bytes {
    let mut data = Vec::new();
    for nal in nals {
        data.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        data.extend_from_slice(nal);
    }
    data.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rtp::depacketize::Depacketizer;

    fn options() -> Options {
        Options { clip: None, cameras: 3, fps: 30, bitrate: None, gop: None, silent_after: None }
    }

    #[tokio::test]
    async fn filler_makes_up_the_bit_rate_and_changes_no_picture() {
        let plain = Cameras::new(&options()).expect("the clip as it is");
        for bitrate in [1_000_000, 2_000_000] {
            let filled =
                Cameras::new(&Options { bitrate: Some(bitrate), ..options() }).expect("can be made up");
            assert!(filled.bitrate.abs_diff(bitrate) < bitrate / 100, "{} for {bitrate}", filled.bitrate);
            let slices = |cameras: &Cameras| {
                let clip = &cameras.lineup.clip;
                let (mut depacketizer, mut frames) = (Depacketizer::new(&clip.tracks[0]), Vec::new());
                for packet in clip.units.iter().flat_map(|unit| &unit.packets) {
                    depacketizer.push(packet, &mut frames);
                }
                let pictures = frames.iter().map(|frame| {
                    let nals = length_prefixed_nals(&frame.data).filter(|nal| nal_type(nal) != FILLER);
                    nals.map(<[u8]>::to_vec).collect::<Vec<_>>()
                });
                pictures.collect::<Vec<_>>()
            };
            assert_eq!(slices(&plain), slices(&filled));
            assert!(filled.lineup.clip.units.iter().all(|unit| unit.stamp.is_some()));
        }
        let too_low = Cameras::new(&Options { bitrate: Some(100_000), ..options() });
        assert!(too_low.expect_err("less than the clip has").contains("kbit/s"));
    }

    #[tokio::test]
    async fn own_footage_is_shown_and_what_can_not_be_is_refused() {
        let with = |clip: &[u8]| Cameras::new(&Options { clip: Some(clip.to_vec()), ..options() });
        let (own, demo) = (with(CLIP).expect("H.264"), Cameras::new(&options()).expect("the clip"));
        assert_eq!((own.bitrate, own.gop), (demo.bitrate, demo.gop));
        assert!(with(b"no MP4 file").is_err() && with(&CLIP[..CLIP.len() / 2]).is_err());
    }

    #[tokio::test]
    async fn a_gop_is_cut_and_grows_with_slower_pictures() {
        let with =
            |fps, gop| Cameras::new(&Options { fps, gop: Some(Duration::from_secs(gop)), ..options() });
        let one = with(30, 1).expect("half of the clip's");
        assert_eq!((one.gop, one.lineup.clip.units.len()), (Duration::from_secs(1), 150));
        let four = with(15, 4).expect("the clip's at half speed");
        assert_eq!((four.gop, four.lineup.clip.period), (Duration::from_secs(4), Duration::from_secs(20)));
        assert!(with(30, 4).expect_err("longer than the clip's").contains("2.0 s at 30"));
    }

    #[tokio::test]
    async fn cameras_have_names_and_phases_of_their_own() {
        let cameras = Cameras::new(&options()).expect("prepared");
        let lineup = &cameras.lineup;
        assert_eq!(lineup.find("/cam1"), Some((1, "")));
        assert_eq!(lineup.find("/cam3/track0"), Some((3, "/track0")));
        for stranger in ["/cam", "/cam0", "/cam4", "/cam+1", "/cam01", "/cam1x", "/demo", "/"] {
            assert_eq!(lineup.find(stranger), None, "{stranger}");
        }
        let now = Instant::now();
        let [first, second] = [1, 2].map(|camera| lineup.running(camera, now).since);
        assert_eq!((first - second).as_millis(), 666);
    }
}
