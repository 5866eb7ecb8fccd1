//! The one port: TCP sniffing, TLS, UDP, and who may do what.
