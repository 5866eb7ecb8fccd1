//! AAC (ISO/IEC 14496-3): AudioSpecificConfig.

use super::nal::{Bits, fmtp_value};
use super::track::Params;

/// Sampling rates by `samplingFrequencyIndex` (ISO/IEC 14496-3 table 1.18).
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// What an AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type as signalled first: 2 is AAC-LC, 5 is SBR (HE-AAC), 29 is PS (HE-AAC v2).
    pub object_type: u8,
    /// Sampling rate of the core coder in Hz. With SBR the decoder gives twice as much.
    pub sample_rate: u32,
    /// Channels of the core coder; 0 if they are told elsewhere (in a program config element).
    pub channels: u8,
    /// Samples per channel in one access unit, at `sample_rate`: 1024, rarely 960.
    pub frame_length: u16,
}

impl AudioSpecificConfig {
    /// Reads a configuration. `None` if it is too short or has a rate or channel configuration that doesn't exist.
    pub fn parse(config: &[u8]) -> Option<Self> {
        let mut bits = Bits::plain(config);
        let object_type = object_type(&mut bits)?;
        let sample_rate = sample_rate(&mut bits)?;
        let channels = match bits.u(4)? {
            count @ 0..=6 => u8::try_from(count).ok()?,
            7 | 12 | 14 => 8,
            11 => 7,
            _ => return None,
        };
        let mut core = object_type;
        if matches!(object_type, 5 | 29) {
            self::sample_rate(&mut bits)?;
            core = self::object_type(&mut bits)?;
        }
        let has_length_flag = matches!(core, 1..=4 | 6 | 7 | 17 | 19..=23);
        let short = has_length_flag && bits.bit().unwrap_or(false);
        Some(AudioSpecificConfig {
            object_type,
            sample_rate,
            channels,
            frame_length: if short { 960 } else { 1024 },
        })
    }

    /// AAC-LC with the given rate in Hz and channels, for cameras that send no configuration.
    pub fn lc(sample_rate: u32, channels: u8) -> Self {
        AudioSpecificConfig { object_type: 2, sample_rate, channels, frame_length: 1024 }
    }

    /// The configuration's bytes, for object types below 31 without extensions. `None` if there is no coding for it.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let channels = match self.channels {
            count @ 0..=6 => count,
            8 => 7,
            _ => return None,
        };
        if !(1..=4).contains(&self.object_type) || self.sample_rate >= 1 << 24 {
            return None;
        }
        let short = u64::from(self.frame_length == 960);
        let index = SAMPLE_RATES.iter().position(|rate| *rate == self.sample_rate);
        // Left-aligned in 64 bits: object type, rate, channels, then GASpecificConfig with its length flag.
        let mut coded = u64::from(self.object_type) << 59;
        Some(match index {
            Some(index) => {
                coded |= (index as u64) << 55 | u64::from(channels) << 51 | short << 50;
                coded.to_be_bytes()[..2].to_vec()
            }
            None => {
                coded |=
                    15 << 55 | u64::from(self.sample_rate) << 31 | u64::from(channels) << 27 | short << 26;
                coded.to_be_bytes()[..5].to_vec()
            }
        })
    }
}

fn object_type(bits: &mut Bits<'_>) -> Option<u8> {
    let code = match bits.u(5)? {
        31 => bits.u(6)? + 32,
        code => code,
    };
    u8::try_from(code).ok()
}

fn sample_rate(bits: &mut Bits<'_>) -> Option<u32> {
    let rate = match bits.u(4)? {
        15 => bits.u(24)?,
        index => *SAMPLE_RATES.get(index as usize)?,
    };
    (rate > 0).then_some(rate)
}

/// The configuration in an SDP `a=fmtp` value (RFC 3640 §4.1: `config`, hexadecimal). `None` if it is missing or
/// unreadable.
pub fn params_from_fmtp(fmtp: &str) -> Option<Params> {
    let text = fmtp_value(fmtp, "config")?.trim_matches('"').as_bytes();
    if text.len() > 128 || text.len() % 2 != 0 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let config: Option<Vec<u8>> =
        text.chunks_exact(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.last()?)?)).collect();
    let config = config?;
    AudioSpecificConfig::parse(&config)?;
    Some(Params::Aac { config: config.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn configurations_of_real_cameras() {
        let lc = |rate, channels| AudioSpecificConfig::lc(rate, channels);
        assert_eq!(AudioSpecificConfig::parse(&[0x14, 0x08]), Some(lc(16_000, 1)));
        assert_eq!(AudioSpecificConfig::parse(&[0x11, 0x90, 0x56, 0xe5, 0x00]), Some(lc(48_000, 2)));
        assert_eq!(AudioSpecificConfig::parse(&[0x15, 0x88]), Some(lc(8_000, 1)));
        // HE-AAC, signalled first: 24 kHz core, 48 kHz out.
        let he = AudioSpecificConfig::parse(&[0x2b, 0x11, 0x88, 0x00]);
        assert_eq!(he, Some(AudioSpecificConfig { object_type: 5, ..lc(24_000, 2) }));
        assert_eq!(AudioSpecificConfig::parse(&[0x11]), None);
        assert_eq!(AudioSpecificConfig::parse(&[0x16, 0xff]), None);
    }

    #[test]
    fn fmtp_of_a_camera() {
        let fmtp = "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3; config=1408";
        assert_eq!(params_from_fmtp(fmtp), Some(Params::Aac { config: [0x14, 0x08].as_slice().into() }));
        assert_eq!(
            params_from_fmtp("97 CONFIG=\"1190\""),
            Some(Params::Aac { config: [0x11, 0x90].as_slice().into() })
        );
        for broken in ["mode=AAC-hbr", "config=", "config=140", "config=14xx", "config=\u{e9}\u{e9}"] {
            assert_eq!(params_from_fmtp(broken), None, "{broken}");
        }
    }

    proptest! {
        #[test]
        fn built_configurations_read_back(rate in 1u32..1 << 24, channels in 0u8..=6, standard in 0usize..13, own: bool) {
            let config = AudioSpecificConfig::lc(if own { rate } else { SAMPLE_RATES[standard] }, channels);
            let bytes = config.to_bytes().expect("codable");
            prop_assert_eq!(AudioSpecificConfig::parse(&bytes), Some(config));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = AudioSpecificConfig::parse(&bytes);
            let _ = params_from_fmtp(&format!("config={}", String::from_utf8_lossy(&bytes)));
        }
    }
}
