//! JPEG over RTP (RFC 2435): a whole JPEG file from the payloads of a frame. What was coded is passed on untouched;
//! only the headers, which RTP leaves out, are made.

use std::sync::Arc;

/// Largest picture, in bytes of coded data.
const MAX_BYTES: usize = 8 << 20;
/// The main header (§3.1).
const HEADER: usize = 8;

/// Where a payload's data belongs in its frame; `None` for what is no payload of RFC 2435.
pub fn fragment_offset(payload: &[u8]) -> Option<usize> {
    match payload {
        [_, a, b, c, _, _, _, _, ..] => Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
        _ => None,
    }
}

/// Puts payloads together to JPEG files.
#[derive(Debug, Default)]
pub struct Assembler {
    frame: Option<Frame>,
    /// The last tables that were sent with a `Q` that stands for them from then on (§4.2).
    tables: Option<(u8, Tables)>,
}

/// A frame that is coming in.
#[derive(Debug)]
struct Frame {
    kind: u8,
    /// In blocks of eight.
    width: u8,
    height: u8,
    restart_interval: Option<u16>,
    tables: Tables,
    data: Vec<u8>,
}

/// Quantization tables in zigzag order, as in `DQT`: the first is for luma, the last for chroma.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tables(Vec<(Precision, Arc<[u8]>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Bits8,
    Bits16,
}

impl Assembler {
    /// Takes the next payload of a frame; `starts` with its first. False if it doesn't fit: the frame is lost.
    pub fn push(&mut self, payload: &[u8], starts: bool) -> bool {
        if starts {
            self.frame = None;
        }
        let added = self.add(payload, starts).is_some();
        if !added {
            self.frame = None;
        }
        added
    }

    fn add(&mut self, payload: &[u8], starts: bool) -> Option<()> {
        let offset = fragment_offset(payload)?;
        let [_, _, _, _, kind, q, width, height] = *payload.first_chunk::<HEADER>()?;
        let mut rest = payload.get(HEADER..)?;
        // §3.1.7: types from 64 to 127 have a restart marker header.
        let restart_interval = match kind {
            0..=63 => None,
            64..=127 => {
                let [high, low, ..] = *take::<4>(&mut rest)?;
                Some(u16::from_be_bytes([high, low]))
            }
            _ => return None,
        };
        if starts {
            // Zero is for pictures larger than 2040 pixels, whose size is told in ways of each vendor's own.
            if offset != 0 || kind & 63 > 1 || width == 0 || height == 0 {
                return None;
            }
            let tables = self.tables(q, &mut rest)?;
            self.frame = Some(Frame { kind, width, height, restart_interval, tables, data: Vec::new() });
        }
        let frame = self.frame.as_mut()?;
        let fits = (frame.kind, frame.width, frame.height) == (kind, width, height)
            && frame.data.len() == offset
            && offset + rest.len() <= MAX_BYTES;
        fits.then(|| frame.data.extend_from_slice(rest))
    }

