//! TLS on the one port: a rustls server from PEM text or files.

use crate::config::is_pem;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::Read;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Largest PEM file, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{key}: {path:?} cannot be read: {error}; give the path of a PEM file, or PEM text")]
    File {
        /// `api.tls_cert` or `api.tls_key`.
        key: &'static str,
        /// The path that was given.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// There is no certificate or key in the text.
    #[error("{key}: no PEM {what}: {error}")]
    Pem {
        /// `api.tls_cert` or `api.tls_key`.
        key: &'static str,
        /// What was expected.
        what: &'static str,
        /// What was found.
        error: String,
    },
    /// The two do not belong together, or the key is of an unknown kind.
    #[error("api.tls_cert: it cannot be used with api.tls_key: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Makes the server side of TLS, with ALPN `h2` and `http/1.1`. `cert` and `key` are PEM text or the path of a PEM file.
///
/// # Errors
/// A file cannot be read, has no certificate or key, or the two do not belong together.
pub fn server_config(cert: &str, key: &str) -> Result<Arc<ServerConfig>, TlsError> {
    Pem::read(cert, key)?.server_config()
}

/// What the port speaks TLS with, nothing or a certificate: replaced while connections go on.
#[derive(Debug, Default)]
pub struct Current(RwLock<Option<Arc<ServerConfig>>>);

impl Current {
    /// For connections that come from now on.
    pub fn set(&self, config: Option<Arc<ServerConfig>>) {
        *self.0.write() = config;
    }

    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.read().clone().map(TlsAcceptor::from)
    }
}

/// The bytes of a certificate chain and of its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    /// Each is PEM text or the path of a PEM file.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(cert: &str, key: &str) -> Result<Pem, TlsError> {
        Ok(Pem { cert: pem("api.tls_cert", cert)?, key: pem("api.tls_key", key)? })
    }

    /// See [`server_config`].
    ///
    /// # Errors
    /// There is no certificate or key, or the two do not belong together.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let no_cert = |error: String| TlsError::Pem { key: "api.tls_cert", what: "certificate", error };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| no_cert(error.to_string()))?;
        if chain.is_empty() {
            return Err(no_cert("expected -----BEGIN CERTIFICATE-----".to_owned()));
        }
        // The error says which kinds it looked for and never quotes the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| TlsError::Pem {
            key: "api.tls_key",
            what: "private key",
            error: error.to_string(),
        })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn pem(key: &'static str, text_or_path: &str) -> Result<Vec<u8>, TlsError> {
    if is_pem(text_or_path) {
        return Ok(text_or_path.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(text_or_path)
        .and_then(|file| file.take(MAX_PEM).read_to_end(&mut bytes))
        .map_err(|error| TlsError::File { key, path: text_or_path.to_owned(), error })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn pem_text_and_files_both_work() {
        let (cert, key) = made();
        assert_eq!(server_config(&cert, &key).unwrap().alpn_protocols, [&b"h2"[..], b"http/1.1"]);
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        server_config(&path("c", &cert), &path("k", &key)).unwrap();
    }

    #[test]
    fn errors_name_the_key_and_never_show_its_text() {
        let (cert, key) = made();
        let (_, other) = made();
        for (cert, key, part) in [
            ("/no/such/file", key.as_str(), "api.tls_cert: \"/no/such/file\" cannot be read"),
            (&cert, "/no/such/file", "api.tls_key: \"/no/such/file\" cannot be read"),
            (&key, &key, "api.tls_cert: no PEM certificate"),
            (&cert, &cert, "api.tls_key: no PEM private key"),
            (&cert, &other, "cannot be used"),
            ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", &key, "api.tls_cert: no PEM"),
        ] {
            let error = server_config(cert, key).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
            let secret = other.lines().nth(1).unwrap();
            assert!(!error.contains(secret), "{error}");
        }
    }
}
