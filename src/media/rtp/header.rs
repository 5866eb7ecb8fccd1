//! RTP and RTCP headers (RFC 3550 §5.1, §6.4), reading and writing.

use std::time::{SystemTime, UNIX_EPOCH};

/// An RTP header's fields (RFC 3550 §5.1), without contributing sources and extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in the payload type's clock.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Marker bit; for video, the last packet of an access unit.
    pub marker: bool,
}

/// Size in bytes of the header that [`Header::write`] writes.
pub const HEADER_LEN: usize = 12;

/// Takes an RTP packet apart: header and payload (without contributing sources, extension and padding).
/// `None` if it isn't version 2 or is shorter than it says.
pub fn parse(packet: &[u8]) -> Option<(Header, &[u8])> {
    let (fixed, mut rest) = packet.split_first_chunk::<HEADER_LEN>()?;
    let &[flags, marker_and_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = fixed;
    if flags >> 6 != 2 {
        return None;
    }
    rest = rest.get(usize::from(flags & 0x0f) * 4..)?;
    if flags & 0x10 != 0 {
        let (&[_, _, words_high, words_low], after) = rest.split_first_chunk::<4>()?;
        rest = after.get(usize::from(u16::from_be_bytes([words_high, words_low])) * 4..)?;
    }
    if flags & 0x20 != 0 {
        let padding = usize::from(*rest.last()?);
        if padding == 0 {
            return None;
        }
        rest = rest.get(..rest.len().checked_sub(padding)?)?;
    }
    let header = Header {
        payload_type: marker_and_type & 0x7f,
        sequence: u16::from_be_bytes([s0, s1]),
        timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
        marker: marker_and_type & 0x80 != 0,
    };
    Some((header, rest))
}

impl Header {
    /// Appends the header's 12 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    /// The header as it goes over the wire.
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        let marker_and_type = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        [0x80, marker_and_type, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }
}

/// Whether a packet on a port shared by RTP and RTCP is RTCP (RFC 5761 §4: packet types 192 to 223).
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [flags, 192..=223, ..] if flags >> 6 == 2)
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;

/// The sender information of an RTCP sender report (RFC 3550 §6.4.1): one instant in two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// Whose report it is.
    pub ssrc: u32,
    /// The instant as a 64-bit NTP timestamp: seconds since 1900 and a 32-bit fraction.
    pub ntp: u64,
    /// The same instant in the RTP clock.
    pub rtp: u32,
}

/// The sender reports of a compound RTCP packet. Stops at the first part that is malformed.
pub fn sender_reports(compound: &[u8]) -> impl Iterator<Item = SenderReport> {
    parts(compound).filter_map(|(kind, body)| {
        if kind != SENDER_REPORT {
            return None;
        }
        let (ssrc, body) = body.split_first_chunk::<4>()?;
        let (ntp, body) = body.split_first_chunk::<8>()?;
        let (rtp, _) = body.split_first_chunk::<4>()?;
        Some(SenderReport {
            ssrc: u32::from_be_bytes(*ssrc),
            ntp: u64::from_be_bytes(*ntp),
            rtp: u32::from_be_bytes(*rtp),
        })
    })
}

/// The report blocks of a compound RTCP packet's sender and receiver reports. Stops at the first part that is malformed.
pub fn report_blocks(compound: &[u8]) -> impl Iterator<Item = ReportBlock> {
    parts(compound).flat_map(|(kind, body)| {
        // The sender's own SSRC, and a sender report's information.
        let before = match kind {
            SENDER_REPORT => 24,
            RECEIVER_REPORT => 4,
            _ => body.len(),
        };
        body.get(before..).unwrap_or_default().chunks_exact(24).filter_map(ReportBlock::parse)
    })
}

/// Whether a compound RTCP packet says goodbye (RFC 3550 §6.6) for `ssrc`.
pub fn says_goodbye(compound: &[u8], ssrc: u32) -> bool {
    parts(compound)
        .filter(|(kind, _)| *kind == GOODBYE)
        .any(|(_, body)| body.chunks_exact(4).any(|source| source == ssrc.to_be_bytes()))
}

