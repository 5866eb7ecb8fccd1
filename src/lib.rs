//! Streamgate: a multi-protocol media router. Cameras in (RTSP), browsers out (WebRTC), nothing transcoded.
//!
//! ```text
//! media ← graph ← { sources, consumers } ← api ← server ← app ← cli ← main
//! ```
//!
//! [`media`] knows codecs and RTP and does no I/O. [`graph`] holds streams: one ring each that is fan-out,
//! GOP cache and drop policy at once. [`rtsp`] is that protocol's messages, for whoever speaks it. [`sources`] fill rings, [`consumers`] read them, [`api`] is HTTP,
//! [`server`] is the one port, [`app`] ties them together. [`config`], [`net`] and [`telemetry`] are leaves
//! that anyone may use. `tests/architecture.rs` fails when a dependency runs against these arrows.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod consumers;
pub mod graph;
pub mod media;
pub mod net;
pub mod rtsp;
pub mod server;
pub mod sources;
pub mod telemetry;
