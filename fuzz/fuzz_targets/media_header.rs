//! RTP and RTCP headers of any bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::media::rtp::header;

fuzz_target!(|packet: &[u8]| {
    if let Some((parsed, payload)) = header::parse(packet) {
        let mut written = Vec::new();
        parsed.write(&mut written);
        written.extend_from_slice(payload);
        assert_eq!(header::parse(&written), Some((parsed, payload)));
    }
    let _ = header::is_rtcp(packet);
    let _ = header::says_goodbye(packet, 1);
    for report in header::sender_reports(packet) {
        let mut written = Vec::new();
        header::write_sender_report(&report, 0, 0, &mut written);
        assert_eq!(header::sender_reports(&written).next(), Some(report));
    }
});