/// The packets inside a compound RTCP packet: type and body without the common header. A goodbye's body is cut to its
/// list of sources.
fn parts(compound: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = compound;
    std::iter::from_fn(move || {
        let (&[flags, kind, words_high, words_low], after) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([words_high, words_low])) * 4;
        if flags >> 6 != 2 || length > after.len() {
            return None;
        }
        let (mut body, next) = after.split_at(length);
        rest = next;
        if kind == GOODBYE {
            body = body.get(..usize::from(flags & 0x1f) * 4).unwrap_or(body);
        }
        Some((kind, body))
    })
}

/// A moment as RTCP tells it: seconds since 1900 in the upper 32 bits, their fraction in the lower.
pub fn ntp_timestamp(moment: SystemTime) -> u64 {
    /// Seconds from NTP's epoch, 1900, to Unix's, 1970.
    const NTP_TO_UNIX: u64 = 2_208_988_800;
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    since.as_secs().wrapping_add(NTP_TO_UNIX) << 32 | fraction
}

/// Appends a goodbye (RFC 3550 §6.6) of `ssrc`: 8 bytes.
pub fn write_goodbye(ssrc: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x81, GOODBYE, 0, 1]);
    out.extend_from_slice(&ssrc.to_be_bytes());
}

/// Appends a sender report without report blocks: 28 bytes. `packets` and `octets` (of payload) are totals since the
/// start; they wrap.
pub fn write_sender_report(report: &SenderReport, packets: u32, octets: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x80, SENDER_REPORT, 0, 6]);
    out.extend_from_slice(&report.ssrc.to_be_bytes());
    out.extend_from_slice(&report.ntp.to_be_bytes());
    out.extend_from_slice(&report.rtp.to_be_bytes());
    out.extend_from_slice(&packets.to_be_bytes());
    out.extend_from_slice(&octets.to_be_bytes());
}

/// One report block (RFC 3550 §6.4.1): how a source is received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source that is reported on.
    pub ssrc: u32,
    /// Packets lost since the last report, as a fraction of 256.
    pub fraction_lost: u8,
    /// Packets lost since the start; 24 bits signed are carried.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with the count of its wrap-arounds in the upper half.
    pub highest_sequence: u32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP timestamp; 0 if there was none.
    pub last_report: u32,
    /// Time since then, in units of 1/65 536 s.
    pub delay: u32,
}

impl ReportBlock {
    fn parse(block: &[u8]) -> Option<ReportBlock> {
        let mut words =
            block.chunks_exact(4).filter_map(|word| Some(u32::from_be_bytes(word.try_into().ok()?)));
        let (ssrc, lost) = (words.next()?, words.next()?);
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost >> 24) as u8,
            // 24 bits with their sign.
            cumulative_lost: ((lost << 8) as i32) >> 8,
            highest_sequence: words.next()?,
            jitter: words.next()?,
            last_report: words.next()?,
            delay: words.next()?,
        })
    }
}

/// Appends a receiver report (RFC 3550 §6.4.2) from `ssrc` with one block: 32 bytes.
pub fn write_receiver_report(ssrc: u32, block: &ReportBlock, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x81, RECEIVER_REPORT, 0, 7]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&block.ssrc.to_be_bytes());
    let [_, lost @ ..] = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
    out.push(block.fraction_lost);
    out.extend_from_slice(&lost);
    for field in [block.highest_sequence, block.jitter, block.last_report, block.delay] {
        out.extend_from_slice(&field.to_be_bytes());
    }
}

