//! Any bytes are a message that concerns us, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::consumers::webrtc::stun::{Message, parse};

fuzz_target!(|bytes: &[u8]| {
    if let Some(Message::Check { local_ufrag }) = parse(bytes) {
        assert!(local_ufrag.len() < bytes.len() && !local_ufrag.contains(':'));
    }
});
