//! Any text is edited into exactly what was meant, or not at all; and its secrets can be hidden and put back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::config::{Edit, StreamConfig, apply, masked, parse, unmasked};
use streamgate::telemetry::mask;

fuzz_target!(|input: (&str, &str, &str, bool)| {
    let (text, name, source, audio) = input;
    let env = |_: &str| None;
    let hide = |text: &str| mask(text).into_owned();
    let stream = StreamConfig { audio, ..StreamConfig::new(vec![source.to_owned()]) };
    if let Ok(edited) = apply(text, &Edit::Set { name, stream: &stream }, &env) {
        let read = parse(&edited.text, &env).map(|loaded| loaded.config.streams).unwrap_or_default();
        assert!(read.iter().any(|(other, found)| other == name && *found == stream));
        let _ = apply(&edited.text, &Edit::Remove { name }, &env);
    }
    if let (Ok(loaded), Some(shown)) = (parse(text, &env), masked(text, &hide)) {
        if let Ok(back) = unmasked(&shown, text, &hide) {
            assert_eq!(parse(&back, &env).map(|back| back.config), Ok(loaded.config));
        }
    }
});
