//! Any bytes, read in pieces of any size, as what comes on an RTSP connection: of a camera, or of a player.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::rtsp::guard::Guard;
use streamgate::rtsp::{Framer, Headers, Incoming, Limits, Transport};

fuzz_target!(|input: (Vec<u8>, u16, bool)| {
    let (bytes, step, is_server) = input;
    let limits = if is_server { Limits::SERVER } else { Limits::CLIENT };
    let guard = Guard::new("user", "password");
    let mut framer = Framer::new(limits);
    for mut piece in bytes.chunks(usize::from(step).max(1)) {
        while !piece.is_empty() {
            let space = framer.space();
            let length = piece.len().min(space.len());
            space[..length].copy_from_slice(&piece[..length]);
            framer.filled(length);
            piece = &piece[length..];
            loop {
                match framer.next_message() {
                    Ok(Some(Incoming::Request(request, _))) => look_into(&request.headers, &guard),
                    Ok(Some(Incoming::Response(response, _))) => look_into(&response.headers, &guard),
                    Ok(Some(Incoming::Data { .. })) => {}
                    Ok(None) => break,
                    Err(why) => {
                        assert!(!why.is_empty() && why.len() < 1000);
                        return;
                    }
                }
            }
            assert!(framer.capacity() < 2 * (limits.body_bytes + limits.head_bytes + 128 * 1024));
        }
    }
});

fn look_into(headers: &Headers, guard: &Guard) {
    if let Some(transport) = headers.get("Transport") {
        assert!(Transport::parse_all(transport).len() <= 16);
    }
    guard.check("PLAY", headers.get("Authorization"));
}
