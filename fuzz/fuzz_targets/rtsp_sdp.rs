//! Any bytes as a camera's session description.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::sources::rtsp::sdp::{Media, Sdp};

fuzz_target!(|bytes: &[u8]| {
    let sdp = Sdp::parse(bytes);
    assert!(sdp.medias.len() <= 64 && sdp.offer().len() < 4096);
    sdp.medias.iter().filter_map(Media::track).for_each(drop);
});
