//! Any text is a configuration or an error, in bounded memory, and what is accepted keeps its promises.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::config::{check_source, check_stream_name, parse};
use streamgate::telemetry::mask;

fuzz_target!(|text: &str| {
    let env = |name: &str| (name.len() % 2 == 0).then(|| format!("<{name}>"));
    match parse(text, &env) {
        Ok(loaded) => {
            for (name, stream) in &loaded.config.streams {
                assert!(check_stream_name(name).is_ok());
                assert!(!stream.sources.is_empty());
                assert!(stream.sources.iter().all(|source| check_source(source).is_ok()));
            }
            let listen = loaded.config.api.listen;
            assert_eq!(listen.to_string().parse(), Ok(listen));
        }
        Err(error) => assert!(!error.message.is_empty()),
    }
    let _ = mask(text);
});
