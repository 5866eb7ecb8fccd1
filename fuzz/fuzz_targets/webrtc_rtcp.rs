//! Any bytes are feedback of a bounded length, or nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::consumers::webrtc::rtcp::read;

fuzz_target!(|bytes: &[u8]| {
    let mut heard = 0;
    read(bytes, |_| heard += 1);
    assert!(heard * 4 <= bytes.len());
});
