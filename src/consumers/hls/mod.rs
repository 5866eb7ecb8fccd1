//! HLS and LL-HLS (draft-pantos-hls-rfc8216bis): one segmenter for each stream, shared by all viewers, fMP4.
//! May use `graph`, `media` and `config`. Knows nothing of HTTP: it gives texts and bytes.
//! Must never keep a source running that nobody asks for, nor let one viewer's pace change what others get.

mod audio;
mod codecs;
mod cutter;
mod flac;
mod fmp4;
mod order;
mod playlist;
mod segmenter;
mod window;
