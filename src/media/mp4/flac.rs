//! G.711 as FLAC (RFC 9639): browsers play no A-law or µ-law in MP4, and FLAC loses nothing.

use mp4_atom::{Dfla, FlacMetadataBlock};

/// Samples of a block at most (§7: what every decoder takes at rates up to 48 kHz).
pub const MAX_BLOCK: usize = 4608;
/// Samples of a block at least (§9.1).
pub const MIN_BLOCK: usize = 16;
const MAX_RICE: u32 = 14;

/// The STREAMINFO block (§8.2) of 16-bit sound.
pub fn configuration(rate: u32, channels: u8) -> Dfla {
    Dfla {
        blocks: vec![FlacMetadataBlock::StreamInfo {
            minimum_block_size: MIN_BLOCK as u16,
            maximum_block_size: MAX_BLOCK as u16,
            minimum_frame_size: [0; 3].into(),
            maximum_frame_size: [0; 3].into(),
            sample_rate: rate,
            num_channels_minus_one: channels.clamp(1, 8) - 1,
            bits_per_sample_minus_one: 15,
            number_of_interchannel_samples: 0,
            md5_checksum: vec![0; 16],
        }],
    }
}

/// One A-law byte as 16-bit sample (ITU-T G.711).
pub fn alaw(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let mantissa = i16::from(byte & 0x0f) << 4;
    let magnitude = match byte >> 4 & 7 {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    if byte & 0x80 != 0 { magnitude } else { -magnitude }
}

/// One µ-law byte as 16-bit sample (ITU-T G.711).
pub fn ulaw(byte: u8) -> i16 {
    let byte = !byte;
    let magnitude = (((i16::from(byte & 0x0f) << 3) + 0x84) << (byte >> 4 & 7)) - 0x84;
    if byte & 0x80 != 0 { -magnitude } else { magnitude }
}

/// Encodes blocks of a stream, each a frame of its own.
#[derive(Debug)]
pub struct Encoder {
    rate: u32,
    channels: usize,
    /// Number of the next sample: frames say where they are.
    position: u64,
}

impl Encoder {
    /// For 16-bit sound with interleaved channels.
    pub fn new(rate: u32, channels: u8) -> Encoder {
        Encoder { rate, channels: usize::from(channels.clamp(1, 8)), position: 0 }
    }

    /// One frame (§9). `samples` holds [`MIN_BLOCK`] to [`MAX_BLOCK`] samples of each channel, interleaved.
    pub fn frame(&mut self, samples: &[i16]) -> Vec<u8> {
        let size = (samples.len() / self.channels).min(MAX_BLOCK);
        let mut out = BitWriter::new(size * self.channels * 2 + 32);
        // Sync code, variable block size: 11111111 11111001.
        out.put(0xfff9, 16);
        out.put(0b0111, 4); // the block size follows in 16 bits
        out.put(rate_code(self.rate), 4);
        out.put(self.channels as u32 - 1, 4);
        out.put(0b100, 3); // 16 bits a sample
        out.put(0, 1);
        put_number(&mut out, self.position & 0xf_ffff_ffff);
        out.put((size.max(1) - 1) as u32, 16);
        let crc = crc8(&out.bytes);
        out.put(u32::from(crc), 8);
        for channel in 0..self.channels {
            let samples: Vec<i32> = samples
                .iter()
                .skip(channel)
                .step_by(self.channels)
                .take(size)
                .map(|s| i32::from(*s))
                .collect();
            subframe(&mut out, &samples);
        }
        out.align();
        let crc = crc16(&out.bytes);
        out.put(u32::from(crc), 16);
        self.position += size as u64;
        out.bytes
    }
}

/// §9.1.2; 0 is "as STREAMINFO says".
fn rate_code(rate: u32) -> u32 {
    match rate {
        8_000 => 4,
        16_000 => 5,
        22_050 => 6,
        24_000 => 7,
        32_000 => 8,
        44_100 => 9,
        48_000 => 10,
        _ => 0,
    }
}

/// §9.1.5: like UTF-8, for up to 36 bits.
fn put_number(out: &mut BitWriter, number: u64) {
    if number < 0x80 {
        return out.put(number as u32, 8);
    }
    let bits = 64 - number.leading_zeros();
    // A sequence of n bytes carries 5n + 1 bits.
    let length = (2..=7).find(|n| bits <= 5 * n + 1).unwrap_or(7);
    let lead = 0xffu32 << (8 - length) & 0xff;
    out.put(lead | (number >> (6 * (length - 1))) as u32 & 0x7f, 8);
    for index in (0..length - 1).rev() {
        out.put(0x80 | (number >> (6 * index)) as u32 & 0x3f, 8);
    }
}

/// One channel (§9.2): the fixed predictor that fits best, or the samples as they are. G.711 leaves low bits unused,
/// which cost nothing as "wasted bits" (§9.2.2).
fn subframe(out: &mut BitWriter, samples: &[i32]) {
    let wasted = samples.iter().fold(0, |bits, sample| bits | sample).trailing_zeros().min(15);
    let all_zero = samples.iter().all(|sample| *sample == 0);
    let wasted = if all_zero { 0 } else { wasted };
    let samples: Vec<i32> = samples.iter().map(|sample| sample >> wasted).collect();
    let depth = 16 - wasted;
    let (order, residual) = best_prediction(&samples);
    let rice = rice_parameter(&residual);
    let coded = order as u32 * depth + 10 + rice_bits(&residual, rice);
    let verbatim = samples.len() as u32 * depth;
    let kind = if all_zero {
        0
    } else if coded < verbatim {
        8 + order as u32
    } else {
        1
    };
    out.put(kind << 1 | u32::from(wasted > 0), 8);
    if wasted > 0 {
        out.put(1, wasted);
    }
    match kind {
        0 => out.put(0, depth),
        1 => samples.iter().for_each(|sample| out.put_signed(*sample, depth)),
        _ => {
            samples.iter().take(order).for_each(|sample| out.put_signed(*sample, depth));
            // Rice coding with 4-bit parameters, one partition (§9.2.7).
            out.put(0, 6);
            out.put(rice, 4);
            for value in &residual {
                let folded = fold(*value);
                out.put_zeros(folded >> rice);
                out.put(1, 1);
                out.put(folded & ((1 << rice) - 1), rice);
            }
        }
    }
}

/// The order of the fixed predictor (§9.2.5) with the smallest residual, and that residual.
fn best_prediction(samples: &[i32]) -> (usize, Vec<i32>) {
    let cost = |residual: &[i32]| residual.iter().map(|value| u64::from(value.unsigned_abs())).sum::<u64>();
    let mut best = (0, samples.to_vec());
    let mut least = cost(samples);
    let mut current = samples.to_vec();
    for order in 1..=4usize {
        if current.len() < 2 {
            break;
        }
        current = current
            .windows(2)
            .map(|pair| pair.iter().rev().copied().reduce(|a, b| a - b).unwrap_or(0))
            .collect();
        let this = cost(&current);
        if this < least {
            least = this;
            best = (order, current.clone());
        }
    }
    best
}

fn fold(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

fn rice_parameter(residual: &[i32]) -> u32 {
    (0..=MAX_RICE).min_by_key(|rice| rice_bits(residual, *rice)).unwrap_or(0)
}

fn rice_bits(residual: &[i32], rice: u32) -> u32 {
    residual.iter().map(|value| (fold(*value) >> rice) + 1 + rice).sum()
}

struct BitWriter {
    bytes: Vec<u8>,
    current: u64,
    filled: u32,
}

impl BitWriter {
    fn new(capacity: usize) -> BitWriter {
        BitWriter { bytes: Vec::with_capacity(capacity), current: 0, filled: 0 }
    }

    /// The low `count` bits, at most 32.
    fn put(&mut self, value: u32, count: u32) {
        let mask = (1u64 << count) - 1;
        self.current = self.current << count | u64::from(value) & mask;
        self.filled += count;
        while self.filled >= 8 {
            self.filled -= 8;
            self.bytes.push((self.current >> self.filled) as u8);
        }
    }

    fn put_signed(&mut self, value: i32, count: u32) {
        self.put(value as u32, count);
    }

    fn put_zeros(&mut self, mut count: u32) {
        while count > 0 {
            let now = count.min(32);
            self.put(0, now);
            count -= now;
        }
    }

    fn align(&mut self) {
        if self.filled > 0 {
            self.put(0, 8 - self.filled);
        }
    }
}

/// Polynomial 0x07 (§9.1.8).
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 0x80 != 0 { crc << 1 ^ 0x07 } else { crc << 1 })
    })
}

