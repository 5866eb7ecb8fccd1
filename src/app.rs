//! The one struct that ties registry, configuration, consumers and server together.
