//! packetize
