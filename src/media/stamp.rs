//! A time stamp in a frame: an H.264 SEI message (ITU-T H.264 §D.1.7, user data unregistered) that says when the frame was
//! sent. Rehearsal cameras write it, and load generators read from it how long a frame was on its way.

use super::nal::length_prefixed_nals;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells our message from others' (§D.2.7). Without zeros, so that nothing needs emulation prevention.
const UUID: [u8; 16] =
    [0x8c, 0x1f, 0x5a, 0x27, 0xd3, 0x6b, 0x4e, 0x91, 0xb2, 0x75, 0xe4, 0x39, 0xac, 0x58, 0x6d, 0xf3];
/// 64 bits, seven in a byte.
const DIGITS: usize = 10;
/// NAL header, payload type, payload size, UUID, digits, trailing bits.
const SEI_LEN: usize = 3 + UUID.len() + DIGITS + 1;
/// NAL header of an SEI, user data unregistered, and its size.
const HEAD: [u8; 3] = [6, 5, (UUID.len() + DIGITS) as u8];

/// The NAL unit that says `time`, in microseconds since 1970. Always equally long.
pub fn sei(time: SystemTime) -> [u8; SEI_LEN] {
    let micros = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let mut nal = [0x80; SEI_LEN];
    let digits = (0..DIGITS).rev().map(|digit| 0x80 | (micros >> (7 * digit) & 0x7f) as u8);
    let content = HEAD.into_iter().chain(UUID).chain(digits);
    nal.iter_mut().zip(content).for_each(|(byte, value)| *byte = value);
    nal
}

/// The stamp of an access unit, its NAL units behind their lengths.
pub fn of_frame(data: &[u8]) -> Option<SystemTime> {
    length_prefixed_nals(data).find_map(|nal| digits(nal.strip_prefix(&HEAD)?.strip_prefix(&UUID)?))
}

/// The last stamp somewhere in some bytes, e.g. in a fragment of a file.
pub fn last_in(bytes: &[u8]) -> Option<SystemTime> {
    let at = bytes.windows(UUID.len()).rposition(|window| window == UUID)?;
    digits(bytes.get(at + UUID.len()..)?)
}

fn digits(bytes: &[u8]) -> Option<SystemTime> {
    let micros = bytes
        .get(..DIGITS)?
        .iter()
        .try_fold(0_u64, |value, byte| (byte & 0x80 != 0).then_some(value << 7 | u64::from(byte & 0x7f)))?;
    UNIX_EPOCH.checked_add(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_stamped_is_read(micros in 0..u64::MAX / 2) {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            let nal = sei(time);
            // Nothing that a start code could be seen in (H.264 §7.4.1).
            prop_assert!(!nal.windows(2).any(|pair| pair == [0, 0]));
            let frame = [&[0, 0, 0, 2, 0x41, 9, 0, 0, 0, SEI_LEN as u8][..], &nal].concat();
            prop_assert_eq!(of_frame(&frame), Some(time));
            prop_assert_eq!(last_in(&frame), Some(time));
            prop_assert_eq!(of_frame(&frame[..frame.len() - 2]), None);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80), before: bool) {
            let bytes = if before { [&UUID[..], &bytes].concat() } else { bytes };
            let _ = (of_frame(&bytes), last_in(&bytes));
        }
    }
}
