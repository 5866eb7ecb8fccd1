//! The configuration: the model, and how it is loaded from YAML, environment and flags.
//! May use nothing of Streamgate's other folders: it is a leaf.
//! Must never quote a source URL or any other value that may hold a credential in an error or a warning.

mod environment;
mod load;
mod model;
mod sections;
mod seeds;
mod streams;

pub use load::{ConfigError, Loaded, MAX_FILE_BYTES, find, load, parse};
pub use model::{
    Api, Config, Filters, Hls, IceServer, ListenAddress, Log, LogFormat, LogLevel, StreamConfig, Tls, Webrtc,
    check_source, check_stream_name, parse_duration,
};
