//! Which protocol a TCP connection speaks, told from its first bytes. Pure.

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet. Never the answer to [`ENOUGH`] bytes or more.
    NeedMore,
    /// HTTP/1 (RFC 9112): a request line.
    Http,
    /// The HTTP/2 connection preface (RFC 9113, 3.4).
    H2Preface,
    /// A TLS handshake record (RFC 8446, 5.1).
    Tls,
    /// An RTSP request (RFC 2326, RFC 7826).
    Rtsp,
    /// RTMP's C0, version 3.
    Rtmp,
    /// A STUN binding request in RFC 4571 framing, as ICE-TCP starts (RFC 6544, 7.1).
    IceTcp,
    /// Nothing that is known.
    Unknown,
}

/// With this many bytes the verdict is final.
pub const ENOUGH: usize = 64;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP_METHODS: &[&[u8]] = &[b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"CONNECT", b"TRACE"];
const RTSP_METHODS: &[&[u8]] = &[
    b"DESCRIBE",
    b"ANNOUNCE",
    b"SETUP",
    b"PLAY",
    b"PAUSE",
    b"RECORD",
    b"TEARDOWN",
    b"REDIRECT",
    b"GET_PARAMETER",
    b"SET_PARAMETER",
    b"PLAY_NOTIFY",
];
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Longest STUN binding request that is taken for one: the real ones have about a hundred bytes.
const MAX_STUN: u16 = 0x08ff;

/// Tells the protocol from the bytes received so far. More bytes never change a verdict other than `NeedMore`.
pub fn sniff(bytes: &[u8]) -> Verdict {
    let verdict = match bytes {
        [] => Verdict::NeedMore,
        [0x16] => Verdict::NeedMore,
        [0x16, 0x03, ..] => Verdict::Tls,
        [0x03, ..] => match ice_tcp(bytes) {
            Verdict::Unknown => Verdict::Rtmp,
            other => other,
        },
        [first, ..] if u16::from(*first) <= MAX_STUN >> 8 => ice_tcp(bytes),
        [first, ..] if first.is_ascii_uppercase() => text(bytes),
        _ => Verdict::Unknown,
    };
    if verdict == Verdict::NeedMore && bytes.len() >= ENOUGH { Verdict::Unknown } else { verdict }
}

/// RFC 4571: a length of two bytes. STUN (RFC 8489, 5): type, length without its header of 20 bytes, magic cookie.
fn ice_tcp(bytes: &[u8]) -> Verdict {
    let Some(frame) = two(bytes, 0) else { return Verdict::NeedMore };
    if !(20..=MAX_STUN).contains(&frame) || frame % 4 != 0 {
        return Verdict::Unknown;
    }
    let expected: Vec<u8> =
        [[0x00, 0x01], (frame - 20).to_be_bytes()].concat().into_iter().chain(STUN_MAGIC_COOKIE).collect();
    matches(bytes.get(2..).unwrap_or_default(), &expected, Verdict::IceTcp)
}

fn two(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes)
}

/// `verdict` if `bytes` starts with `expected`.
fn matches(bytes: &[u8], expected: &[u8], verdict: Verdict) -> Verdict {
    if bytes.starts_with(expected) {
        verdict
    } else if expected.starts_with(bytes) {
        Verdict::NeedMore
    } else {
        Verdict::Unknown
    }
}

/// No method of any protocol is longer.
const MAX_METHOD: usize = 20;

fn text(bytes: &[u8]) -> Verdict {
    match matches(bytes, H2_PREFACE, Verdict::H2Preface) {
        Verdict::Unknown => {}
        other => return other,
    }
    let end = bytes.iter().position(|byte| !(byte.is_ascii_uppercase() || *byte == b'_'));
    // However it is cut: the verdict on a part must not be another than that on the whole.
    let (method, rest) = match end {
        None if bytes.len() <= MAX_METHOD => return Verdict::NeedMore,
        Some(end) if end <= MAX_METHOD => bytes.split_at(end),
        _ => return Verdict::Unknown,
    };
    match rest {
        [b' ', ..] if HTTP_METHODS.contains(&method) => Verdict::Http,
        [b' ', ..] if RTSP_METHODS.contains(&method) => Verdict::Rtsp,
        [b' ', target @ ..] => by_target(target),
        _ => Verdict::Unknown,
    }
}

