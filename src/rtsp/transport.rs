//! The `Transport` header (RFC 2326 §12.39), as clients offer and servers answer.

/// Most alternatives that are read of one header.
const MAX_OFFERS: usize = 16;

/// One way to carry a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transport {
    /// It is plain RTP (`RTP/AVP`), not some other protocol or profile.
    pub is_rtp: bool,
    /// RTP over the RTSP connection.
    pub is_tcp: bool,
    /// To a group; `unicast` is what everybody else wants.
    pub is_multicast: bool,
    /// Interleaved channels for RTP and RTCP.
    pub interleaved: Option<(u8, u8)>,
    /// The client's ports for RTP and RTCP.
    pub client_port: Option<(u16, u16)>,
    /// The server's ports for RTP and RTCP.
    pub server_port: Option<(u16, u16)>,
    /// `mode=record`: the client wants to send.
    pub is_record: bool,
    /// One of the above is given and can't be what it should be.
    pub is_malformed: bool,
}

impl Transport {
    /// Reads one alternative: `RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=…`. What is not known is passed over.
    pub fn parse(text: &str) -> Transport {
        let mut transport = Transport::default();
        for part in text.split(';').map(str::trim) {
            let Some((name, value)) = part.split_once('=') else {
                let is = |word: &str| part.eq_ignore_ascii_case(word);
                transport.is_tcp |= is("RTP/AVP/TCP");
                transport.is_rtp |= is("RTP/AVP") || is("RTP/AVP/UDP") || is("RTP/AVP/TCP");
                transport.is_multicast |= is("multicast");
                continue;
            };
            let is = |word: &str| name.trim().eq_ignore_ascii_case(word);
            if is("mode") {
                transport.is_record = value.trim().trim_matches('"').eq_ignore_ascii_case("record");
                continue;
            }
            let pair = parse_pair(value);
            let understood = if is("interleaved") {
                transport.interleaved =
                    pair.and_then(|(a, b)| Some((a.try_into().ok()?, b.try_into().ok()?)));
                transport.interleaved.is_some()
            } else if is("client_port") {
                transport.client_port = pair;
                pair.is_some()
            } else if is("server_port") {
                transport.server_port = pair;
                pair.is_some()
            } else {
                true
            };
            transport.is_malformed |= !understood;
        }
        transport
    }

    /// Reads all alternatives of a header, preferred first.
    pub fn parse_all(header: &str) -> Vec<Transport> {
        header.split(',').take(MAX_OFFERS).map(Transport::parse).collect()
    }
}

/// Reads `5000-5001` or `5000`.
pub fn parse_pair(value: &str) -> Option<(u16, u16)> {
    let (first, second) = value.split_once('-').unwrap_or((value, ""));
    let first: u16 = first.trim().parse().ok()?;
    let second = match second.trim() {
        "" => first.checked_add(1)?,
        second => second.parse().ok()?,
    };
    Some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transport_headers_are_read_leniently() {
        let tcp = Transport::parse("RTP/AVP/TCP;unicast;interleaved=2-3;ssrc=0x6f7c");
        assert_eq!((tcp.is_rtp, tcp.is_tcp, tcp.interleaved), (true, true, Some((2, 3))));
        let udp =
            Transport::parse("RTP/AVP;unicast;client_port=5000-5001; server_port=6000-6001;source=1.2.3.4");
        assert_eq!(
            (udp.is_tcp, udp.client_port, udp.server_port),
            (false, Some((5000, 5001)), Some((6000, 6001)))
        );
        assert_eq!(Transport::parse("RTP/AVP/TCP;interleaved=4").interleaved, Some((4, 5)));
        for odd in ["interleaved=300-301", "server_port=65535", "interleaved=-"] {
            let answer = Transport::parse(odd);
            assert_eq!((answer.interleaved, answer.server_port), (None, None), "{odd}");
            assert!(answer.is_malformed, "{odd}");
        }
        assert_eq!(Transport::parse(";;;"), Transport::default());
    }

    #[test]
    fn a_client_may_offer_several() {
        let offers = Transport::parse_all(
            "RTP/SAVP;unicast, RTP/AVP/UDP;multicast, rtp/avp/tcp;unicast;mode=\"RECORD\"",
        );
        let seen: Vec<_> = offers.iter().map(|o| (o.is_rtp, o.is_tcp, o.is_multicast, o.is_record)).collect();
        assert_eq!(
            seen,
            [(false, false, false, false), (true, false, true, false), (true, true, false, true)]
        );
        assert_eq!(Transport::parse_all(&",".repeat(1000)).len(), MAX_OFFERS);
    }
}
