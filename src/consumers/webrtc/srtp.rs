//! One viewer's SRTP (RFC 3711, RFC 7714): media and reports are sealed where they are sent from, feedback is opened.
//! The ciphers are str0m's; the keys come from its DTLS handshake. Nothing else may seal with these keys and the
//! SSRCs of our lanes: a packet index must never be used twice.

use str0m::crypto::dtls::SrtpProfile;
use str0m::crypto::{AeadAes128Gcm, AeadAes128GcmCipher, AeadAes256Gcm, AeadAes256GcmCipher};
use str0m::crypto::{Aes128CmSha1_80, Aes128CmSha1_80Cipher, CryptoProvider, Sha1HmacProvider};

/// What SRTCP leaves readable: the first header and its SSRC.
const RTCP_CLEAR: usize = 8;
const INDEX: usize = 4;
/// SSRCs that one viewer's feedback may come from: browsers have one for each m-line.
const MAX_REPORTERS: usize = 32;
/// The bit before the SRTCP index that says "encrypted".
const ENCRYPTED: u32 = 0x8000_0000;

/// What DTLS agreed on.
pub struct Agreed {
    /// The ciphers.
    pub profile: SrtpProfile,
    /// RFC 5764 §4.2: the client's key, the server's, the client's salt, the server's.
    pub material: Vec<u8>,
    /// We were the DTLS client.
    pub client: bool,
}

/// Seals and opens for one viewer.
pub struct Srtp {
    rtp: Key,
    rtcp: Key,
    feedback: Key,
    rtcp_index: u32,
    /// For each SSRC that feedback came from: each counts for itself (RFC 3711 §3.2.3).
    seen: Vec<(u32, Replay)>,
}

enum Key {
    Gcm128 { salt: [u8; 12], cipher: Box<dyn AeadAes128GcmCipher> },
    Gcm256 { salt: [u8; 12], cipher: Box<dyn AeadAes256GcmCipher> },
    Sha1 { salt: [u8; 14], auth: [u8; 20], cipher: Box<dyn Aes128CmSha1_80Cipher>, hmac: Hmac },
}

type Hmac = &'static dyn Sha1HmacProvider;

/// RFC 3711 §4.3.2: what a session key is for.
#[derive(Clone, Copy)]
enum Use {
    Rtp = 0,
    Rtcp = 3,
}

/// One side's master key and salt.
struct Master<'a> {
    key: &'a [u8],
    salt: &'a [u8],
}

impl Master<'_> {
    /// RFC 3711 §4.3.1, with a key derivation rate of zero.
    fn derive<const N: usize>(&self, crypto: &CryptoProvider, label: u8) -> [u8; N] {
        let mut input = [0; 16];
        input.iter_mut().zip(self.salt).for_each(|(to, from)| *to = *from);
        input[7] ^= label;
        let mut out = [0; N];
        for (round, part) in out.chunks_mut(16).enumerate() {
            input[15] = round as u8;
            let mut block = [0; 32];
            match self.key.len() {
                16 => crypto.srtp_provider.srtp_aes_128_ecb_round(self.key, &input, &mut block),
                _ => crypto.srtp_provider.srtp_aes_256_ecb_round(self.key, &input, &mut block),
            }
            part.iter_mut().zip(block).for_each(|(to, from)| *to = from);
        }
        out
    }

    fn key(&self, crypto: &CryptoProvider, profile: SrtpProfile, usage: Use, seals: bool) -> Option<Key> {
        let (label, ciphers) = (usage as u8, crypto.srtp_provider);
        Some(match profile {
            SrtpProfile::AEAD_AES_128_GCM => Key::Gcm128 {
                salt: self.derive(crypto, label + 2),
                cipher: ciphers.aead_aes_128_gcm().create_cipher(self.derive(crypto, label), seals),
            },
            SrtpProfile::AEAD_AES_256_GCM => Key::Gcm256 {
                salt: self.derive(crypto, label + 2),
                cipher: ciphers.aead_aes_256_gcm().create_cipher(self.derive(crypto, label), seals),
            },
            SrtpProfile::AES128_CM_SHA1_80 => Key::Sha1 {
                salt: self.derive(crypto, label + 2),
                auth: self.derive(crypto, label + 1),
                cipher: ciphers.aes_128_cm_sha1_80().create_cipher(self.derive(crypto, label), seals),
                hmac: crypto.sha1_hmac_provider,
            },
            _ => return None,
        })
    }
}

