//! The bounded connection: messages in and out of one TCP stream, safe to cancel at any await.

use crate::rtsp::{Framer, Incoming, Limits};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;

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
    stream: Arc<TcpStream>,
    framer: Framer,
    unsent: Vec<u8>,
    /// The camera's address.
    pub peer: SocketAddr,
    /// Our address on this connection.
    pub local: SocketAddr,
}

impl Wire {
    /// Takes a connected stream.
    ///
    /// # Errors
    /// When the stream is closed already.
    pub fn new(stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        Ok(Wire {
            stream: Arc::new(stream),
            framer: Framer::new(Limits::CLIENT),
            unsent: Vec::new(),
            peer,
            local,
        })
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
        self.try_write()
    }

    /// Waits until the connection can do something, then reads once (up to the buffer's room) and writes what waits.
    ///
    /// # Errors
    /// [`WireError::Closed`].
    pub async fn pump(&mut self) -> Result<(), WireError> {
        let interest =
            if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        self.stream.ready(interest).await.map_err(closed)?;
        self.try_write()?;
        match self.stream.try_read(self.framer.space()) {
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
            Err(e) if is_transient(&e) => Ok(()),
            Err(e) => Err(closed(e)),
        }
    }

    fn try_write(&mut self) -> Result<(), WireError> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(e) if is_transient(&e) => break,
                Err(e) => return Err(closed(e)),
            }
        }
        Ok(())
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
        let stream = Arc::clone(&self.stream);
        runtime.spawn(tokio::time::timeout(FAREWELL, async move {
            if socket2::SockRef::from(&*stream).shutdown(Shutdown::Write).is_err() {
                return;
            }
            let mut unread = [0; 4096];
            while stream.readable().await.is_ok() {
                match stream.try_read(&mut unread) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(e) if is_transient(&e) => {}
                    Err(_) => break,
                }
            }
        }));
    }
}

fn is_transient(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn closed(e: io::Error) -> WireError {
    WireError::Closed(match e.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "the camera cut the connection".to_owned()
        }
        _ => format!("the connection to the camera broke: {e}"),
    })
}
