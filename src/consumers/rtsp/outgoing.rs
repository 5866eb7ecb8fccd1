//! What waits to be written to one connection: answers and packets, in their order, each payload shared with all others
//! who send it.

use crate::rtsp::framing::data_head;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Bytes of an RTP header without contributing sources and extension.
const RTP_HEAD: usize = 12;
/// Parts that one system call is given at most. A packet has two.
const PARTS: usize = 128;

/// The queue of one connection. Who fills it looks at [`Outgoing::bytes`] first.
#[derive(Default)]
pub struct Outgoing {
    items: VecDeque<Item>,
    /// Bytes of the first item that are written already.
    written: usize,
    bytes: usize,
    /// Of these, bytes of items that are text.
    text: usize,
    needs_flush: bool,
    /// Media packets and their bytes, RTP header included, that were written since [`Outgoing::take_sent`].
    sent: (u64, u64),
}

enum Item {
    Text(Vec<u8>),
    /// Interleaved head and RTP header, then the payload.
    Media {
        head: [u8; 4 + RTP_HEAD],
        payload: Arc<[u8]>,
    },
}

impl Item {
    fn parts(&self) -> [&[u8]; 2] {
        match self {
            Item::Text(text) => [text, &[]],
            Item::Media { head, payload } => [head, payload],
        }
    }

    fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

impl Outgoing {
    /// An answer, or an RTCP packet with its interleaved head.
    pub fn push_text(&mut self, text: Vec<u8>) {
        self.text += text.len();
        self.push(Item::Text(text));
    }

    /// One RTP packet. Payloads that don't fit into an interleaved packet are left out.
    pub fn push_media(&mut self, channel: u8, header: [u8; RTP_HEAD], payload: Arc<[u8]>) {
        let Ok(length) = u16::try_from(RTP_HEAD + payload.len()) else { return };
        let mut head = [0; 4 + RTP_HEAD];
        let (data, rtp) = head.split_at_mut(4);
        data.copy_from_slice(&data_head(channel, length));
        rtp.copy_from_slice(&header);
        self.push(Item::Media { head, payload });
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.len();
        self.items.push_back(item);
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of answers and RTCP that wait.
    pub fn text(&self) -> usize {
        self.text
    }

    /// Whether everything is on its way.
    pub fn is_idle(&self) -> bool {
        self.items.is_empty() && !self.needs_flush
    }

    /// Media packets and bytes that were written since this was called last.
    pub fn take_sent(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.sent)
    }

    /// Writes as much as the stream takes: many packets with each call. Gives how many bytes were written, once at least
    /// one was or everything is flushed.
    pub fn poll_write<S: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while !self.items.is_empty() {
            let mut slices = [IoSlice::new(&[]); PARTS];
            let mut count = 0;
            let mut skip = self.written;
            for part in self.items.iter().take(PARTS / 2).flat_map(Item::parts) {
                let Some(rest) = part.get(skip..) else {
                    skip -= part.len();
                    continue;
                };
                skip = 0;
                if let (false, Some(slice)) = (rest.is_empty(), slices.get_mut(count)) {
                    *slice = IoSlice::new(rest);
                    count += 1;
                }
            }
            let slices = slices.get(..count).unwrap_or_default();
            match Pin::new(&mut *stream).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.advance(written);
                    self.needs_flush = true;
                    total += written;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.needs_flush {
            // TLS keeps records back that the socket did not take.
            match Pin::new(stream).poll_flush(cx) {
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                flushed => ready!(flushed)?,
            }
            self.needs_flush = false;
        }
        Poll::Ready(Ok(total))
    }

    fn advance(&mut self, written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        self.written += written;
        while let Some(length) = self.items.front().map(Item::len).filter(|length| *length <= self.written) {
            self.written -= length;
            match self.items.pop_front() {
                Some(Item::Media { payload, .. }) => {
                    self.sent.0 += 1;
                    self.sent.1 += (RTP_HEAD + payload.len()) as u64;
                }
                Some(Item::Text(text)) => self.text -= text.len(),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn everything_arrives_in_order_however_little_the_stream_takes_at_once() {
        for size in [1, 7, 64, 100_000] {
            let (mut near, mut far) = tokio::io::duplex(size);
            let mut out = Outgoing::default();
            let mut expected = b"RTSP/1.0 200 OK\r\n\r\n".to_vec();
            out.push_text(expected.clone());
            for n in 0..200_u8 {
                let payload: Arc<[u8]> = vec![n; usize::from(n)].into();
                out.push_media(n, [n; 12], payload.clone());
                expected.extend_from_slice(&[b'$', n, 0, n + 12]);
                expected.extend_from_slice(&[n; 12]);
                expected.extend_from_slice(&payload);
            }
            assert_eq!(out.bytes(), expected.len());
            let reader = tokio::spawn(async move {
                let mut all = Vec::new();
                far.read_to_end(&mut all).await.map(|_| all)
            });
            while !out.is_idle() {
                poll_fn(|cx| out.poll_write(&mut near, cx)).await.expect("written");
            }
            drop(near);
            assert!(reader.await.expect("no panic").expect("read") == expected, "{size}");
            assert_eq!((out.bytes(), out.text()), (0, 0));
            assert_eq!((out.take_sent().0, out.take_sent()), (200, (0, 0)));
        }
    }

    #[test]
    fn what_an_interleaved_packet_can_not_carry_is_left_out() {
        let mut out = Outgoing::default();
        out.push_media(0, [0; 12], vec![0; 65_524].into());
        assert!(out.is_idle());
        out.push_media(0, [0; 12], vec![0; 65_523].into());
        assert_eq!(out.bytes(), 4 + 65_535);
    }
}
