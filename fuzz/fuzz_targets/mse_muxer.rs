//! Whatever frames come, no viewer by MSE sees a gap, nor time that runs back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use streamgate::consumers::mse::{Muxer, Retimer};
use streamgate::media::mp4::Media;
use streamgate::media::{Codec, Kind, Params, Track};

fuzz_target!(|input: (i64, Vec<(bool, bool, u32, Vec<u8>)>)| {
    let (live, frames) = input;
    let sps = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0xc8];
    let params = Params::H264 { sps: sps[..].into(), pps: [0x68, 0xce, 0x38, 0x80][..].into() };
    let video = Track { codec: Codec::H264, clock_rate: 90_000, channels: 0, params };
    let audio = Track { codec: Codec::Opus, clock_rate: 48_000, channels: 2, params: Params::None };
    let mut muxer = Muxer::default();
    muxer.begin(Media::of(&video), Media::of(&audio)).expect("these can be written");
    let (mut at, mut fragments) = (0u64, Vec::new());
    for (is_video, keyframe, step, data) in frames.into_iter().take(500) {
        at += u64::from(step % 5_000_000);
        let kind = if is_video { Kind::Video } else { Kind::Audio };
        let data = Bytes::from(data);
        muxer.push(kind, Duration::from_micros(at), keyframe && is_video, data, &mut fragments);
    }
    let mut retimer = Retimer::default();
    retimer.rejoin(Some(live % 1_000_000_000_000));
    let mut length = 0.0;
    for fragment in &fragments {
        let mut bytes = Vec::new();
        if retimer.write(fragment, &mut bytes) {
            assert_eq!(bytes.len(), fragment.data.len());
        }
        assert!(retimer.length() >= length);
        length = retimer.length();
    }
});
