//! A trickle fragment of any text is a fragment or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::consumers::webrtc::trickle::{matches_etag, parse};

fuzz_target!(|text: &str| {
    if let Ok(fragment) = parse(text)
        && let Some((ufrag, password)) = fragment.credentials
    {
        assert!(ufrag.len() >= 4 && password.len() >= 22);
    }
    let _ = matches_etag(text, "etag");
});
