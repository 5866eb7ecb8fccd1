//! Any query and any body is what it says or an error with a status of the 4xx kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::api::edit::Edit;
use streamgate::api::request::Query;
use streamgate::config::{StreamConfig, check_source};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        match Query::parse(text) {
            Ok(query) => {
                if let Ok(edit) = Edit::sources(query.all("src")) {
                    check(edit);
                }
                let _ = query.unknown(&["name", "src"]);
            }
            Err(error) => assert!(error.status().is_client_error()),
        }
    }
    match Edit::parse(bytes) {
        Ok(edit) => check(edit),
        Err(error) => assert!(error.status().is_client_error()),
    }
});

/// What is accepted keeps what the configuration promises.
fn check(edit: Edit) {
    if let Ok(config) = edit.create() {
        assert!((1..=StreamConfig::MAX_SOURCES).contains(&config.sources.len()));
        assert!(config.sources.iter().all(|source| check_source(source).is_ok()));
    }
}
