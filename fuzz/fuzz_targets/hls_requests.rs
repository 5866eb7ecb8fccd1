//! Any file name and any delivery directives give a value or an error; a name that is taken is taken back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use streamgate::consumers::hls::query::{File, Reload};

fuzz_target!(|text: &str| {
    match File::parse(text) {
        Some(File::Playlist) => assert_eq!(text, "index.m3u8"),
        Some(File::Init(id)) => assert_eq!(text, format!("init{id}.mp4")),
        Some(File::Segment(number)) => assert_eq!(text, format!("seg{number}.mp4")),
        Some(File::Part(number, index)) => assert_eq!(text, format!("part{number}.{index}.mp4")),
        None => {}
    }
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    if let Ok(reload) = Reload::parse(pairs) {
        assert!(reload.part.is_none() || reload.segment.is_some());
    }
});
