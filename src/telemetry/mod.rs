//! Logging. A leaf: it may use nothing of Streamgate's other folders.
