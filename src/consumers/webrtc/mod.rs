//! WebRTC viewers.
