//! An authority of a test's own, and the certificates that it signs.

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::PathBuf;

/// Signs certificates for `localhost`. Its files go with it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    /// A new one, whom nobody trusts.
    pub fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Authority of a test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(authority.file("authority.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The variables that make a program trust it and no other.
    pub fn trusted(&self) -> [(&'static str, String); 2] {
        let file = self.file("authority.pem").display().to_string();
        [("SSL_CERT_FILE", file), ("SSL_CERT_DIR", String::new())]
    }

    /// A certificate for `localhost` by this authority, and its key.
    pub fn certificate(&self, change: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The files of a good certificate and of its key.
    pub fn files(&self) -> [PathBuf; 2] {
        let (certificate, key) = self.certificate(|_| {});
        let files = [self.file("certificate.pem"), self.file("key.pem")];
        std::fs::write(&files[0], certificate.pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    }
}
