//! The HTTP API and the embedded pages: one file for each resource.
//! May use everything below it; must not know which port or socket it is served on.
