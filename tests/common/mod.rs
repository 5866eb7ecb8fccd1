//! What integration tests share: a camera, the clips, the program itself, HTTP, and waiting for a condition.
//! Nothing here is a mock: the camera is GStreamer's RTSP server, the program is the real binary.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of this")]

mod authority;
mod camera;
mod clips;
mod http;
mod lines;
mod streamgate;
mod wait;

pub use authority::Authority;
pub use camera::Camera;
pub use clips::{Clip, annexb_nals, clips_folder};
pub use http::{Reply, delete, get, get_json, options, patch, post, put, request};
pub use streamgate::Streamgate;
pub use wait::{eventually, eventually_some};
