//! A verdict is final: more bytes never change it, and enough bytes always give one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::server::sniff::{ENOUGH, Verdict, sniff};

fuzz_target!(|bytes: &[u8]| {
    let mut decided = Verdict::NeedMore;
    for count in 0..=bytes.len().min(2 * ENOUGH) {
        let verdict = sniff(&bytes[..count]);
        assert!(decided == Verdict::NeedMore || verdict == decided);
        assert!(count < ENOUGH || verdict != Verdict::NeedMore);
        decided = verdict;
    }
});
