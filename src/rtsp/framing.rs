//! Messages and interleaved data (RFC 2326 §4, §10.12) out of a byte stream, with bounds.
//!
//! Lenient where cameras and players are careless: lines that end without a carriage return, headers without a value,
//! text in the vendor's own alphabet, empty lines between messages.

use super::message::{Headers, Request, Response, Start};

/// Bounds of one connection's messages.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of a head.
    pub head_bytes: usize,
    /// Most lines of a head.
    pub head_lines: usize,
    /// Most bytes of a body.
    pub body_bytes: usize,
    /// What one read is offered at least.
    pub read_bytes: usize,
}

impl Limits {
    /// For a client: a camera's answers, and media in large reads.
    pub const CLIENT: Limits =
        Limits { head_bytes: 64 * 1024, head_lines: 256, body_bytes: 1024 * 1024, read_bytes: 64 * 1024 };
    /// For a server: what players ask is short, and there are many of them.
    pub const SERVER: Limits =
        Limits { head_bytes: 16 * 1024, head_lines: 64, body_bytes: 16 * 1024, read_bytes: 2 * 1024 };
}

/// What came.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// An answer and its body.
    Response(Response, &'a [u8]),
    /// A request and its body.
    Request(Request, &'a [u8]),
    /// Interleaved binary data.
    Data {
        /// The channel it is for.
        channel: u8,
        /// An RTP or RTCP packet.
        payload: &'a [u8],
    },
}

/// Cuts a byte stream into messages. Holds at most one message or packet and a read's worth more.
pub struct Framer {
    limits: Limits,
    buffer: Vec<u8>,
    /// The unparsed bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The lines taken of the message that is being read, as they came.
    head: Vec<u8>,
    lines: usize,
    /// The message that is being read: its first line and the header fields so far.
    message: Option<(Start, Headers)>,
    /// The head is complete and a body of so many bytes follows.
    body: Option<usize>,
}

impl Framer {
    /// Nothing read yet.
    pub fn new(limits: Limits) -> Framer {
        Framer {
            limits,
            buffer: vec![0; limits.read_bytes * 2],
            start: 0,
            end: 0,
            head: Vec::new(),
            lines: 0,
            message: None,
            body: None,
        }
    }

    /// Room for the next read; tell with [`Framer::filled`] how much was read.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let usual = self.limits.read_bytes * 2;
        let wanted = (self.end + self.limits.read_bytes).max(usual);
        if wanted > self.buffer.len() {
            // Only a body or a packet makes it grow, and both are bounded.
            let size = wanted.next_multiple_of(usual);
            self.buffer.reserve_exact(size - self.buffer.len());
            self.buffer.resize(size, 0);
        } else if self.buffer.len() > usual && wanted == usual {
            self.buffer.truncate(usual);
            self.buffer.shrink_to_fit();
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that `count` bytes were written into [`Framer::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Bytes that were read and not taken yet.
    pub fn unparsed(&self) -> usize {
        self.end - self.start
    }

    /// Bytes of memory the buffers hold.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity() + self.head.capacity()
    }

    /// Whether a message has begun and is not complete.
    pub fn is_inside_message(&self) -> bool {
        !self.head.is_empty() || self.start < self.end
    }

    /// The next complete message, `None` if more must be read.
    ///
    /// # Errors
    /// What the other side did, beginning with the verb: `sent what is no RTSP: …`. The stream is of no use then.
    pub fn next_message(&mut self) -> Result<Option<Incoming<'_>>, String> {
        while self.body.is_none() {
            let unparsed = self.buffer.get(self.start..self.end).unwrap_or_default();
            let is_between = self.message.is_none();
            if is_between && unparsed.first() == Some(&b'$') {
                return Ok(self.next_data());
            }
            let Some(line) =
                unparsed.split_inclusive(|byte| *byte == b'\n').next().filter(|l| l.ends_with(b"\n"))
            else {
                // Whether this is a message at all is not left open until a line ends.
                if is_between && !unparsed.iter().take(4).all(|b| b.is_ascii_alphabetic() || *b == b'\r') {
                    return Err(format!("sent what is no RTSP: {}", excerpt(unparsed, unparsed)));
                }
                return self.check_head(unparsed.len()).map(|()| None);
            };
            let (length, text) = (line.len(), text_of(line));
            self.head.extend_from_slice(line);
            self.start += length;
            self.lines += 1;
            self.check_head(0)?;
            self.take_line(&text)?;
        }
        let needed = self.body.unwrap_or_default();
        let end = self.start + needed;
        if end > self.end {
            return Ok(None);
        }
        let begin = std::mem::replace(&mut self.start, end);
        let message = self.message.take();
        self.reset();
        let body = self.buffer.get(begin..end).unwrap_or_default();
        Ok(message.map(|(start, headers)| match start {
            Start::Request { method, uri } => Incoming::Request(Request { method, uri, headers }, body),
            Start::Response { status, reason } => {
                Incoming::Response(Response { status, reason, headers }, body)
            }
        }))
    }

    /// Takes one line of a head.
    fn take_line(&mut self, line: &str) -> Result<(), String> {
        let Some((_, headers)) = &mut self.message else {
            // Empty lines between messages are passed over.
            if !line.is_empty() {
                let start = Start::parse(line).ok_or_else(|| self.no_rtsp())?;
                self.message = Some((start, Headers::default()));
            }
            return Ok(());
        };
        if line.is_empty() {
            let length = headers.get("Content-Length").map(str::to_owned);
            self.body = Some(length.map_or(Ok(0), |length| self.body_length(&length))?);
            return Ok(());
        }
        if line.starts_with(' ') && headers.continue_last(line.trim()) {
            return Ok(());
        }
        let Some((name, value)) = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()))
        else {
            return Err(self.no_rtsp());
        };
        if name.is_empty() || name.contains(' ') {
            return Err(self.no_rtsp());
        }
        // A header without a value says nothing.
        if !value.is_empty() {
            headers.add(name, value);
        }
        Ok(())
    }

    fn body_length(&self, text: &str) -> Result<usize, String> {
        let quoted = content_length(&self.head);
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("sent {quoted}, which is no length"));
        }
        let most = self.limits.body_bytes;
        text.parse().ok().filter(|length| *length <= most).ok_or_else(|| {
            let limit =
                if most >= 1 << 20 { format!("{} MiB", most >> 20) } else { format!("{} KiB", most >> 10) };
            format!("sent {quoted}, and no more than {limit} is taken")
        })
    }

    fn no_rtsp(&self) -> String {
        let last = self.head.split_inclusive(|byte| *byte == b'\n').next_back().unwrap_or_default();
        format!("sent what is no RTSP: {}", excerpt(last, &self.head))
    }

    /// Checks the head so far, and so many bytes of an unfinished line.
    fn check_head(&self, more_bytes: usize) -> Result<(), String> {
        let Limits { head_bytes, head_lines, .. } = self.limits;
        if self.head.len() + more_bytes > head_bytes {
            return Err(format!("sent a message head of more than {} KiB", head_bytes / 1024));
        }
        if self.lines > head_lines {
            return Err(format!("sent a message head of more than {head_lines} lines"));
        }
        Ok(())
    }

    /// The interleaved data that begins here, once it is complete.
    fn next_data(&mut self) -> Option<Incoming<'_>> {
        let unparsed = self.buffer.get(self.start..self.end)?;
        let &[_, channel, high, low, ..] = unparsed else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let payload = unparsed.get(4..4 + length)?;
        self.start += 4 + length;
        self.head.clear();
        self.lines = 0;
        Some(Incoming::Data { channel, payload })
    }

    /// The next byte begins a message.
    fn reset(&mut self) {
        self.body = None;
        self.lines = 0;
        self.head.clear();
        self.head.shrink_to(4096);
    }
}

/// What goes before interleaved data of that length.
pub fn data_head(channel: u8, length: u16) -> [u8; 4] {
    let [high, low] = length.to_be_bytes();
    [b'$', channel, high, low]
}

/// Appends one interleaved packet: its head, and what `write` appends, at most 64 KiB.
pub fn interleave(channel: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&data_head(channel, 0));
    let start = out.len();
    write(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out.truncate(start + usize::from(length));
    if let Some(head) = out.get_mut(begin..start) {
        head.copy_from_slice(&data_head(channel, length));
    }
}

/// A line without its end. Tabs and what else is not printable become harmless.
fn text_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line.trim_ascii_end());
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '?'
            } else {
                c
            }
        })
        .collect()
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

    const BODY: usize = Limits::CLIENT.body_bytes;

    /// Feeds bytes as reads of `step` bytes would and collects a line for each message.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<String>, String> {
        let mut framer = Framer::new(Limits::CLIENT);
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
                        Incoming::Response(r, body) => format!("{} {}", r.status, body.len()),
                        Incoming::Request(r, _) => r.method,
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
        let mut bytes = format!("RTSP/1.0 200 OK\r\nContent-Length: {BODY}\r\n\r\n").into_bytes();
        bytes.resize(bytes.len() + BODY, b'a');
        assert_eq!(read(&bytes, 5000).expect("valid"), [format!("200 {BODY}")]);

        let mut framer = Framer::new(Limits::CLIENT);
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
        assert_eq!(text_of("Server:\tKam\u{e9}ra\u{7} 1 \r\n".as_bytes()), "Server: Kam\u{e9}ra? 1");
        assert_eq!(text_of(b"Server: \xcd\xf8\r\n"), "Server: \u{fffd}\u{fffd}");
    }

    #[test]
    fn requests_keep_their_body_and_folded_lines() {
        let mut framer = Framer::new(Limits::SERVER);
        let bytes = b"SET_PARAMETER rtsp://h/x RTSP/1.0\r\nCSeq: 7\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nhi$\x01\x00\x02ab";
        framer.space()[..bytes.len()].copy_from_slice(bytes);
        framer.filled(bytes.len());
        let Ok(Some(Incoming::Request(request, b"hi"))) = framer.next_message() else { panic!("a request") };
        assert_eq!((request.method.as_str(), request.uri.as_str()), ("SET_PARAMETER", "rtsp://h/x"));
        assert_eq!((request.headers.get("cseq"), request.headers.get("X")), (Some("7"), Some("a b")));
        assert!(matches!(framer.next_message(), Ok(Some(Incoming::Data { channel: 1, payload: b"ab" }))));
        assert!(matches!(framer.next_message(), Ok(None)));
        assert!(!framer.is_inside_message());
    }

    #[test]
    fn what_is_interleaved_reads_back() {
        let mut bytes = Vec::new();
        interleave(3, &mut bytes, |out| out.extend_from_slice(b"packet"));
        interleave(4, &mut bytes, |out| out.resize(out.len() + 70_000, 1));
        assert_eq!(read(&bytes, 1000).expect("valid"), ["3:6", "4:65535"]);
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
