//! The bounded connection: messages in and out of one stream, TCP or TLS, safe to cancel at any await.

use crate::net::{Connected, Stream};
use crate::rtsp::{Framer, Incoming, Limits};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Most bytes that may wait to be sent. A camera that doesn't read is given up then.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// How long a camera has to take leave.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why the connection is of no use any more.
#[derive(Debug)]
pub enum WireError {
    /// The camera closed it, or the network did.
    Closed(String),
    /// The camera sent what can't be taken.
    Nonsense(String),
}

/// One RTSP connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    framer: Framer,
    unsent: Vec<u8>,
    /// TLS may hold back what the socket did not take.
    needs_flush: bool,
    /// The camera's address.
    pub peer: SocketAddr,
    /// Our address on this connection.
    pub local: SocketAddr,
}

impl Wire {
    /// Takes a connection.
    pub fn new(connected: Connected) -> Wire {
        let Connected { stream, peer, local } = connected;
        let framer = Framer::new(Limits::CLIENT);
        Wire { stream, framer, unsent: Vec::new(), needs_flush: false, peer, local }
    }

    /// The next message among the bytes already read; `None` if [`Wire::pump`] must read more.
    ///
    /// # Errors
    /// [`WireError::Nonsense`].
    pub fn next_message(&mut self) -> Result<Option<Incoming<'_>>, WireError> {
        self.framer.next_message().map_err(|why| WireError::Nonsense(format!("the camera {why}")))
    }

    /// Queues a message and sends what can be sent at once; [`Wire::pump`] sends the rest.
    ///
    /// # Errors
    /// [`WireError::Closed`], also when too much is waiting.
    pub fn send(&mut self, message: &str) -> Result<(), WireError> {
        if self.unsent.len() + message.len() > MAX_UNSENT_BYTES {
            return Err(WireError::Closed("the camera has stopped reading what it is sent".to_owned()));
        }
        self.unsent.extend_from_slice(message.as_bytes());
        match self.poll_write(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(e)) => Err(closed(e)),
            // What is left is for `pump`, which waits for its turn.
            _ => Ok(()),
        }
    }

    /// Waits until there is something to read and reads once (up to the buffer's room); meanwhile writes what waits.
    ///
    /// # Errors
    /// [`WireError::Closed`].
    pub async fn pump(&mut self) -> Result<(), WireError> {
        match poll_fn(|cx| self.poll_pump(cx)).await {
            Ok(0) => Err(WireError::Closed(
                if self.framer.is_inside_message() {
                    "the camera closed the connection in the middle of a message"
                } else {
                    "the camera closed the connection"
                }
                .to_owned(),
            )),
            Ok(count) => {
                self.framer.filled(count);
                Ok(())
            }
            Err(e) => Err(closed(e)),
        }
    }

    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(e)) = self.poll_write(cx) {
            return Poll::Ready(Err(e));
        }
        let mut space = ReadBuf::new(self.framer.space());
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space))?;
        Poll::Ready(Ok(space.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => drop(self.unsent.drain(..count)),
            }
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether a message has begun to arrive and is not complete.
    pub fn is_inside_message(&self) -> bool {
        self.framer.is_inside_message()
    }

    /// Sends a last message if that can be done at once, and lets a task of its own see it off for at most
    /// [`FAREWELL`]: closing at once, with media unread, would reset the connection before the camera reads it.
    pub fn say_farewell(&mut self, message: &str) {
        if self.send(message).is_err() || !self.unsent.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut stream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        runtime.spawn(tokio::time::timeout(FAREWELL, async move {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
        }));
    }
}

fn closed(e: io::Error) -> WireError {
    WireError::Closed(match e.kind() {
        // The last: over TLS, without a word.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            "the camera cut the connection".to_owned()
        }
        _ => format!("the connection to the camera broke: {e}"),
    })
}
