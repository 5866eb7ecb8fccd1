//! As much of STUN (RFC 8489) as it takes to route a datagram and to learn one's own address. Total on any bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

/// Names a request and its response.
pub type TransactionId = [u8; 12];

/// What a STUN message is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A connectivity check for the ICE agent with this local username fragment (RFC 8445 §7.2.2).
    Check {
        /// The part of USERNAME before the colon: ours.
        local_ufrag: &'a str,
    },
    /// A server's answer to our own binding request.
    Mapped {
        /// The request's.
        transaction: TransactionId,
        /// XOR-MAPPED-ADDRESS: where the server saw us.
        address: SocketAddr,
    },
}

/// Reads a STUN message. `None` if it is none, or not one of those that concern us.
pub fn parse(data: &[u8]) -> Option<Message<'_>> {
    let (header, body) = data.split_at_checked(HEADER)?;
    let (kind, length) = (be16(header, 0)?, usize::from(be16(header, 2)?));
    if header.get(4..8)? != MAGIC_COOKIE || length != body.len() {
        return None;
    }
    let transaction: TransactionId = header.get(8..HEADER)?.try_into().ok()?;
    match kind {
        BINDING_REQUEST => {
            let username = std::str::from_utf8(attribute(body, USERNAME)?).ok()?;
            let (local_ufrag, _) = username.split_once(':')?;
            Some(Message::Check { local_ufrag })
        }
        BINDING_SUCCESS => {
            let address = xor_address(attribute(body, XOR_MAPPED_ADDRESS)?, header)?;
            Some(Message::Mapped { transaction, address })
        }
        _ => None,
    }
}

/// A binding request without attributes, as public STUN servers take it.
pub fn binding_request(transaction: TransactionId) -> [u8; HEADER] {
    let mut request = [0; HEADER];
    request[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
    request[4..8].copy_from_slice(&MAGIC_COOKIE);
    request[8..].copy_from_slice(&transaction);
    request
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The value of the first attribute of that type.
fn attribute(mut body: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (kind, length) = (be16(body, 0)?, usize::from(be16(body, 2)?));
        let value = body.get(4..4 + length)?;
        if kind == wanted {
            return Some(value);
        }
        body = body.get(4 + length.next_multiple_of(4)..)?;
    }
}

/// RFC 8489 §14.2: the port is hidden with the cookie's first half, the address with the cookie and transaction id.
fn xor_address(value: &[u8], header: &[u8]) -> Option<SocketAddr> {
    let mask = header.get(4..HEADER)?;
    let port = be16(value, 2)? ^ be16(mask, 0)?;
    let mut address = [0; 16];
    let hidden = value.get(4..)?;
    for (byte, (hidden, mask)) in address.iter_mut().zip(hidden.iter().zip(mask)) {
        *byte = hidden ^ mask;
    }
    let ip = match (value.get(1)?, hidden.len()) {
        (1, 4) => IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3])),
        (2, 16) => IpAddr::V6(Ipv6Addr::from(address)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 5769 §2.1, a request with username `evtj:h6vY`.
    const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
        \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\
        \x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    /// RFC 5769 §2.2, a response with 192.0.2.1:32853.
    const RESPONSE: &[u8] = b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";

    #[test]
    fn the_rfc_vectors_are_read() {
        assert_eq!(parse(REQUEST), Some(Message::Check { local_ufrag: "evtj" }));
        let Some(Message::Mapped { address, transaction }) = parse(RESPONSE) else { panic!("no response") };
        assert_eq!(address, "192.0.2.1:32853".parse().unwrap());
        assert_eq!(transaction, RESPONSE[8..20]);
    }

    #[test]
    fn our_request_is_a_header() {
        assert_eq!(parse(&binding_request([7; 12])), None, "it has no username");
        assert_eq!(binding_request([7; 12])[..8], *b"\x00\x01\x00\x00\x21\x12\xa4\x42");
    }

    #[test]
    fn truncated_messages_are_refused() {
        for length in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(mut data in proptest::collection::vec(any::<u8>(), 0..200), real in any::<bool>()) {
            if real && data.len() >= HEADER {
                let length = (data.len() - HEADER) as u16;
                data[..2].copy_from_slice(&BINDING_REQUEST.to_be_bytes());
                data[2..4].copy_from_slice(&length.to_be_bytes());
                data[4..8].copy_from_slice(&MAGIC_COOKIE);
            }
            let _ = parse(&data);
        }
    }
}
