//! DTLS for all viewers out of one configuration. Building one runs self-tests of every cipher, a millisecond of CPU
//! that str0m's own provider spends on each viewer. Nothing of a configuration is secret or belongs to a connection:
//! randoms, keys and nonces are drawn by each instance.
//!
//! The keys for SRTP that a handshake agrees on are handed to the viewer's [`super::srtp`].

use super::srtp::Agreed;
use dimpl::{Config, Dtls};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion,
};
use str0m::crypto::{CryptoError, CryptoProvider};

/// str0m's ciphers, and DTLS with a configuration that is built once.
pub fn crypto_provider() -> CryptoProvider {
    static PROVIDER: SharedConfig = SharedConfig { built: OnceLock::new() };
    CryptoProvider { dtls_provider: &PROVIDER, ..str0m::crypto::from_feature_flags() }
}

/// Where the keys of one handshake are found when it is done.
#[derive(Clone, Default)]
pub struct Keys(Arc<Mutex<Option<Agreed>>>);

impl Keys {
    /// The keys, once.
    pub fn take(&self) -> Option<Agreed> {
        self.0.lock().take()
    }
}

thread_local! {
    /// Of the instance that was made last by this thread.
    static NEWEST: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// Builds a str0m instance, and says where the keys of its handshake will be. str0m has no way to ask for them: it
/// makes its one DTLS instance while it is built, on the same thread.
pub fn with_keys<T>(build: impl FnOnce() -> T) -> (T, Option<Keys>) {
    NEWEST.take();
    let built = build();
    (built, NEWEST.take())
}

#[derive(Debug)]
struct SharedConfig {
    /// For the MTU that was asked for first: all viewers have the same.
    built: OnceLock<(Option<usize>, Arc<Config>)>,
}

impl SharedConfig {
    fn config(&self, mtu: Option<usize>) -> Result<Arc<Config>, CryptoError> {
        if let Some((_, config)) = self.built.get().filter(|(known, _)| *known == mtu) {
            return Ok(config.clone());
        }
        // ICE has proved that the viewer receives at its address: a cookie would only cost a round trip.
        let mut builder = Config::builder().use_server_cookie(false);
        if let Some(mtu) = mtu {
            builder = builder.mtu(mtu);
        }
        let config = builder.build().map_err(|error| CryptoError::Other(format!("DTLS: {error}")))?;
        let config = Arc::new(config);
        // Somebody else may have been first: either configuration does.
        let _ = self.built.set((mtu, config.clone()));
        Ok(config)
    }
}

impl DtlsProvider for SharedConfig {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        str0m::crypto::from_feature_flags().dtls_provider.generate_certificate()
    }

    fn new_dtls(
        &self,
        certificate: &DtlsCert,
        now: Instant,
        version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = self.config(mtu)?;
        let certificate = certificate.clone();
        let dtls = match version {
            DtlsVersion::Dtls12 => Dtls::new_12(config, certificate, now),
            DtlsVersion::Dtls13 => Dtls::new_13(config, certificate, now),
            DtlsVersion::Auto => Dtls::new_auto(config, certificate, now),
            other => return Err(CryptoError::Other(format!("DTLS version {other} is not known"))),
        };
        let keys = Keys::default();
        NEWEST.set(Some(keys.clone()));
        Ok(Box::new(Instance { dtls, keys, quiet_until: None }))
    }
}

/// One viewer's DTLS. str0m polls it with everything it does; once the handshake is done there is nothing to say until
/// something happens to it, and that is remembered here.
struct Instance {
    dtls: Dtls,
    keys: Keys,
    /// What the last poll said, while nothing has happened since.
    quiet_until: Option<Instant>,
}

impl Instance {
    fn touch(&mut self) -> &mut Dtls {
        self.quiet_until = None;
        &mut self.dtls
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dtls")
    }
}

impl DtlsInstance for Instance {
    fn set_active(&mut self, active: bool) {
        self.touch().set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.touch().handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        if let Some(at) = self.quiet_until {
            return DtlsOutput::Timeout(at);
        }
        let client = self.dtls.is_active();
        let output = self.dtls.poll_output(buf);
        match &output {
            DtlsOutput::Timeout(at) => self.quiet_until = Some(*at),
            DtlsOutput::KeyingMaterial(material, profile) => {
                let agreed = Agreed { profile: *profile, material: material.to_vec(), client };
                *self.keys.0.lock() = Some(agreed);
            }
            _ => {}
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.touch().handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.touch().send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.dtls.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.dtls.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.dtls.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.dtls.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.touch().close()
    }
}