impl Srtp {
    /// `None` if the profile is not known or the material is not as long as it should be.
    pub fn new(crypto: &CryptoProvider, agreed: &Agreed) -> Option<Srtp> {
        let (key, salt) = match agreed.profile {
            SrtpProfile::AES128_CM_SHA1_80 => (Aes128CmSha1_80::KEY_LEN, Aes128CmSha1_80::SALT_LEN),
            SrtpProfile::AEAD_AES_128_GCM => (AeadAes128Gcm::KEY_LEN, AeadAes128Gcm::SALT_LEN),
            SrtpProfile::AEAD_AES_256_GCM => (AeadAes256Gcm::KEY_LEN, AeadAes256Gcm::SALT_LEN),
            _ => return None,
        };
        let (keys, salts) = agreed.material.split_at_checked(2 * key)?;
        let (client, server) = (
            Master { key: keys.get(..key)?, salt: salts.get(..salt)? },
            Master { key: keys.get(key..)?, salt: salts.get(salt..2 * salt)? },
        );
        let (ours, theirs) = if agreed.client { (client, server) } else { (server, client) };
        Some(Srtp {
            rtp: ours.key(crypto, agreed.profile, Use::Rtp, true)?,
            rtcp: ours.key(crypto, agreed.profile, Use::Rtcp, true)?,
            feedback: theirs.key(crypto, agreed.profile, Use::Rtcp, false)?,
            rtcp_index: 0,
            seen: Vec::new(),
        })
    }

    /// Bytes that [`Self::seal_rtp`] adds.
    pub fn overhead(&self) -> usize {
        match &self.rtp {
            Key::Gcm128 { .. } | Key::Gcm256 { .. } => AeadAes128Gcm::TAG_LEN,
            Key::Sha1 { .. } => Aes128CmSha1_80::HMAC_TAG_LEN,
        }
    }

