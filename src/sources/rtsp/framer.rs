//! RTSP messages (RFC 2326 §4, §10.12) out of a byte stream, with bounds: no I/O.
//!
//! The grammar is retina's. The bounds are ours, because its parser looks at sizes only when a head is complete; and
//! heads are mended line by line before it sees them, because cameras send what it is too strict for: lines that end
//! without a carriage return, headers without a value, text in the vendor's own alphabet.

use retina::rtsp::msg::{Message, Request, Response};
use retina::rtsp::parse::{FeedError, Parser};

/// Most bytes of one message's head.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most header lines of one message.
pub const MAX_HEAD_LINES: usize = 256;
/// Most bytes of one message's body.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;
/// The buffer's usual size: one interleaved packet (64 KiB) and as much again to read ahead.
const BUFFER_BYTES: usize = 128 * 1024;
/// What one read is offered at least.
const READ_BYTES: usize = 64 * 1024;

/// One message from the camera.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// An answer and its body.
    Response(Response, &'a [u8]),
    /// A request of the camera's.
    Request(Request),
    /// Interleaved binary data (RFC 2326 §10.12).
    Data {
        /// The channel it is for.
        channel: u8,
        /// An RTP or RTCP packet.
        payload: &'a [u8],
    },
}

/// Cuts a byte stream into messages. Holds at most [`MAX_BODY_BYTES`] and a read's worth more.
pub struct Framer {
    parser: Parser,
    buffer: Vec<u8>,
    /// The unparsed bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The lines taken of the message that is being read, as they came.
    head: Vec<u8>,
    /// The same mended, as far as the parser has not taken it yet.
    mended: Vec<u8>,
    /// The head is complete and a body of so many bytes follows.
    body: Option<usize>,
}

impl Default for Framer {
    fn default() -> Self {
        Framer {
            parser: Parser::builder().max_message_size(MAX_HEAD_BYTES + MAX_BODY_BYTES).build(),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            head: Vec::new(),
            mended: Vec::new(),
            body: None,
        }
    }
}

