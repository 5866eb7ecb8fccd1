//! Loss, repetition and order, from sequence numbers alone. Pure code.

/// How far back a late packet is recognized.
const WINDOW: u16 = 64;

/// What a packet is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Newer than all, with so many left out before it.
    Next { missing: u16 },
    /// Older than the newest: it had been counted as missing.
    Late,
    /// It had come before, or is too old to know.
    Again,
}

/// One RTP stream's sequence numbers (RFC 3550 §A.1).
#[derive(Debug, Default)]
pub struct Sequence {
    newest: Option<u16>,
    /// Bit `n`: `newest - n` has come.
    came: u64,
}

impl Sequence {
    /// Takes the next packet's number.
    pub fn push(&mut self, number: u16) -> Seen {
        let Some(newest) = self.newest else {
            (self.newest, self.came) = (Some(number), u64::MAX);
            return Seen::Next { missing: 0 };
        };
        let ahead = number.wrapping_sub(newest);
        if (1..0x8000).contains(&ahead) {
            self.came = self.came.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            self.newest = Some(number);
            return Seen::Next { missing: ahead - 1 };
        }
        let behind = newest.wrapping_sub(number);
        if behind >= WINDOW || self.came & 1 << behind != 0 {
            return Seen::Again;
        }
        self.came |= 1 << behind;
        Seen::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_ones_and_repetitions_are_told_apart() {
        let mut sequence = Sequence::default();
        let cases = [
            (65_534, Seen::Next { missing: 0 }),
            (65_533, Seen::Again),
            (65_535, Seen::Next { missing: 0 }),
            (2, Seen::Next { missing: 2 }),
            (1, Seen::Late),
            (1, Seen::Again),
            (0, Seen::Late),
            (2, Seen::Again),
            (1002, Seen::Next { missing: 999 }),
            (2, Seen::Again),
            (1001, Seen::Late),
        ];
        for (number, seen) in cases {
            assert_eq!(sequence.push(number), seen, "{number}");
        }
    }
}
