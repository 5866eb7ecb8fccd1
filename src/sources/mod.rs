//! What media comes from: one file or folder for each protocol, each implementing [`crate::graph::Source`].
//! May use `media` and `graph`. Must never name a consumer.