/// Polynomial 0x8005 (§9.3).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte) << 8,
            |crc: u16, _| {
                if crc & 0x8000 != 0 { crc << 1 ^ 0x8005 } else { crc << 1 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn g711_is_decoded_as_the_standard_says() {
        // Silence, the largest values and their signs.
        assert_eq!((alaw(0xd5), alaw(0x55)), (8, -8));
        assert_eq!((alaw(0xaa), alaw(0x2a)), (32_256, -32_256));
        assert_eq!((ulaw(0xff), ulaw(0x7f)), (0, 0));
        assert_eq!((ulaw(0x80), ulaw(0x00)), (32_124, -32_124));
    }

    /// A whole `.flac` file, decoded by ffmpeg: the judge is not our own reader.
    fn decoded_by_ffmpeg(blocks: &[Vec<i16>], channels: u8) -> Vec<i16> {
        let mut file = b"fLaC\x80\x00\x00\x22".to_vec();
        file.extend([0, 16, 0x12, 0, 0, 0, 0, 0, 0, 0]);
        let packed = 8000u64 << 44 | u64::from(channels - 1) << 41 | 15 << 36;
        file.extend(packed.to_be_bytes());
        file.extend([0; 16]);
        let mut encoder = Encoder::new(8000, channels);
        for block in blocks {
            file.extend(encoder.frame(block));
        }
        let mut ffmpeg = Command::new("ffmpeg")
            .args(["-loglevel", "warning", "-f", "flac", "-i", "-", "-f", "s16le", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = ffmpeg.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(&file));
        let output = ffmpeg.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        output.stdout.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn what_was_encoded_is_decoded_bit_by_bit() {
        let noise = |n: usize| (n as u32).wrapping_mul(2_654_435_761).rotate_left(11) as u8;
        let tone = |n: usize| ((n as f64 / 7.0).sin() * 9000.0) as i16 & !7;
        let blocks: Vec<Vec<i16>> = vec![
            (0..160).map(|n| alaw(noise(n))).collect(),
            (0..160).map(|n| ulaw(noise(n))).collect(),
            (0..MAX_BLOCK).map(tone).collect(),
            vec![0; 160],
            vec![-8; 160],
            (0..MIN_BLOCK).map(|n| if n % 2 == 0 { i16::MAX } else { i16::MIN }).collect(),
        ];
        assert_eq!(decoded_by_ffmpeg(&blocks, 1), blocks.concat());
        let stereo: Vec<Vec<i16>> = (0..40).map(|_| (0..640).map(tone).collect()).collect();
        assert_eq!(decoded_by_ffmpeg(&stereo, 2), stereo.concat());
    }

    #[test]
    fn speech_like_sound_gets_smaller() {
        let samples: Vec<i16> = (0..800).map(|n| ((n as f64 / 40.0).sin() * 2000.0) as i16 & !7).collect();
        assert!(Encoder::new(8000, 1).frame(&samples).len() < 800);
    }

    #[test]
    fn numbers_are_coded_like_utf8() {
        for (number, bytes) in [
            (0x7f, &[0x7f][..]),
            (0x80, &[0xc2, 0x80]),
            (0x7ff, &[0xdf, 0xbf]),
            (0x800, &[0xe0, 0xa0, 0x80]),
            (0xf_ffff_ffff, &[0xfe, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf]),
        ] {
            let mut out = BitWriter::new(8);
            put_number(&mut out, number);
            assert_eq!(out.bytes, bytes, "{number:x}");
        }
    }
}
