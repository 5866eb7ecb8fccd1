//! Time: 32-bit RTP timestamps to one 64-bit stream timeline.

use std::time::Duration;

/// Time since a source's timeline began. All its tracks share it; it goes on over reconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamTime(pub Duration);