    /// §4.2. A quantization table header is there for a `Q` above 127, and only in the first payload.
    fn tables(&mut self, q: u8, rest: &mut &[u8]) -> Option<Tables> {
        if q < 128 {
            return (q > 0).then(|| standard_tables(q));
        }
        let [_, precisions, high, low] = *take::<4>(rest)?;
        let (data, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        *rest = after;
        if data.is_empty() {
            return self.tables.as_ref().filter(|(known, _)| *known == q && q < 255).map(|(_, t)| t.clone());
        }
        let (mut left, mut tables) = (data, Vec::new());
        for index in 0..2 {
            let precision = if precisions >> index & 1 == 1 { Precision::Bits16 } else { Precision::Bits8 };
            let size = if precision == Precision::Bits16 { 128 } else { 64 };
            if let Some((table, after)) = left.split_at_checked(size) {
                tables.push((precision, Arc::from(table)));
                left = after;
            }
        }
        let tables = Some(Tables(tables)).filter(|tables| !tables.0.is_empty())?;
        self.tables = Some((q, tables.clone()));
        Some(tables)
    }

    /// The frame is complete: the file.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let frame = self.frame.take().filter(|frame| !frame.data.is_empty())?;
        let mut file = Vec::with_capacity(700 + frame.data.len());
        file.extend_from_slice(&[0xff, 0xd8]);
        segment(&mut file, 0xe0, &[b"JFIF\0", &[1, 1, 0, 0, 1, 0, 1, 0, 0]]);
        let luma = frame.tables.0.first()?;
        let chroma = frame.tables.0.last()?;
        for (id, (precision, table)) in [(0, luma), (1, chroma)] {
            let precision = if *precision == Precision::Bits16 { 0x10 } else { 0 };
            segment(&mut file, 0xdb, &[&[precision | id], table]);
        }
        if let Some(interval) = frame.restart_interval {
            segment(&mut file, 0xdd, &[&interval.to_be_bytes()]);
        }
        let [height, width] = [frame.height, frame.width].map(|blocks| (u16::from(blocks) * 8).to_be_bytes());
        // §4.1: type 0 has its chroma at half the width, type 1 at half the height as well.
        let sampling = if frame.kind & 63 == 0 { 0x21 } else { 0x22 };
        segment(&mut file, 0xc0, &[&[8], &height, &width, &[3, 1, sampling, 0, 2, 0x11, 1, 3, 0x11, 1]]);
        for (id, table) in [(0x00, DC_LUMA), (0x10, AC_LUMA), (0x01, DC_CHROMA), (0x11, AC_CHROMA)] {
            segment(&mut file, 0xc4, &[&[id], table]);
        }
        segment(&mut file, 0xda, &[&[3, 1, 0x00, 2, 0x11, 3, 0x11, 0, 63, 0]]);
        file.extend_from_slice(&frame.data);
        if !frame.data.ends_with(&[0xff, 0xd9]) {
            file.extend_from_slice(&[0xff, 0xd9]);
        }
        Some(file)
    }
}

/// Splits off the first bytes.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(taken)
}

/// A marker segment: all of them are far shorter than 64 KiB.
fn segment(file: &mut Vec<u8>, marker: u8, parts: &[&[u8]]) {
    let length: usize = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    file.extend_from_slice(&[0xff, marker]);
    file.extend_from_slice(&(length as u16).to_be_bytes());
    parts.iter().for_each(|part| file.extend_from_slice(part));
}

/// Appendix A: the example tables of ITU-T T.81 K.1, scaled by the quality.
fn standard_tables(q: u8) -> Tables {
    let q = u32::from(q.clamp(1, 99));
    let scale = if q < 50 { 5000 / q } else { 200 - q * 2 };
    let scaled = |base: &[u8; 64]| {
        let table = base.map(|value| ((u32::from(value) * scale + 50) / 100).clamp(1, 255) as u8);
        (Precision::Bits8, Arc::from(table))
    };
    Tables(vec![scaled(&QUANT_LUMA), scaled(&QUANT_CHROMA)])
}

/// Table K.1, in zigzag order.
#[rustfmt::skip]
const QUANT_LUMA: [u8; 64] = [
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
];

/// Table K.2, in zigzag order.
#[rustfmt::skip]
const QUANT_CHROMA: [u8; 64] = [
    17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
];

/// Table K.3: how many codes of each length, then their values.
#[rustfmt::skip]
const DC_LUMA: &[u8] = &[
    0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b,
];
/// Table K.5.
#[rustfmt::skip]
const AC_LUMA: &[u8] = &[
    0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03, 0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01, 0x7d,
    0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07,
    0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0,
    0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49,
    0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69,
    0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89,
    0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7,
    0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5,
    0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];
/// Table K.4.
#[rustfmt::skip]
const DC_CHROMA: &[u8] = &[
    0x00, 0x03, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b,
];
/// Table K.6.
#[rustfmt::skip]
const AC_CHROMA: &[u8] = &[
    0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07, 0x05, 0x04, 0x04, 0x00, 0x01, 0x02, 0x77,
    0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71,
    0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0,
    0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26,
    0x27, 0x28, 0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68,
    0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87,
    0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5,
    0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
    0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
    0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    0xf9, 0xfa,
];

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