    /// Writes a sealed packet to `out`, which is as long as `header`, `payload` and [`Self::overhead`] together.
    /// `index` is the 48-bit packet index, whose low 16 bits are the header's sequence number. False: `out` is not to
    /// be sent.
    pub fn seal_rtp(&mut self, header: &[u8], payload: &[u8], ssrc: u32, index: u64, out: &mut [u8]) -> bool {
        let Some((clear, sealed)) = out.split_at_mut_checked(header.len()) else { return false };
        clear.copy_from_slice(header);
        let (roc, sequence) = ((index >> 16) as u32, index as u16);
        match &mut self.rtp {
            Key::Gcm128 { salt, cipher } => {
                let iv = AeadAes128Gcm::rtp_iv(*salt, ssrc, roc, sequence);
                cipher.encrypt(&iv, header, payload, sealed).is_ok()
            }
            Key::Gcm256 { salt, cipher } => {
                let iv = AeadAes256Gcm::rtp_iv(*salt, ssrc, roc, sequence);
                cipher.encrypt(&iv, header, payload, sealed).is_ok()
            }
            Key::Sha1 { salt, auth, cipher, hmac } => {
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, index);
                if cipher.encrypt(&iv, payload, sealed).is_err() {
                    return false;
                }
                let signed = header.len() + payload.len();
                Aes128CmSha1_80::rtp_hmac(|key, data| hmac.sha1_hmac(key, data), auth, out, index, signed);
                true
            }
        }
    }

    /// Seals a compound RTCP packet.
    pub fn seal_rtcp(&mut self, plain: &[u8]) -> Option<Vec<u8>> {
        let (clear, payload) = plain.split_first_chunk::<RTCP_CLEAR>()?;
        let index = self.rtcp_index;
        // RFC 3711 §3.4: no more than 2^31 packets with one key. A packet a second takes 68 years.
        self.rtcp_index = index.checked_add(1).filter(|next| *next < ENCRYPTED)?;
        let ssrc = u32::from_be_bytes([clear[4], clear[5], clear[6], clear[7]]);
        let marked = (ENCRYPTED | index).to_be_bytes();
        let mut aad = [0; RTCP_CLEAR + INDEX];
        aad[..RTCP_CLEAR].copy_from_slice(clear);
        aad[RTCP_CLEAR..].copy_from_slice(&marked);
        let mut out = vec![0; plain.len() + AeadAes128Gcm::TAG_LEN];
        out[..RTCP_CLEAR].copy_from_slice(clear);
        match &mut self.rtcp {
            Key::Gcm128 { salt, cipher } => {
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, index);
                cipher.encrypt(&iv, &aad, payload, &mut out[RTCP_CLEAR..]).ok()?;
                out.extend_from_slice(&marked);
            }
            Key::Gcm256 { salt, cipher } => {
                let iv = AeadAes256Gcm::rtcp_iv(*salt, ssrc, index);
                cipher.encrypt(&iv, &aad, payload, &mut out[RTCP_CLEAR..]).ok()?;
                out.extend_from_slice(&marked);
            }
            Key::Sha1 { salt, auth, cipher, hmac } => {
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, u64::from(index));
                cipher.encrypt(&iv, payload, &mut out[RTCP_CLEAR..]).ok()?;
                out.truncate(plain.len());
                out.extend_from_slice(&marked);
                let tag = hmac.sha1_hmac(auth, &[&out]);
                out.extend_from_slice(tag.get(..Aes128CmSha1_80::HMAC_TAG_LEN)?);
            }
        }
        Some(out)
    }

    /// Opens a compound RTCP packet of the viewer's. `None` if it is not authentic, not encrypted, or was seen before.
    pub fn open_rtcp(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let clear = data.first_chunk::<RTCP_CLEAR>()?;
        let ssrc = u32::from_be_bytes([clear[4], clear[5], clear[6], clear[7]]);
        let tag_after_index = match &self.feedback {
            Key::Sha1 { .. } => Aes128CmSha1_80::HMAC_TAG_LEN,
            Key::Gcm128 { .. } | Key::Gcm256 { .. } => 0,
        };
        let (signed, tag) = data.split_at_checked(data.len().checked_sub(tag_after_index)?)?;
        let (before, marked) = signed.split_last_chunk::<INDEX>()?;
        let sealed = before.get(RTCP_CLEAR..)?;
        let index = u32::from_be_bytes(*marked).checked_sub(ENCRYPTED)?;
        let mut aad = [0; RTCP_CLEAR + INDEX];
        aad[..RTCP_CLEAR].copy_from_slice(clear);
        aad[RTCP_CLEAR..].copy_from_slice(marked);
        let tag_inside = AeadAes128Gcm::TAG_LEN;
        let mut out = clear.to_vec();
        match &mut self.feedback {
            Key::Gcm128 { salt, cipher } => {
                out.resize(before.len().checked_sub(tag_inside).filter(|len| *len >= RTCP_CLEAR)?, 0);
                let iv = AeadAes128Gcm::rtcp_iv(*salt, ssrc, index);
                cipher.decrypt(&iv, &[&aad], sealed, &mut out[RTCP_CLEAR..]).ok()?;
            }
            Key::Gcm256 { salt, cipher } => {
                out.resize(before.len().checked_sub(tag_inside).filter(|len| *len >= RTCP_CLEAR)?, 0);
                let iv = AeadAes256Gcm::rtcp_iv(*salt, ssrc, index);
                cipher.decrypt(&iv, &[&aad], sealed, &mut out[RTCP_CLEAR..]).ok()?;
            }
            Key::Sha1 { salt, auth, cipher, hmac } => {
                let sign = |key: &[u8], data: &[&[u8]]| hmac.sha1_hmac(key, data);
                if !Aes128CmSha1_80::rtcp_verify(sign, auth, signed, tag) {
                    return None;
                }
                out.resize(before.len(), 0);
                let iv = Aes128CmSha1_80::rtp_iv(*salt, ssrc, u64::from(index));
                cipher.decrypt(&iv, sealed, &mut out[RTCP_CLEAR..]).ok()?;
            }
        }
        self.is_new(ssrc, index).then_some(out)
    }

    /// Asked only of what is authentic.
    fn is_new(&mut self, ssrc: u32, index: u32) -> bool {
        if let Some((_, seen)) = self.seen.iter_mut().find(|(known, _)| *known == ssrc) {
            return seen.is_new(index);
        }
        // None is forgotten: what it sent could be played back then.
        let fits = self.seen.len() < MAX_REPORTERS;
        if fits {
            let mut seen = Replay::default();
            seen.is_new(index);
            self.seen.push((ssrc, seen));
        }
        fits
    }
}