/// `OPTIONS` is a method of both protocols, and any other word may be an HTTP method.
fn by_target(target: &[u8]) -> Verdict {
    [
        (&b"/"[..], Verdict::Http),
        (b"http", Verdict::Http),
        (b"rtsp", Verdict::Rtsp),
        (b"* HTTP/", Verdict::Http),
        (b"* RTSP/", Verdict::Rtsp),
    ]
    .into_iter()
    .map(|(expected, verdict)| matches(target, expected, verdict))
    .find(|verdict| *verdict != Verdict::Unknown)
    .unwrap_or(Verdict::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUN: &[u8] = b"\x00\x6c\x00\x01\x00\x58\x21\x12\xa4\x42abcdefghijkl";

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, verdict) in [
            (&b"GET / HTTP/1.1\r\n"[..], Verdict::Http),
            (b"GET ", Verdict::Http),
            (b"HEAD /x", Verdict::Http),
            (b"POST /api/webrtc?src=a HTTP/1.1\r\n", Verdict::Http),
            (b"DELETE /api HTTP/1.1", Verdict::Http),
            (b"OPTIONS /whep/x HTTP/1.1\r\n", Verdict::Http),
            (b"OPTIONS * HTTP/1.1\r\n", Verdict::Http),
            (b"OPTIONS http://h/ HTTP/1.1", Verdict::Http),
            (b"PROPFIND / HTTP/1.1\r\n", Verdict::Http),
            (b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n", Verdict::Rtsp),
            (b"OPTIONS rtsp://h/x RTSP/1.0\r\n", Verdict::Rtsp),
            (b"OPTIONS rtsps://h/x RTSP/2.0\r\n", Verdict::Rtsp),
            (b"DESCRIBE rtsp://h/x RTSP/1.0\r\n", Verdict::Rtsp),
            (b"ANNOUNCE rtsp://h/x RTSP/1.0\r\n", Verdict::Rtsp),
            (b"GET_PARAMETER rtsp://h/x RTSP/1.0\r\n", Verdict::Rtsp),
            (b"TEARDOWN ", Verdict::Rtsp),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Verdict::H2Preface),
            (b"PRI * HTTP/1.1\r\n\r\n", Verdict::Http),
            (b"PRI /x HTTP/1.1\r\n\r\n", Verdict::Http),
            (b"\x16\x03\x01\x02\x00\x01\x00", Verdict::Tls),
            (b"\x16\x04", Verdict::Unknown),
            (b"\x03\x00\x00\x00\x00\x00\x00\x00\x00xx", Verdict::Rtmp),
            (b"\x03\x01\x02\x03\x04", Verdict::Rtmp),
            (b"\x03\x10\x00\x01\x02\xfc\x21\x12\xa4\x42", Verdict::IceTcp),
            (b"\x03\x10\x00\x01\x02\xfc\x21\x12\xa4\x43", Verdict::Rtmp),
            (STUN, Verdict::IceTcp),
            (b"\x00\x6c\x01\x01\x00\x58\x21\x12\xa4\x42", Verdict::Unknown),
            (b"\x00\x13", Verdict::Unknown),
            (b"\x09\x00\x00\x01", Verdict::Unknown),
            (b"\x80\x60\x00", Verdict::Unknown),
            (b"\xff", Verdict::Unknown),
            (b"\r\n", Verdict::Unknown),
            (b"get / http/1.1", Verdict::Unknown),
            (b"SSH-2.0-OpenSSH", Verdict::Unknown),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAA", Verdict::Unknown),
            (b"G", Verdict::NeedMore),
            (b"PRI * HT", Verdict::NeedMore),
            (b"OPTIONS ", Verdict::NeedMore),
            (b"OPTIONS * ", Verdict::NeedMore),
            (b"\x16", Verdict::NeedMore),
            (b"\x03\x10\x00\x01", Verdict::NeedMore),
            (b"", Verdict::NeedMore),
        ] {
            assert_eq!(sniff(bytes), verdict, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn byte_by_byte_gives_the_same_verdict() {
        for (bytes, verdict) in [
            (&b"OPTIONS * RTSP/1.0\r\n"[..], Verdict::Rtsp),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Verdict::H2Preface),
            (b"PUT /x HTTP/1.1\r\n", Verdict::Http),
            (b"PLAY rtsp://x", Verdict::Rtsp),
            (b"\x16\x03\x01", Verdict::Tls),
            (b"\x03\x10\x00\x01\x02\xfc\x21\x12\xa4\x42", Verdict::IceTcp),
            (STUN, Verdict::IceTcp),
        ] {
            let verdicts: Vec<_> = (0..=bytes.len()).map(|n| sniff(bytes.get(..n).unwrap())).collect();
            let decided = verdicts.iter().position(|v| *v != Verdict::NeedMore).unwrap();
            assert!(verdicts.iter().skip(decided).all(|v| *v == verdict), "{verdicts:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(
            start in proptest::sample::select(vec![&b""[..], b"OPTIONS ", b"PRI * HTTP/2.0\r\n", b"\x03", b"\x00\x6c\x00\x01", b"\x16", b"GE"]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)
        ) {
            let bytes = [start, &rest].concat();
            let mut decided = Verdict::NeedMore;
            for n in 0..=bytes.len() {
                let verdict = sniff(bytes.get(..n).unwrap());
                proptest::prop_assert!(decided == Verdict::NeedMore || verdict == decided);
                proptest::prop_assert!(n < ENOUGH || verdict != Verdict::NeedMore);
                decided = verdict;
            }
        }
    }
}
