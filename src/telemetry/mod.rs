//! What the program says of itself: log lines.
//! May use nothing of Streamgate's other folders: it is a leaf.
//! Must never let a credential out.

pub mod log;
mod mask;

pub use mask::mask;
