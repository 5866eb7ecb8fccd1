//! Fragmented MP4 for whoever writes it: sample entries and `CODECS`, init segments, fragments, decode times, sound.
//! Pure code, like all of `media`: it knows samples and boxes, not who asks for them.
//! Must never decide when a fragment ends: that is its users' (HLS cuts parts, MSE every frame).

pub mod audio;
mod codecs;
mod flac;
mod fmp4;
mod order;

pub use audio::AudioTrack;
pub use codecs::Media;
pub use fmp4::{Run, Sample, Times, fragment, init_segment, retimed};
pub use order::DecodeOrder;
