//! Any text as a player's request URI, credentials and RTCP: what it names, whether it may, what it reports.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::consumers::rtsp::Target;
use streamgate::media::rtp::header::{report_blocks, says_goodbye};
use streamgate::rtsp::guard::{Guard, Verdict};
use streamgate::rtsp::message::Draft;

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (uri, authorization, rtcp) = input;
    match Target::parse(uri) {
        Ok(target) => assert!(!target.name.is_empty() && target.wants.video.len() <= 3),
        Err((status, words)) => {
            assert!((400..500).contains(&status));
            // Whatever it quotes, it stays one line.
            let answer = Draft::response_saying(status, &words, "1").finish();
            assert_eq!(answer.lines().count(), 3);
        }
    }
    assert_ne!(Guard::new("user", "password").check("PLAY", Some(authorization)), Verdict::Missing);
    assert!(report_blocks(rtcp).count() <= rtcp.len() / 24);
    says_goodbye(rtcp, 1);
});
