//! Tests of [`super`].

use super::*;

/// A payload: fragment offset, type, Q, then what follows the main header of an 64×48 picture.
fn payload(offset: u32, kind: u8, q: u8, rest: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = offset.to_be_bytes();
    [&[0, a, b, c, kind, q, 8, 6], rest].concat()
}

/// The segments of a file up to the coded data, by marker.
fn segments(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    assert_eq!(file[..2], [0xff, 0xd8]);
    let (mut at, mut found) = (2, Vec::new());
    loop {
        let length = usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        found.push((file[at + 1], file[at + 4..at + 2 + length].to_vec()));
        at += 2 + length;
        if found.last().unwrap().0 == 0xda {
            found.push((0, file[at..].to_vec()));
            return found;
        }
    }
}

fn only(segments: &[(u8, Vec<u8>)], marker: u8) -> Vec<Vec<u8>> {
    segments.iter().filter(|(m, _)| *m == marker).map(|(_, body)| body.clone()).collect()
}

#[test]
fn a_frame_of_several_payloads_becomes_a_file_with_its_data_untouched() {
    let mut assembler = Assembler::default();
    assert!(assembler.push(&payload(0, 1, 50, b"coded "), true));
    assert!(assembler.push(&payload(6, 1, 50, b"data"), false));
    let file = segments(&assembler.finish().unwrap());
    assert_eq!(only(&file, 0), [b"coded data\xff\xd9".to_vec()]);
    // Quality 50 is the tables of the standard themselves.
    assert_eq!(only(&file, 0xdb), [[&[0], &QUANT_LUMA[..]].concat(), [&[1], &QUANT_CHROMA[..]].concat()]);
    assert_eq!(only(&file, 0xc0), [[8, 0, 48, 0, 64, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]]);
    assert_eq!(only(&file, 0xc4).iter().map(Vec::len).collect::<Vec<_>>(), [29, 179, 29, 179]);
    assert!(only(&file, 0xdd).is_empty());
    assert_eq!(assembler.finish(), None, "it is handed out once");
}

#[test]
fn restart_intervals_and_tables_in_the_stream_are_kept() {
    let mut assembler = Assembler::default();
    let (luma, chroma) = ([3u8; 64], [5u8; 128]);
    let sent = [&[0, 4, 0xff, 0xff][..], &[0, 0b10, 0, 192], &luma, &chroma, b"one"].concat();
    assert!(assembler.push(&payload(0, 64, 200, &sent), true));
    let file = segments(&assembler.finish().unwrap());
    assert_eq!(only(&file, 0xdd), [[0, 4]]);
    assert_eq!(only(&file, 0xdb), [[&[0][..], &luma].concat(), [&[0x11][..], &chroma].concat()]);
    assert_eq!(only(&file, 0xc0)[0][7], 0x21);
    // The same Q without tables stands for them (§4.2); another one for nothing.
    let without = [&[0, 4, 0xff, 0xff][..], &[0, 0, 0, 0], b"two"].concat();
    assert!(assembler.push(&payload(0, 64, 200, &without), true));
    let again = segments(&assembler.finish().unwrap());
    assert_eq!(only(&again, 0xdb), only(&file, 0xdb));
    assert!(!assembler.push(&payload(0, 64, 201, &without), true));
    assert_eq!(assembler.finish(), None);
}

#[test]
fn what_does_not_fit_is_no_picture() {
    let start = payload(0, 1, 50, b"coded ");
    for (why, next) in [
        ("a gap", payload(7, 1, 50, b"data")),
        ("a repetition", payload(0, 1, 50, b"data")),
        ("another type", payload(6, 0, 50, b"data")),
        ("half a header", vec![0, 0, 0, 6, 1]),
    ] {
        let mut assembler = Assembler::default();
        assert!(assembler.push(&start, true));
        assert!(!assembler.push(&next, false), "{why}");
        assert_eq!(assembler.finish(), None, "{why}");
    }
    let mut assembler = Assembler::default();
    for (why, start) in [
        ("a type of nobody's", payload(0, 5, 50, b"x")),
        ("a dynamic type", payload(0, 128, 50, b"x")),
        ("no quality", payload(0, 1, 0, b"x")),
        ("tables cut off", payload(0, 1, 255, &[0, 0, 0, 128, 1])),
        ("no size", vec![0, 0, 0, 0, 1, 50, 0, 6, 1]),
        ("a middle", payload(5, 1, 50, b"x")),
    ] {
        assert!(!assembler.push(&start, true), "{why}");
    }
    let chunk = vec![0; 60_000];
    let mut offset = 0;
    while assembler.push(&payload(offset, 1, 50, &chunk), offset == 0) {
        offset += 60_000;
    }
    assert!((MAX_BYTES - 60_000..=MAX_BYTES).contains(&(offset as usize)));
}
