//! The client side of TLS: whom to trust, and what went wrong, in words.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Names of a certificate that are told.
const MAX_NAMES: usize = 4;
/// Characters of such a name.
const MAX_NAME: usize = 80;

/// Why a handshake failed.
pub enum Failure {
    /// What the certificate does or is: "is …".
    Certificate(String),
    /// The other side speaks something else.
    NoTls,
    /// Anything else.
    Other(String),
}

/// Begins TLS as a client. The caller bounds the time.
pub async fn handshake(
    stream: TcpStream,
    host: &str,
    is_verified: bool,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| Failure::Other(format!("{host:?} is no name that a certificate can have")))?;
    let config = if is_verified { verified().await } else { unverified() };
    let config = config.map_err(Failure::Other)?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| failure(&error, host))
}

/// For servers whose certificate is checked. The authorities are read once for the life of the process, as it is usual;
/// as long as there are none they are looked for again.
async fn verified() -> Result<Arc<ClientConfig>, String> {
    static VERIFIED: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
    let load = || async {
        let loaded = tokio::task::spawn_blocking(authorities).await;
        let authorities = loaded.map_err(|error| error.to_string())??;
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?.with_root_certificates(authorities);
        Ok(Arc::new(builder.with_no_client_auth()))
    };
    VERIFIED.get_or_try_init(load).await.cloned()
}

/// Those of the operating system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn authorities() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.certs);
    let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
    let errors = errors.join("; ");
    if store.is_empty() {
        let why = if errors.is_empty() { String::new() } else { format!(" ({errors})") };
        return Err(format!(
            "no authority's certificate is trusted here{why}: install the system's (ca-certificates), or name a file \
             of them in SSL_CERT_FILE"
        ));
    }
    if !errors.is_empty() {
        tracing::warn!("some certificates of authorities can't be read: {errors}");
    }
    Ok(store)
}

fn unverified() -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    Ok(Arc::new(builder.with_custom_certificate_verifier(Arc::new(Anyone(provider()))).with_no_client_auth()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes any certificate, be it ever so old or broken.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Who has the certificate's key says nothing about a certificate that says nothing; and these two would refuse
    // certificates of old devices for their form.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn failure(error: &io::Error, host: &str) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(why)) => Failure::Certificate(certificate_in_words(why, host)),
        Some(Error::NoCertificatesPresented) => Failure::Certificate("is missing".to_owned()),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Failure::NoTls,
        Some(other) => Failure::Other(other.to_string()),
        None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            Failure::Other(
                "it closed the connection during the handshake: is it rtsps:// at this port?".to_owned(),
            )
        }
        None => Failure::Other(error.to_string()),
    }
}

/// The end of a sentence that begins with "the certificate of HOST".
fn certificate_in_words(why: &CertificateError, host: &str) -> String {
    use CertificateError as E;
    let ago = |from: &UnixTime, to: &UnixTime| {
        let seconds = to.as_secs().saturating_sub(from.as_secs());
        match seconds / 86_400 {
            0 => format!("{} h", seconds / 3600),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        }
    };
    match why {
        E::UnknownIssuer => {
            "is not trusted: no authority that is trusted here has signed it (SSL_CERT_FILE can name a \
             file with the certificate of the one that has)"
                .to_owned()
        }
        // As when an authority was made anew under its old name.
        E::BadSignature => {
            "is not trusted: it is signed by another authority than the one of that name that is trusted \
             here"
                .to_owned()
        }
        E::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            let mut names: Vec<String> =
                presented.iter().take(MAX_NAMES).map(|name| plain_name(name)).collect();
            if presented.len() > MAX_NAMES {
                names.push(format!("{} more", presented.len() - MAX_NAMES));
            }
            format!("is for {}, not for {host}", names.join(", "))
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => format!("is not for {host}"),
        E::ExpiredContext { time, not_after } => format!("has expired {} ago", ago(not_after, time)),
        E::NotValidYetContext { time, not_before } => {
            format!("is not valid for another {} (is the clock right?)", ago(time, not_before))
        }
        // What `openssl req -x509` makes when nothing else is said.
        E::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "is one of an authority, which is none for a server: it would have to be made with \
             basicConstraints=CA:FALSE"
                .to_owned()
        }
        E::Other(other) => format!("is not accepted: {other}"),
        other => format!("is not accepted: {other}"),
    }
}

/// `DnsName("camera.example")`, as the library says it, without that. It is the other side's text.
fn plain_name(name: &str) -> String {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.trim_matches('"').chars().filter(|c| c.is_ascii_graphic()).take(MAX_NAME).collect()
}
