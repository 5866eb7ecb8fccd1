//! As much of RTCP (RFC 3550 §6, RFC 4585) as a sender of media needs: what viewers say, what they are told.
//! Total on any bytes.

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
/// FMT of TRANSPORT_FEEDBACK.
const NACK: u8 = 1;
/// FMTs of PAYLOAD_FEEDBACK (RFC 4585 §6.3.1, RFC 5104 §4.3.1).
const PLI: u8 = 1;
const FIR: u8 = 4;
const CNAME: u8 = 1;
/// Bytes of a sender report before its report blocks: our SSRC and the sender information.
const SENDER_INFO: usize = 24;
const BLOCK: usize = 24;

/// Most bytes that SRTCP adds to a packet: the tag and the index (RFC 7714 §9).
const SEALING: usize = 16 + 4;

/// Whether a sealed packet begins with a report, as every compound one does. Its first header is clear.
pub fn is_report(sealed: &[u8]) -> bool {
    matches!(sealed.get(1), Some(&(SENDER_REPORT | RECEIVER_REPORT)))
}

/// Whether a sealed packet is a regular report, which nobody waits for. Where reduced size was negotiated, what can't wait
/// comes without a report (RFC 5506 §3.4); else it is behind one, and only a receiver report that ends with what sealing
/// adds is nothing more.
pub fn is_regular(sealed: &[u8], reduced_size: bool) -> bool {
    let Some(&[_, kind, high, low]) = sealed.first_chunk() else { return false };
    let report = 4 * (1 + usize::from(u16::from_be_bytes([high, low])));
    is_report(sealed) && (reduced_size || (kind == RECEIVER_REPORT && sealed.len() <= report + SEALING))
}

/// What a viewer says of one of our SSRCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// A report block.
    Report {
        /// Whom it is about.
        ssrc: u32,
        /// Share of packets lost since the last one, in 256ths.
        lost: u8,
        /// The middle 32 bits of our last report's NTP timestamp; 0: none has come.
        last_report: u32,
        /// How long ago that came, in 65536ths of a second.
        delay: u32,
    },
    /// Packets that are missing: `sequence`, and `sequence + 1 + n` for each bit `n` of `more`.
    Nack {
        /// Whom they are missed of.
        ssrc: u32,
        /// The first one.
        sequence: u16,
        /// Those that follow.
        more: u16,
    },
    /// The picture is lost: a keyframe is asked for.
    Keyframe {
        /// Of whom.
        ssrc: u32,
    },
}

/// Reads a compound packet and hands out what concerns a sender. What follows broken bytes is left out.
pub fn read(mut data: &[u8], mut say: impl FnMut(Feedback)) {
    while let Some((&[flags, kind, high, low], rest)) = data.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([high, low])) * 4;
        let Some((body, after)) = rest.split_at_checked(length).filter(|_| flags >> 6 == 2) else { return };
        data = after;
        let format = flags & 0x1f;
        match (kind, format) {
            (SENDER_REPORT, _) => blocks(body.get(SENDER_INFO..), format, &mut say),
            (RECEIVER_REPORT, _) => blocks(body.get(4..), format, &mut say),
            (TRANSPORT_FEEDBACK, NACK) => {
                let Some(ssrc) = be32(body, 4) else { continue };
                for entry in body.get(8..).unwrap_or_default().chunks_exact(4) {
                    if let &[s0, s1, m0, m1] = entry {
                        let (sequence, more) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([m0, m1]));
                        say(Feedback::Nack { ssrc, sequence, more });
                    }
                }
            }
            (PAYLOAD_FEEDBACK, PLI) => {
                if let Some(ssrc) = be32(body, 4) {
                    say(Feedback::Keyframe { ssrc });
                }
            }
            (PAYLOAD_FEEDBACK, FIR) => {
                let entries = body.get(8..).unwrap_or_default().chunks_exact(8);
                entries.filter_map(|entry| be32(entry, 0)).for_each(|ssrc| say(Feedback::Keyframe { ssrc }));
            }
            _ => {}
        }
    }
}

fn blocks(data: Option<&[u8]>, count: u8, say: &mut impl FnMut(Feedback)) {
    for block in data.unwrap_or_default().chunks_exact(BLOCK).take(usize::from(count)) {
        if let (Some(ssrc), Some(lost), Some(last_report), Some(delay)) =
            (be32(block, 0), block.get(4), be32(block, 16), be32(block, 20))
        {
            say(Feedback::Report { ssrc, lost: *lost, last_report, delay });
        }
    }
}

fn be32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?))
}

/// What a sender says of itself (RFC 3550 §6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Who says so.
    pub ssrc: u32,
    /// An instant as a 64-bit NTP timestamp.
    pub ntp: u64,
    /// The same instant in the RTP clock.
    pub rtp_time: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub bytes: u32,
}

