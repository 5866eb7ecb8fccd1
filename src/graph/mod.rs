//! Streams: what comes from sources and goes to consumers, and the life of both.
//! May use `media`, and `config` for what a stream is configured to do.
//! Must never name a protocol: sources and consumers come to it, not the reverse.

pub mod consumer;
pub mod convert;
pub mod dials;
pub mod events;
pub mod frames;
pub mod meter;
pub mod negotiate;
pub mod preload;
pub mod producer;
pub mod registry;
pub mod ring;
pub mod source;
pub mod stream;
pub mod writer;

pub use consumer::{Consumer, ConsumerInfo, Dialled, End, EndReason};
pub use events::{Event, Events};
pub use frames::FrameReader;
pub use negotiate::Wants;
pub use preload::Preload;
pub use producer::{Lease, Producer, State, Status};
pub use registry::{Change, Registry};
pub use ring::{Batch, Cursor, Epoch, Reader, Ring, Wake};
pub use source::{BoxFuture, OpenSource, RtpIn, Source, SourceDetails, SourceError};
pub use stream::{ConnectError, ConsumerGuard, Feed, Selection, Stream};
pub use writer::SourceWriter;