/// Which of the newest 64 indices have come (RFC 3711 §3.3.2).
#[derive(Default)]
struct Replay {
    newest: Option<u32>,
    bits: u64,
}

impl Replay {
    fn is_new(&mut self, index: u32) -> bool {
        let Some(newest) = self.newest.filter(|newest| index <= *newest) else {
            let step = self.newest.map_or(64, |newest| index - newest);
            self.bits = self.bits.checked_shl(step).unwrap_or(0) | 1;
            self.newest = Some(index);
            return true;
        };
        let bit = 1u64.checked_shl(newest - index).unwrap_or(0);
        let new = bit != 0 && self.bits & bit == 0;
        self.bits |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILES: [SrtpProfile; 3] =
        [SrtpProfile::AES128_CM_SHA1_80, SrtpProfile::AEAD_AES_128_GCM, SrtpProfile::AEAD_AES_256_GCM];

    fn sides(profile: SrtpProfile) -> (Srtp, Srtp) {
        let crypto = str0m::crypto::from_feature_flags();
        let length = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => 60,
            SrtpProfile::AEAD_AES_128_GCM => 56,
            _ => 88,
        };
        let side = |client| {
            let agreed = Agreed { profile, material: (0..length).collect(), client };
            Srtp::new(&crypto, &agreed).unwrap()
        };
        (side(true), side(false))
    }

