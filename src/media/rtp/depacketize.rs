//! depacketize
