//! Streams: what comes from sources and goes to consumers, and the life of both.
//! May use `media`. Must never name a protocol: sources and consumers come to it, not the reverse.

pub mod ring;
pub mod source;

pub use source::{BoxFuture, OpenSource, RtpIn, Source, SourceDetails, SourceError, SourceWriter};