    #[test]
    fn keys_are_derived_as_in_rfc_3711_appendix_b_3() {
        let crypto = str0m::crypto::from_feature_flags();
        let key = 0xE1F9_7A0D_3E01_8BE0_D64F_A32C_06DE_4139u128.to_be_bytes();
        let salt = [0x0E, 0xC6, 0x75, 0xAD, 0x49, 0x8A, 0xFE, 0xEB, 0xB6, 0x96, 0x0B, 0x3A, 0xAB, 0xE6];
        let master = Master { key: &key, salt: &salt };
        let cipher: [u8; 16] = master.derive(&crypto, 0);
        assert_eq!(u128::from_be_bytes(cipher), 0xC61E_7A93_744F_39EE_1073_4AFE_3FF7_A087);
        let auth: [u8; 20] = master.derive(&crypto, 1);
        assert_eq!(auth[..8], 0xCEBE_321F_6FF7_716Bu64.to_be_bytes());
        assert_eq!(auth[16..], 0x6D38_BAA4u32.to_be_bytes());
        let session_salt: [u8; 14] = master.derive(&crypto, 2);
        assert_eq!(session_salt[..8], 0x30CB_BC08_863D_8C85u64.to_be_bytes());
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn media_is_sealed_as_in_the_vectors_of_rfc_7714_and_libsrtp() {
        let crypto = str0m::crypto::from_feature_flags();
        let (mut srtp, _) = sides(SrtpProfile::AEAD_AES_128_GCM);
        let salt = *b"Quid pro quo";
        let key: [u8; 16] = std::array::from_fn(|n| n as u8);
        srtp.rtp =
            Key::Gcm128 { salt, cipher: crypto.srtp_provider.aead_aes_128_gcm().create_cipher(key, true) };
        let header = bytes("8040f17b 8041f8d3 5501a0b2");
        let mut out = vec![0; 12 + 38 + srtp.overhead()];
        let text = b"Gallia est omnis divisa in partes tres";
        assert!(srtp.seal_rtp(&header, text, 0x5501_a0b2, 0xf17b, &mut out));
        let expected = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f \
                        42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
        assert_eq!(out, bytes(expected));

        let master = "e1f97a0d3e018be0d64fa32c06de4139 e1f97a0d3e018be0d64fa32c06de4139 \
                      0ec675ad498afeebb6960b3aabe6 0ec675ad498afeebb6960b3aabe6";
        let agreed =
            Agreed { profile: SrtpProfile::AES128_CM_SHA1_80, material: bytes(master), client: true };
        let mut srtp = Srtp::new(&crypto, &agreed).unwrap();
        let header = bytes("800f1234 decafbad cafebabe");
        let mut out = vec![0; 12 + 16 + srtp.overhead()];
        assert!(srtp.seal_rtp(&header, &[0xab; 16], 0xcafe_babe, 0x1234, &mut out));
        let expected = "800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb";
        assert_eq!(out, bytes(expected));
    }

    #[test]
    fn feedback_is_opened_once_and_only_as_it_was_sealed() {
        for profile in PROFILES {
            let (mut client, mut server) = sides(profile);
            let plain: Vec<u8> = [0x80, 201, 0, 1, 0, 0, 0, 7].into_iter().chain(0..40).collect();
            let sealed = client.seal_rtcp(&plain).unwrap();
            assert_eq!(sealed[..8], plain[..8]);
            for at in 0..sealed.len() {
                let mut bent = sealed.clone();
                bent[at] ^= 1;
                assert_eq!(server.open_rtcp(&bent), None, "{profile:?} byte {at}");
                assert_eq!(server.open_rtcp(&sealed[..at]), None);
            }
            assert_eq!(server.open_rtcp(&sealed).unwrap(), plain, "{profile:?}");
            assert_eq!(server.open_rtcp(&sealed), None, "seen before");
            assert_eq!(client.open_rtcp(&sealed), None, "each side has its own keys");
            let empty = client.seal_rtcp(&plain[..8]).unwrap();
            assert_eq!(server.open_rtcp(&empty).unwrap(), plain[..8]);
        }
    }

    #[test]
    fn each_reporter_counts_for_itself() {
        for profile in PROFILES {
            let (mut client, mut server) = sides(profile);
            let mut sealed = |ssrc: u8, index| {
                client.rtcp_index = index;
                client.seal_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, ssrc, 1, 2, 3, 4]).unwrap()
            };
            // As libsrtp does it: the reports of sound and those of pictures are each numbered from zero.
            for (ssrc, index) in [(1, 0), (2, 0), (1, 500), (2, 1), (2, 2)] {
                let report = sealed(ssrc, index);
                assert!(server.open_rtcp(&report).is_some(), "{profile:?} {ssrc} {index}");
                assert_eq!(server.open_rtcp(&report), None, "seen before");
            }
            for ssrc in 0..200 {
                server.open_rtcp(&sealed(ssrc, 7));
            }
            assert_eq!(server.seen.len(), MAX_REPORTERS);
            assert_eq!(server.open_rtcp(&sealed(1, 500)), None, "not forgotten");
        }
    }

    #[test]
    fn late_indices_are_taken_once() {
        let mut seen = Replay::default();
        let taken: Vec<bool> =
            [5, 3, 5, 3, 70, 6, 7, 6, 5, 200, 136, 137].map(|index| seen.is_new(index)).into();
        let expected = [true, true, false, false, true, false, true, false, false, true, false, true];
        assert_eq!(taken, expected, "6 is 64 behind 70, which is too old to tell");
    }

    #[test]
    fn material_of_the_wrong_length_is_refused() {
        let crypto = str0m::crypto::from_feature_flags();
        for profile in PROFILES {
            let agreed = Agreed { profile, material: vec![0; 40], client: true };
            assert!(Srtp::new(&crypto, &agreed).is_none());
        }
    }
}