impl Framer {
    /// Room for the next read, 64 KiB or more; tell with [`Framer::filled`] how much was read.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let wanted = (self.end + READ_BYTES).max(BUFFER_BYTES);
        if wanted > self.buffer.len() {
            // Only a body makes it grow, and bodies are bounded.
            let size = wanted.next_multiple_of(BUFFER_BYTES);
            self.buffer.reserve_exact(size - self.buffer.len());
            self.buffer.resize(size, 0);
        } else if self.buffer.len() > BUFFER_BYTES && wanted == BUFFER_BYTES {
            self.buffer.truncate(BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `count` bytes were written into [`Framer::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Bytes of memory the buffers hold.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity() + self.head.capacity() + self.mended.capacity()
    }

    /// Whether a message has begun and is not complete.
    pub fn is_inside_message(&self) -> bool {
        !self.head.is_empty() || self.start < self.end
    }

    /// The next complete message, `None` if more must be read.
    ///
    /// # Errors
    /// What the camera sent and why it can't be taken. The stream is of no use then.
    pub fn next_message(&mut self) -> Result<Option<Incoming<'_>>, String> {
        while self.body.is_none() {
            let unparsed = self.buffer.get(self.start..self.end).unwrap_or_default();
            if self.between_messages() && unparsed.first() == Some(&b'$') {
                return Ok(self.next_data());
            }
            let Some(line) =
                unparsed.split_inclusive(|byte| *byte == b'\n').next().filter(|l| l.ends_with(b"\n"))
            else {
                // Whether this is a message at all is not left open until a line ends.
                if self.between_messages()
                    && !unparsed.iter().take(4).all(|b| b.is_ascii_alphabetic() || *b == b'\r')
                {
                    return Err(format!("the camera sent what is no RTSP: {}", excerpt(unparsed, unparsed)));
                }
                return check_head(&self.head, unparsed).map(|()| None);
            };
            mend(line, self.between_messages(), &mut self.mended);
            self.head.extend_from_slice(line);
            self.start += line.len();
            check_head(&self.head, &[])?;
            let mut input = self.mended.as_slice();
            let parsed = self.parser.feed(&mut input);
            let taken = self.mended.len() - input.len();
            match parsed {
                // An empty line between messages.
                Ok(None) => {}
                Ok(Some((message, _))) => {
                    self.reset();
                    return Ok(without_data(message, &[]));
                }
                Err(FeedError::Incomplete(incomplete)) => {
                    self.body = incomplete.needed.map(|needed| needed.get())
                }
                Err(FeedError::Invalid(invalid)) => {
                    let why = |label| invalid.context.contains(&label);
                    return Err(if why("Content-Length") {
                        format!("the camera answered with {}, which is no length", content_length(&self.head))
                    } else if why("message-too-large") {
                        too_large(&self.head)
                    } else {
                        let last = self.head.split_inclusive(|byte| *byte == b'\n').next_back();
                        format!(
                            "the camera sent what is no RTSP: {}",
                            excerpt(last.unwrap_or_default(), &self.head)
                        )
                    });
                }
            }
            self.mended.drain(..taken);
        }
        self.next_body()
    }

    /// Nothing but empty lines has come of the next message.
    fn between_messages(&self) -> bool {
        self.head.iter().all(|byte| b"\r\n".contains(byte))
    }

    /// The message whose body is awaited.
    fn next_body(&mut self) -> Result<Option<Incoming<'_>>, String> {
        let needed = self.body.unwrap_or_default();
        if needed > MAX_BODY_BYTES {
            return Err(too_large(&self.head));
        }
        let end = self.start + needed;
        if end > self.end {
            return Ok(None);
        }
        let begin = std::mem::replace(&mut self.start, end);
        self.reset();
        let body = self.buffer.get(begin..end).unwrap_or_default();
        match self.parser.feed(&mut { body }) {
            Ok(Some((message, _))) => Ok(without_data(message, body)),
            _ => Err("the camera sent what is no RTSP: a body of another length than it said".to_owned()),
        }
    }

    /// The interleaved data that begins here, once it is complete.
    fn next_data(&mut self) -> Option<Incoming<'_>> {
        let unparsed = self.buffer.get(self.start..self.end)?;
        let &[_, channel, high, low, ..] = unparsed else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let payload = unparsed.get(4..4 + length)?;
        self.start += 4 + length;
        self.head.clear();
        Some(Incoming::Data { channel, payload })
    }

    /// The next byte begins a message.
    fn reset(&mut self) {
        self.body = None;
        self.head.clear();
        self.head.shrink_to(4096);
        self.mended.clear();
        self.mended.shrink_to(4096);
    }
}

fn without_data(message: Message, body: &[u8]) -> Option<Incoming<'_>> {
    match message {
        Message::Response(response) => Some(Incoming::Response(response, body)),
        Message::Request(request) => Some(Incoming::Request(request)),
        // Interleaved data never gets as far as the parser.
        Message::Data(_) => None,
    }
}

/// Appends a line of a head as RFC 2326 wants it. A header without a value is left out: it says nothing.
fn mend(line: &[u8], is_first: bool, out: &mut Vec<u8>) {
    let line = if is_first { line.strip_suffix(b"\n").unwrap_or(line) } else { line.trim_ascii_end() };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let value = line.iter().position(|byte| *byte == b':').map(|colon| &line[colon + 1..]);
    if !is_first && !line.is_empty() && value.is_some_and(|value| value.trim_ascii().is_empty()) {
        return;
    }
    let printable = |byte: &u8| if (0x20..0x7f).contains(byte) { *byte } else { b'?' };
    out.extend(line.iter().map(|byte| if *byte == b'\t' { b' ' } else { printable(byte) }));
    out.extend_from_slice(b"\r\n");
}

/// Checks a head that is in two parts, complete or not.
fn check_head(first: &[u8], second: &[u8]) -> Result<(), String> {
    if first.len() + second.len() > MAX_HEAD_BYTES {
        return Err(format!("the camera sent a message head of more than {} KiB", MAX_HEAD_BYTES / 1024));
    }
    let lines = |part: &[u8]| part.iter().filter(|b| **b == b'\n').count();
    if lines(first) + lines(second) > MAX_HEAD_LINES {
        return Err(format!("the camera sent a message head of more than {MAX_HEAD_LINES} lines"));
    }
    Ok(())
}

fn too_large(head: &[u8]) -> String {
    let limit = MAX_BODY_BYTES / (1024 * 1024);
    format!("the camera answered with {}, and no more than {limit} MiB is taken", content_length(head))
}

/// The Content-Length lines of a head, quoted.
fn content_length(head: &[u8]) -> String {
    let lines: Vec<String> = head
        .split(|b| *b == b'\n')
        .filter(|line| line.get(..15).is_some_and(|name| name.eq_ignore_ascii_case(b"content-length:")))
        .take(3)
        .map(printable)
        .collect();
    if lines.is_empty() { "a wrong Content-Length".to_owned() } else { format!("{:?}", lines.join(" and ")) }
}

/// A few words of what could not be read: from where reading stopped, with the message's first line before it.
fn excerpt(stopped: &[u8], all: &[u8]) -> String {
    let first = printable(all);
    let here = printable(stopped);
    if here.is_empty() || first.starts_with(&here) {
        format!("{first:?}")
    } else {
        format!("{here:?} in the message that begins {first:?}")
    }
}

/// The first line of some bytes, as far as it is printable, at most 60 characters.
fn printable(bytes: &[u8]) -> String {
    let line = bytes.split(|b| *b == b'\r' || *b == b'\n').find(|l| !l.is_empty()).unwrap_or_default();
    let cut = line.get(..60).unwrap_or(line);
    cut.iter().map(|b| if (0x20..0x7f).contains(b) { *b as char } else { '.' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds bytes as reads of `step` bytes would and collects a line for each message.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<String>, String> {
        let mut framer = Framer::default();
        let mut seen = Vec::new();
        for chunk in bytes.chunks(step) {
            let mut chunk = chunk;
            while !chunk.is_empty() {
                let space = framer.space();
                let n = space.len().min(chunk.len());
                space[..n].copy_from_slice(&chunk[..n]);
                chunk = &chunk[n..];
                framer.filled(n);
                while let Some(message) = framer.next_message()? {
                    seen.push(match message {
                        Incoming::Response(r, body) => format!("{} {}", r.status_code, body.len()),
                        Incoming::Request(r) => format!("{}", r.method),
                        Incoming::Data { channel, payload } => format!("{channel}:{}", payload.len()),
                    });
                }
                assert!(framer.capacity() < 2 * 1024 * 1024, "holds {} bytes", framer.capacity());
            }
        }
        Ok(seen)
    }

    fn refusal(bytes: &[u8]) -> String {
        let whole = read(bytes, usize::MAX).expect_err("must be refused");
        let piecewise = read(bytes, 1000).expect_err("must be refused in pieces too");
        assert!(!whole.contains('\n') && !piecewise.contains('\n'));
        whole
    }

    #[test]
    fn messages_and_data_come_out_in_order_however_they_are_cut() {
        let mut bytes = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 5\r\n\r\nhello".to_vec();
        bytes.extend_from_slice(b"$\x00\x00\x04asdf$\x01\x00\x00\r\n");
        bytes.extend_from_slice(b"OPTIONS * RTSP/1.0\r\nCSeq: 9\r\n\r\n$\x02\xff\xff");
        bytes.extend_from_slice(&[7; 65535]);
        for step in [1, 2, 3, 7, 100, 4096, usize::MAX] {
            let seen = read(&bytes, step).expect("valid");
            assert_eq!(seen, ["200 5", "0:4", "1:0", "OPTIONS", "2:65535"], "step {step}");
        }
    }

    #[test]
    fn a_body_of_a_mebibyte_passes_and_its_memory_is_given_back() {
        let mut bytes = format!("RTSP/1.0 200 OK\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + MAX_BODY_BYTES, b'a');
        assert_eq!(read(&bytes, 5000).expect("valid"), [format!("200 {MAX_BODY_BYTES}")]);

        let mut framer = Framer::default();
        for chunk in bytes.chunks(5000) {
            framer.space()[..chunk.len()].copy_from_slice(chunk);
            framer.filled(chunk.len());
            assert!(framer.next_message().is_ok());
        }
        framer.space();
        assert!(framer.capacity() < 200 * 1024, "{}", framer.capacity());
    }

    #[test]
    fn endless_header_lines_are_refused() {
        let mut bytes = b"RTSP/1.0 200 OK\r\n".to_vec();
        (0..100_000).for_each(|i| bytes.extend_from_slice(format!("X-{i}: y\r\n").as_bytes()));
        assert!(refusal(&bytes).contains("head of more than"));
        let mut few_bytes = b"RTSP/1.0 200 OK\r\n".to_vec();
        (0..300).for_each(|_| few_bytes.extend_from_slice(b"a: b\r\n"));
        few_bytes.extend_from_slice(b"\r\n");
        assert!(refusal(&few_bytes).contains("256 lines"));
    }

    #[test]
    fn an_endless_header_line_is_refused() {
        let mut bytes = b"RTSP/1.0 200 OK\r\nServer: ".to_vec();
        bytes.resize(10 * 1024 * 1024, b'x');
        assert!(refusal(&bytes).contains("64 KiB"));
        let status = [b"RTSP/1.0 200 ".as_slice(), &vec![b'x'; 200_000]].concat();
        assert!(refusal(&status).contains("64 KiB"));
        assert!(refusal(&vec![b'A'; 200_000]).contains("64 KiB"));
    }

    #[test]
    fn endless_empty_lines_are_refused() {
        assert!(refusal(&b"\r\n".repeat(100_000)).contains("head of more than"));
    }

    #[test]
    fn wrong_lengths_are_refused_and_quoted() {
        let answer =
            |length: &str| refusal(format!("RTSP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes());
        assert!(answer("-5").contains("Content-Length: -5"));
        assert!(answer("99999999999").contains("Content-Length: 99999999999"));
        assert!(answer("18446744073709551615").contains("1 MiB"));
        assert!(answer("99999999999999999999999").contains("Content-Length: 999"));
        assert!(answer("1048577").contains("1 MiB"));
        assert!(answer("12abc").contains("12abc"));
        let two = answer("5\r\nContent-Length: 6");
        assert!(two.contains("Content-Length: 5 and Content-Length: 6"), "{two}");
    }

    #[test]
    fn garbage_is_refused_with_what_it_was() {
        assert!(refusal(b"HTTP/1.1 400 Bad Request\r\n\r\n").contains("HTTP/1.1 400"));
        assert!(refusal(b"\x16\x03\x01\x02\x00\x01\r\n").contains("no RTSP"));
        assert!(refusal(b"RTSP/2.0 200 OK\r\n\r\n").contains("RTSP/2.0"));
        let header = refusal(b"RTSP/1.0 200 OK\r\nno colon here\r\n\r\n");
        assert!(header.contains("begins \"RTSP/1.0 200 OK\""), "{header}");
    }

    #[test]
    fn heads_of_careless_cameras_are_mended() {
        let careless = "RTSP/1.0 200 OK\nCSeq: 3\nServer: 网络摄像机\nContent-Base:\nX-Empty: \r\nContent-Length: 4\n\n\n$\nx";
        for step in [1, 2, 5, usize::MAX] {
            assert_eq!(read(careless.as_bytes(), step).expect("mended"), ["200 4"], "step {step}");
        }
        let mut mended = Vec::new();
        mend("Server:\tKam\u{e9}ra 1 \r\n".as_bytes(), false, &mut mended);
        assert_eq!(mended, b"Server: Kam??ra 1\r\n");
    }

    #[test]
    fn a_length_that_is_too_short_is_noticed_at_the_next_message() {
        assert!(refusal(b"RTSP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nv=0\r\no=-\r\n").contains("no RTSP"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(
            parts in proptest::collection::vec(proptest::prop_oneof![
                proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..40),
                proptest::strategy::Just(b"RTSP/1.0 200 OK\r\n".to_vec()),
                proptest::strategy::Just(b"Content-Length: 9\r\n".to_vec()),
                proptest::strategy::Just(b"\r\n".to_vec()),
                proptest::strategy::Just(b"$\x00\x00\x03abc".to_vec()),
                proptest::strategy::Just(b"OPTIONS * RTSP/1.0\r\n".to_vec()),
            ], 0..20),
            step in 1usize..50,
        ) {
            let bytes = parts.concat();
            let (whole, pieces) = (read(&bytes, usize::MAX), read(&bytes, step));
            proptest::prop_assert_eq!(whole.is_ok(), pieces.is_ok());
            if whole.is_ok() {
                proptest::prop_assert_eq!(whole, pieces);
            }
        }
    }
}
