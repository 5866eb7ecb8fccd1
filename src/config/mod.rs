//! The configuration: the model, and how it is loaded from YAML, environment and flags.
//! May use nothing of Streamgate's other folders: it is a leaf.
//! Must never quote a source URL or any other value that may hold a credential in an error or a warning.

mod edit;
mod environment;
mod load;
mod model;
mod overrides;
mod publish;
mod schema;
mod secrets;
mod sections;
mod seeds;
mod spelling;
mod splice;
mod store;
mod streams;
mod tree;
mod write;

pub use edit::{Edit, EditError, Edited, apply};
pub use load::{ConfigError, Loaded, MAX_FILE_BYTES, USUAL_FILE, environment, find, load, parse};
pub use model::{
    Api, Config, DEFAULT_PRELOAD, Filters, Hls, IceServer, ListenAddress, Log, LogFormat, LogLevel, Login,
    Pacing, Rtsp, StreamConfig, Tls, Webrtc, check_source, check_stream_name, is_pem, parse_duration,
};
pub use overrides::{Overrides, needs_restart};
pub use schema::schema;
pub use secrets::{Mask, masked, unmasked, unmasked_value};
pub use spelling::nearest;
pub use store::{Stamp, Store, StoreError};
