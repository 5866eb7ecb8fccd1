//! Log lines on standard error, as text or JSON, with credentials hidden.

use super::mask;
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Colour on a terminal (unless `NO_COLOR` is set), plain text elsewhere.
    #[default]
    Auto,
    /// Always with colour.
    Color,
    /// Never with colour.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Starts logging to standard error. `filter` is in [`EnvFilter`]'s syntax: `info,streamgate::api=debug`.
///
/// # Errors
/// The filter cannot be read, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter {filter:?}: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Masked(io::stderr));
    let color = match format {
        Format::Auto => {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        }
        Format::Color => true,
        Format::Text | Format::Json => false,
    };
    let started = match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        _ => builder.with_ansi(color).try_init(),
    };
    started.map_err(|error| format!("logging was started before: {error}"))
}

/// Hides credentials in whatever is written through it: the last defence, whoever wrote the line.
#[derive(Debug, Clone, Copy)]
struct Masked<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Masked<M> {
    type Writer = MaskedWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        MaskedWriter(self.0.make_writer())
    }
}

/// The subscriber writes each line in one piece, so a URL is never split.
struct MaskedWriter<W>(W);

impl<W: Write> Write for MaskedWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(mask(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn credentials_never_reach_the_log() {
        for json in [false, true] {
            let sink = Sink::default();
            let writer = sink.clone();
            let builder = tracing_subscriber::fmt().with_writer(Masked(move || writer.clone()));
            let log = || {
                tracing::info!(url = "rtsp://user:hunter2@host/1", error = %"no http://a:hunter2@b", "dialing rtsp://x:hunter2@y");
            };
            if json {
                tracing::subscriber::with_default(builder.json().flatten_event(true).finish(), log);
            } else {
                tracing::subscriber::with_default(builder.with_ansi(true).finish(), log);
            }
            let text = String::from_utf8(sink.0.lock().clone()).unwrap();
            assert!(text.contains("rtsp://***@host/1") && text.contains("http://***@b"), "{text}");
            assert!(text.contains("dialing rtsp://***@y") && !text.contains("hunter2"), "{text}");
            if json {
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
        }
    }

    #[test]
    fn a_bad_filter_is_an_error() {
        assert!(init("streamgate=nonsense", Format::Auto).unwrap_err().contains("nonsense"));
    }
}
