//! NAL units: how they are delimited, and the bits inside.

/// The NAL units of an Annex B byte stream (ITU-T H.264 and H.265, Annex B), without start codes and trailing zeros.
/// Bytes before the first start code are skipped.
pub fn annex_b_nals(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        loop {
            let current = rest?;
            let end =
                current.windows(3).position(|bytes| matches!(bytes, [0, 0, 0 | 1])).unwrap_or(current.len());
            let (nal, tail) = current.split_at(end);
            rest = after_start_code(tail);
            let nal = trim_zeros(nal);
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    })
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    let start = stream.windows(3).position(|bytes| bytes == [0, 0, 1])?;
    stream.get(start + 3..)
}

pub(crate) fn trim_zeros(mut nal: &[u8]) -> &[u8] {
    while let [head @ .., 0] = nal {
        nal = head;
    }
    nal
}

/// The NAL units of a [`Frame`](super::Frame): each behind its length in four bytes, big endian. Ends early where a
/// length runs over the end; empty units are skipped.
pub fn length_prefixed_nals(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        loop {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let nal = after.get(..length)?;
            rest = after.get(length..)?;
            if !nal.is_empty() {
                return Some(nal);
            }
        }
    })
}

/// Reads bits of a raw byte sequence payload: emulation prevention bytes are skipped (H.264 §7.4.1.1,
/// H.265 §7.4.2.3). Every read gives `None` at the end of the data.
#[derive(Debug, Clone)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    current: u8,
    left: u8,
    zeros: u8,
    escaped: bool,
}

impl<'a> Bits<'a> {
    /// `payload`: a NAL unit behind its header.
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Bits { bytes: payload, current: 0, left: 0, zeros: 0, escaped: true }
    }

    /// For data that has no emulation prevention.
    pub(crate) fn plain(bytes: &'a [u8]) -> Self {
        Bits { escaped: false, ..Self::new(bytes) }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        if self.escaped && self.zeros >= 2 && byte == 3 {
            self.zeros = 0;
            return self.next_byte();
        }
        self.zeros = if byte == 0 { self.zeros.saturating_add(1) } else { 0 };
        Some(byte)
    }

    pub(crate) fn bit(&mut self) -> Option<bool> {
        if self.left == 0 {
            self.current = self.next_byte()?;
            self.left = 8;
        }
        self.left -= 1;
        Some(self.current >> self.left & 1 == 1)
    }

    /// `u(count)` with at most 32 bits.
    pub(crate) fn u(&mut self, count: u32) -> Option<u32> {
        let mut value = 0u32;
        for _ in 0..count {
            value = value << 1 | u32::from(self.bit()?);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.bit()?;
        }
        Some(())
    }

    /// `ue(v)` (H.264 §9.1).
    pub(crate) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.u(zeros)?)
    }

    /// `ue(v)`, if it is no more than `most`.
    pub(crate) fn ue_up_to(&mut self, most: u32) -> Option<u32> {
        self.ue().filter(|value| *value <= most)
    }

    /// `se(v)` (H.264 §9.1.1).
    pub(crate) fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) })
    }
}

/// The parts of the VUI that H.264 (§E.1.1) and H.265 (§E.2.1) begin with: aspect ratio, overscan, video signal type
/// and chroma location are skipped.
pub(crate) fn skip_vui_start(bits: &mut Bits<'_>) -> Option<()> {
    if bits.bit()? && bits.u(8)? == 255 {
        bits.skip(32)?;
    }
    if bits.bit()? {
        bits.skip(1)?;
    }
    if bits.bit()? {
        bits.skip(4)?;
        if bits.bit()? {
            bits.skip(24)?;
        }
    }
    if bits.bit()? {
        bits.ue()?;
        bits.ue()?;
    }
    Some(())
}

