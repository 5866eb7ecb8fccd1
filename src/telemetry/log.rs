//! Log lines on standard error, as text or JSON, with credentials hidden.

use super::mask;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

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

/// Changes what is logged, and how, while the program runs.
#[derive(Clone)]
pub struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
    style: Arc<AtomicU8>,
}

impl Control {
    /// From now on. `filter` is in [`EnvFilter`]'s syntax: `info,streamgate::api=debug`.
    ///
    /// # Errors
    /// The filter cannot be read; nothing was changed.
    pub fn set(&self, filter: &str, format: Format) -> Result<(), String> {
        self.filter.reload(read(filter)?).map_err(|error| error.to_string())?;
        self.style.store(Style::of(format) as u8, Relaxed);
        Ok(())
    }
}

/// Starts logging to standard error. `filter` is in [`EnvFilter`]'s syntax.
///
/// # Errors
/// The filter cannot be read, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<Control, String> {
    let (control, subscriber) = subscriber(filter, format, io::stderr)?;
    subscriber.try_init().map_err(|error| format!("logging was started before: {error}"))?;
    Ok(control)
}

fn subscriber<W>(
    filter: &str,
    format: Format,
    writer: W,
) -> Result<(Control, impl Subscriber + Send + Sync), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(read(filter)?);
    let style = Arc::new(AtomicU8::new(Style::of(format) as u8));
    let lines = Lines {
        style: style.clone(),
        text: fmt::format(),
        json: fmt::format().json().flatten_event(true).with_current_span(false).with_span_list(false),
    };
    let layer = fmt::layer().event_format(lines).with_writer(Masked(writer));
    Ok((Control { filter: handle, style }, tracing_subscriber::registry().with(filter).with(layer)))
}

fn read(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter).map_err(|error| format!("log filter {filter:?}: {error}"))
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Color,
    Text,
    Json,
}

impl Style {
    fn of(format: Format) -> Style {
        let is_terminal = || {
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        };
        match format {
            Format::Json => Style::Json,
            Format::Color => Style::Color,
            Format::Auto if is_terminal() => Style::Color,
            Format::Auto | Format::Text => Style::Text,
        }
    }
}

/// Writes each line in the style of the moment.
struct Lines {
    style: Arc<AtomicU8>,
    text: fmt::format::Format,
    json: fmt::format::Format<fmt::format::Json>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let style = self.style.load(Relaxed);
        if style == Style::Json as u8 {
            return self.json.format_event(context, writer, event);
        }
        self.text.clone().with_ansi(style == Style::Color as u8).format_event(context, writer, event)
    }
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

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

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
        for format in [Format::Json, Format::Color, Format::Text] {
            let sink = Sink::default();
            let writer = sink.clone();
            let (_, subscriber) = subscriber("info", format, move || writer.clone()).unwrap();
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!(url = "rtsp://user:hunter2@host/1", error = %"no http://a:hunter2@b", "dialing rtsp://x:hunter2@y");
            });
            let text = sink.text();
            assert!(text.contains("rtsp://***@host/1") && text.contains("http://***@b"), "{text}");
            assert!(text.contains("dialing rtsp://***@y") && !text.contains("hunter2"), "{text}");
            assert_eq!(text.contains('\u{1b}'), format == Format::Color, "{text}");
            if format == Format::Json {
                serde_json::from_str::<serde_json::Value>(&text).unwrap();
            }
        }
    }

    #[test]
    fn level_and_format_change_while_it_runs() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (control, subscriber) = subscriber("info", Format::Text, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            // A span that began in the old format.
            let _span = tracing::error_span!("dial", n = 1).entered();
            tracing::debug!("not yet");
            control.set("debug", Format::Json).unwrap();
            tracing::debug!("now");
            assert!(control.set("streamgate=nonsense", Format::Text).is_err());
            control.set("error", Format::Color).unwrap();
            tracing::warn!("no more");
            tracing::error!("red");
        });
        let text = sink.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(lines[0]).unwrap()["message"], "now");
        assert!(lines[1].contains("red") && lines[1].contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_bad_filter_is_an_error() {
        assert!(init("streamgate=nonsense", Format::Auto).is_err_and(|why| why.contains("nonsense")));
    }
}