/// Appends the source description that every compound packet must have (RFC 3550 §6.5): the canonical name, cut at
/// 255 bytes.
pub fn write_description(ssrc: u32, cname: &str, out: &mut Vec<u8>) {
    let name = cname.as_bytes().get(..255).unwrap_or(cname.as_bytes());
    // SSRC, item type, length, name and at least one zero, filled up to a multiple of four.
    let words = (4 + 2 + name.len() + 1).div_ceil(4);
    let end = out.len() + 4 + words * 4;
    out.extend_from_slice(&[0x81, SOURCE_DESCRIPTION, 0, words as u8]);
    out.extend_from_slice(&ssrc.to_be_bytes());
    out.extend_from_slice(&[1, name.len() as u8]);
    out.extend_from_slice(name);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header =
        Header { payload_type: 96, sequence: 0xfffe, timestamp: 0x8000_0001, ssrc: 7, marker: true };

    #[test]
    fn written_header_reads_back() {
        let mut packet = Vec::new();
        HEADER.write(&mut packet);
        assert_eq!(packet.len(), HEADER_LEN);
        packet.extend_from_slice(b"payload");
        assert_eq!(parse(&packet), Some((HEADER, &b"payload"[..])));
    }

    #[test]
    fn contributing_sources_extension_and_padding_are_cut_off() {
        let mut packet = Vec::new();
        HEADER.write(&mut packet);
        packet[0] |= 0x20 | 0x10 | 2;
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
        packet.extend_from_slice(b"payload\0\0\x03");
        assert_eq!(parse(&packet), Some((HEADER, &b"payload"[..])));
        for cut in 0..packet.len() - 7 {
            // Whatever is left, the padding never reaches into what isn't there.
            let _ = parse(&packet[..cut]);
        }
        let last = packet.len() - 1;
        packet[last] = 11;
        assert_eq!(parse(&packet), None, "more padding than payload");
        packet[last] = 0;
        assert_eq!(parse(&packet), None, "no padding where some is announced");
    }

    #[test]
    fn rtcp_is_told_from_rtp() {
        let mut packet = Vec::new();
        HEADER.write(&mut packet);
        assert!(!is_rtcp(&packet));
        packet.clear();
        write_receiver_report(1, &ReportBlock::default(), &mut packet);
        assert_eq!(packet.len(), 32);
        assert!(is_rtcp(&packet));
        assert!(!is_rtcp(&[0x80]));
    }

    #[test]
    fn compound_packets_are_walked() {
        let report = SenderReport { ssrc: 9, ntp: 0x0102_0304_0506_0708, rtp: 42 };
        let mut compound = Vec::new();
        write_receiver_report(1, &ReportBlock { cumulative_lost: -1, ..Default::default() }, &mut compound);
        assert_eq!(compound[12..16], [0, 0xff, 0xff, 0xff]);
        let block = ReportBlock {
            ssrc: 5,
            fraction_lost: 64,
            cumulative_lost: -3,
            highest_sequence: 6,
            jitter: 7,
            last_report: 8,
            delay: 9,
        };
        write_receiver_report(2, &block, &mut compound);
        let first = ReportBlock { cumulative_lost: -1, ..Default::default() };
        assert_eq!(report_blocks(&compound).collect::<Vec<_>>(), [first, block]);
        write_description(9, "front@camera", &mut compound);
        assert_eq!(compound.len() % 4, 0);
        write_sender_report(&report, 3, 4, &mut compound);
        assert!(!says_goodbye(&compound, 9));
        compound.extend_from_slice(&[0x81, GOODBYE, 0, 1, 0, 0, 0, 9]);
        assert_eq!(sender_reports(&compound).collect::<Vec<_>>(), [report]);
        assert!(says_goodbye(&compound, 9));
        assert!(!says_goodbye(&compound, 8));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some((_, payload)) = parse(&bytes) {
                prop_assert!(payload.len() + HEADER_LEN <= bytes.len());
            }
            let _ = is_rtcp(&bytes);
            let _ = sender_reports(&bytes).count();
            let _ = report_blocks(&bytes).count();
            let _ = says_goodbye(&bytes, 1);
        }
    }
}