/// `a × b − cut`, in pixels; `None` for nothing left or sizes that no decoder takes.
pub(crate) fn pixels(coded: u32, unit: u32, crop: (u32, u32)) -> Option<u32> {
    let cut = crop.0.checked_add(crop.1)?.checked_mul(unit)?;
    coded.checked_sub(cut).filter(|size| (1..=65_536).contains(size))
}

/// One value of an SDP `a=fmtp` line, found by its case-insensitive key. Spaces around it and the payload type in
/// front are tolerated.
pub(crate) fn fmtp_value<'a>(fmtp: &'a str, key: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let name = name.split_whitespace().next_back()?;
        name.eq_ignore_ascii_case(key).then(|| value.trim())
    })
}

/// Largest parameter set that is believed, in bytes. Real ones are well below.
pub(crate) const MAX_PARAMETER_SET: usize = 4096;

/// The NAL units in a `sprop-…` value: base64, separated by commas, padded or not; some cameras put spaces in or Annex B
/// start codes around them.
pub(crate) fn sprop_nals(value: &str) -> Vec<Vec<u8>> {
    use base64::Engine;
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let mut nals = Vec::new();
    for part in value.split(',').take(16) {
        let mut text: String = part.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
        text.truncate(text.trim_end_matches('=').len());
        let Ok(bytes) = LENIENT.decode(text) else { continue };
        if bytes.len() > MAX_PARAMETER_SET {
            continue;
        }
        if matches!(bytes.as_slice(), [0, 0, 1, ..] | [0, 0, 0, 1, ..]) {
            nals.extend(annex_b_nals(&bytes).map(<[u8]>::to_vec));
        } else if !bytes.is_empty() {
            nals.push(trim_zeros(&bytes).to_vec());
        }
    }
    nals
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn annex_b_is_split_at_both_kinds_of_start_code() {
        let stream = [9, 0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x68, 2, 0, 0, 0, 0, 1, 0x65, 0, 3, 0, 0];
        assert_eq!(annex_b_nals(&stream).collect::<Vec<_>>(), [&[0x67, 1][..], &[0x68, 2], &[0x65, 0, 3]]);
        assert_eq!(annex_b_nals(&[1, 2, 3]).count(), 0);
    }

    #[test]
    fn lengths_that_lie_end_the_iteration() {
        let data = [0, 0, 0, 2, 0x41, 1, 0, 0, 0, 0, 0, 0, 0, 9, 1];
        assert_eq!(length_prefixed_nals(&data).collect::<Vec<_>>(), [&[0x41, 1][..]]);
    }

    #[test]
    fn emulation_prevention_is_skipped() {
        let mut bits = Bits::new(&[0, 0, 3, 1, 0, 0, 3]);
        assert_eq!(bits.u(24), Some(1));
        assert_eq!(bits.u(16), Some(0));
        assert_eq!(bits.bit(), None);
    }

    #[test]
    fn exponential_golomb_codes() {
        let mut bits = Bits::new(&[0b1010_0110, 0b0100_0010, 0b1000_0000]);
        assert_eq!([bits.ue(), bits.ue(), bits.ue(), bits.ue()], [Some(0), Some(1), Some(2), Some(3)]);
        assert_eq!(bits.se(), Some(-2));
        assert_eq!(Bits::new(&[0; 8]).ue(), None);
    }

    proptest! {
        #[test]
        fn annex_b_gives_back_what_was_joined(
            nals in proptest::collection::vec(proptest::collection::vec(1u8.., 1..20), 0..6), long: bool,
        ) {
            let mut stream = Vec::new();
            for nal in &nals {
                stream.extend_from_slice(if long { &[0, 0, 0, 1] } else { &[0, 0, 1] });
                stream.extend_from_slice(nal);
            }
            prop_assert_eq!(annex_b_nals(&stream).map(<[u8]>::to_vec).collect::<Vec<_>>(), nals);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = annex_b_nals(&bytes).count();
            let _ = length_prefixed_nals(&bytes).count();
            let _ = sprop_nals(&String::from_utf8_lossy(&bytes));
        }
    }
}