impl Report {
    /// Appends the report and the sender's canonical name, which is what ties audio and video together.
    pub fn write(&self, name: &str, out: &mut Vec<u8>) {
        header(SENDER_REPORT, 0, 6, out);
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&self.ntp.to_be_bytes());
        for field in [self.rtp_time, self.packets, self.bytes] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        let name = name.as_bytes();
        let name = name.get(..255).unwrap_or(name);
        // The list of items ends with one to four zeros.
        let words = (4 + 2 + name.len()) / 4 + 1;
        header(DESCRIPTION, 1, words, out);
        let end = out.len() + words * 4;
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(&[CNAME, name.len() as u8]);
        out.extend_from_slice(name);
        out.resize(end, 0);
    }
}

/// Appends a goodbye of these senders, 31 at most (RFC 3550 §6.6).
pub fn write_goodbye(ssrcs: &[u32], out: &mut Vec<u8>) {
    let Some(first) = ssrcs.first() else { return };
    // A compound packet begins with a report, be it empty.
    header(RECEIVER_REPORT, 0, 1, out);
    out.extend_from_slice(&first.to_be_bytes());
    let ssrcs = ssrcs.get(..31).unwrap_or(ssrcs);
    header(GOODBYE, ssrcs.len() as u8, ssrcs.len(), out);
    ssrcs.iter().for_each(|ssrc| out.extend_from_slice(&ssrc.to_be_bytes()));
}

fn header(kind: u8, count: u8, words: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x80 | count, kind]);
    out.extend_from_slice(&(words as u16).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_report_is_told_from_what_asks() {
        let sealed = |kind: u8, words: u8, more: usize| {
            let mut packet = vec![0x81, kind, 0, words];
            packet.resize(4 * (1 + usize::from(words)) + more, 0);
            packet
        };
        for (words, more) in [(7, 20), (7, 14), (1, 20), (13, 20)] {
            assert!(is_regular(&sealed(RECEIVER_REPORT, words, more), false));
        }
        // The smallest that asks: a NACK or PLI without a tag of its own is 12 bytes, and 14 are added at least.
        for more in [21, 26] {
            assert!(!is_regular(&sealed(RECEIVER_REPORT, 7, more), false));
            assert!(is_regular(&sealed(RECEIVER_REPORT, 7, more), true));
        }
        assert!(!is_regular(&sealed(SENDER_REPORT, 6, 20), false));
        assert!(is_regular(&sealed(SENDER_REPORT, 6, 20), true));
        for reduced_size in [false, true] {
            assert!(!is_regular(&sealed(TRANSPORT_FEEDBACK, 3, 20), reduced_size));
            assert!(!is_regular(&[], reduced_size) && !is_regular(&[0x81, RECEIVER_REPORT], reduced_size));
        }
    }

    fn heard(data: &[u8]) -> Vec<Feedback> {
        let mut all = Vec::new();
        read(data, |feedback| all.push(feedback));
        all
    }

    #[test]
    fn a_compound_packet_is_read_to_its_end() {
        let mut data = vec![0x81, 201, 0, 7, 0, 0, 0, 1];
        data.extend_from_slice(&[0, 0, 0, 9, 64, 0, 0, 5]);
        data.extend_from_slice(&[0; 8]);
        data.extend_from_slice(&[0, 0, 0, 2, 0, 1, 0, 0]);
        data.extend_from_slice(&[0x80, 202, 0, 0]);
        data.extend_from_slice(&[0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 9, 0, 10, 0x80, 1, 0, 90, 0, 0]);
        data.extend_from_slice(&[0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9]);
        data.extend_from_slice(&[0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 1, 0, 0, 0]);
        let expected = [
            Feedback::Report { ssrc: 9, lost: 64, last_report: 2, delay: 65_536 },
            Feedback::Nack { ssrc: 9, sequence: 10, more: 0x8001 },
            Feedback::Nack { ssrc: 9, sequence: 90, more: 0 },
            Feedback::Keyframe { ssrc: 9 },
            Feedback::Keyframe { ssrc: 8 },
        ];
        assert_eq!(heard(&data), expected);
        for end in 0..data.len() {
            assert!(expected.starts_with(&heard(&data[..end])), "cut at {end}");
        }
    }

    #[test]
    fn what_is_written_is_what_the_rfc_says() {
        for length in 0..12 {
            let mut out = Vec::new();
            let name = "streamgate12".get(..length).unwrap();
            Report { ssrc: 7, ntp: 1 << 32 | 2, rtp_time: 3, packets: 4, bytes: 5 }.write(name, &mut out);
            assert_eq!(out[..8], [0x80, 200, 0, 6, 0, 0, 0, 7]);
            assert_eq!(out[8..28], [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]);
            let words = usize::from(out[31]);
            assert_eq!((&out[28..31], out.len()), (&[0x81, 202, 0][..], 32 + words * 4));
            assert_eq!(out[32..38], [0, 0, 0, 7, 1, length as u8]);
            assert_eq!(&out[38..38 + length], name.as_bytes());
            assert!(
                (1..=4).contains(&out[38 + length..].len()) && out[38 + length..].iter().all(|b| *b == 0)
            );
        }
        let mut bye = Vec::new();
        write_goodbye(&[7, 8], &mut bye);
        assert_eq!(bye, [0x80, 201, 0, 1, 0, 0, 0, 7, 0x82, 203, 0, 2, 0, 0, 0, 7, 0, 0, 0, 8]);
    }
}
