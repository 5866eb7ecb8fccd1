//! The output of a child process, line by line, with deadlines.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that a thread reads from a pipe; the thread ends with the pipe or with this value.
pub struct Lines(Receiver<String>);

impl Lines {
    pub fn of(pipe: impl Read + Send + 'static) -> Lines {
        let (send, receive) = sync_channel(1000);
        std::thread::spawn(move || {
            BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Lines(receive)
    }

    /// The next line, or `Err` with what went wrong.
    pub fn next(&self, deadline: Duration) -> Result<String, &'static str> {
        self.0.recv_timeout(deadline).map_err(|error| match error {
            RecvTimeoutError::Timeout => "no line before the deadline",
            RecvTimeoutError::Disconnected => "the process closed its output",
        })
    }

    /// The first line from now on for which `find` gives a value.
    pub fn find<T>(
        &self,
        deadline: Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, &'static str> {
        let end = Instant::now() + deadline;
        loop {
            let line = self.next(end.saturating_duration_since(Instant::now()))?;
            if let Some(value) = find(&line) {
                return Ok(value);
            }
        }
    }
}
