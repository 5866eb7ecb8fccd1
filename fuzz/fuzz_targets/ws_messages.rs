//! A WebSocket client's text of any kind is a request or an error that can be told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::api::ws::Request;

fuzz_target!(|text: &str| {
    match Request::parse(text) {
        Ok(Request::Mse(wants) | Request::Mp4(wants) | Request::Hls(wants)) => {
            assert!(wants.video.len() <= 2 && wants.audio.len() <= 4);
        }
        Ok(_) => {}
        Err(why) => assert!(why.contains(": ") && why.len() < 1000, "{why}"),
    }
});
