//! Puts settings in effect that were changed while the program runs.

use crate::api::live::{Commit, Settings};
use crate::config::{Config, ConfigError, LogFormat, Tls};
use crate::consumers::hls::Hls;
use crate::consumers::rtsp::{Publishing, RtspServer};
use crate::consumers::webrtc::WebRtc;
use crate::server::tls::{self, Pem, TlsError};
use crate::telemetry::log;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// All that runs by settings.
pub(super) struct Running {
    pub(super) log: log::Control,
    pub(super) webrtc: Arc<WebRtc>,
    pub(super) hls: Arc<Hls>,
    pub(super) rtsp: Arc<RtspServer>,
    pub(super) publishing: Arc<Publishing>,
    pub(super) any_origin: Arc<AtomicBool>,
    pub(super) certificate: Arc<Certificate>,
}

impl Settings for Running {
    fn prepare(&self, running: &Config, wanted: &Config) -> Result<Commit, ConfigError> {
        let mut steps: Vec<Commit> = Vec::new();
        if running.api.tls != wanted.api.tls {
            let read = wanted.api.tls.as_ref().map(read).transpose();
            let read = read.map_err(|error| ConfigError::new(error.to_string()))?;
            let certificate = self.certificate.clone();
            steps.push(Box::new(move || certificate.set(read)));
        }
        let (was, is) = (&running.webrtc, &wanted.webrtc);
        if was.candidates != is.candidates || was.filters != is.filters {
            let candidates = self.webrtc.candidates(is).map_err(ConfigError::new)?;
            let webrtc = self.webrtc.clone();
            steps.push(Box::new(move || webrtc.set_candidates(candidates)));
        }
        if was.pacing != is.pacing {
            let (webrtc, pacing) = (self.webrtc.clone(), is.pacing);
            steps.push(Box::new(move || webrtc.set_pacing(pacing)));
        }
        if running.hls != wanted.hls {
            let (hls, config) = (self.hls.clone(), wanted.hls.clone());
            steps.push(Box::new(move || hls.configure(config)));
        }
        if running.rtsp.login != wanted.rtsp.login {
            let (rtsp, login) = (self.rtsp.clone(), wanted.rtsp.login.clone());
            steps.push(Box::new(move || rtsp.set_login(login)));
        }
        if running.publish != wanted.publish {
            let (publishing, publish) = (self.publishing.clone(), wanted.publish.clone());
            steps.push(Box::new(move || publishing.configure(&publish)));
        }
        if running.log != wanted.log {
            let (log, wanted) = (self.log.clone(), wanted.log.clone());
            steps.push(Box::new(move || {
                if let Err(why) = log.set(&wanted.filter(), log_format(wanted.format)) {
                    tracing::error!("the log goes on as it was: {why}");
                }
            }));
        }
        let (any_origin, wanted) = (self.any_origin.clone(), wanted.api.any_origin);
        steps.push(Box::new(move || any_origin.store(wanted, Ordering::Relaxed)));
        Ok(Box::new(move || steps.into_iter().for_each(|step| step())))
    }

    fn refresh(&self, running: &Config) {
        if let Some(tls) = &running.api.tls {
            self.certificate.refresh(tls);
        }
    }
}

/// The format in the log's own words.
pub fn log_format(format: LogFormat) -> log::Format {
    match format {
        LogFormat::Auto => log::Format::Auto,
        LogFormat::Color => log::Format::Color,
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    }
}

/// A certificate and its key as they were read, and what was made of them.
type Read = (Pem, Arc<ServerConfig>);

pub(super) fn read(tls: &Tls) -> Result<Read, TlsError> {
    let pem = Pem::read(&tls.cert, &tls.key)?;
    let config = pem.server_config()?;
    Ok((pem, config))
}

/// The certificate in use and the files it came from, which somebody renews now and then.
pub(super) struct Certificate {
    current: Arc<tls::Current>,
    state: Mutex<CertificateState>,
}

#[derive(Default)]
struct CertificateState {
    pem: Option<Pem>,
    /// Why what the files hold by now is not in use.
    refused: Option<String>,
}

impl Certificate {
    pub(super) fn new(current: Arc<tls::Current>, read: Option<Read>) -> Arc<Certificate> {
        let certificate = Certificate { current, state: Mutex::default() };
        certificate.set(read);
        Arc::new(certificate)
    }

    fn set(&self, read: Option<Read>) {
        let (pem, config) = read.unzip();
        *self.state.lock() = CertificateState { pem, refused: None };
        self.current.set(config);
    }

    /// Uses what the files hold by now. A pair that can't be used is named once, and the old one stays.
    fn refresh(&self, tls: &Tls) {
        let outcome = read(tls);
        let mut state = self.state.lock();
        match outcome {
            Ok((pem, _)) if state.pem.as_ref() == Some(&pem) => state.refused = None,
            Ok(renewed) => {
                drop(state);
                self.set(Some(renewed));
                tracing::info!("certificate read again: new connections get it");
            }
            Err(why) => {
                let refused = Some(why.to_string());
                if state.refused != refused {
                    tracing::error!("{why}; the certificate in use stays");
                    state.refused = refused;
                }
            }
        }
    }
}
