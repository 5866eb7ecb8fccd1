//! Any bytes, read in pieces of any size, as what a camera sends on its RTSP connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::sources::rtsp::framer::{Framer, MAX_BODY_BYTES};

fuzz_target!(|input: (Vec<u8>, u16)| {
    let (bytes, step) = input;
    let mut framer = Framer::default();
    for piece in bytes.chunks(usize::from(step).max(1)) {
        let space = framer.space();
        space[..piece.len()].copy_from_slice(piece);
        framer.filled(piece.len());
        loop {
            match framer.next_message() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(why) => {
                    assert!(!why.is_empty() && why.len() < 1000);
                    return;
                }
            }
        }
        assert!(framer.capacity() < 2 * MAX_BODY_BYTES);
    }
});
