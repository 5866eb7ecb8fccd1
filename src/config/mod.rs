//! The configuration: the model, and how it is loaded from YAML, environment and flags.
//! A leaf: it may use nothing of Streamgate's other folders.
