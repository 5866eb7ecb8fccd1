//! `GET /api/streams.dot`: sources → streams → consumers for Graphviz.

use super::Api;
use crate::graph::Stream;
use crate::telemetry::mask;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Characters of one label at most.
const MAX_LABEL: usize = 360;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(dot))
}

/// Sources → streams → consumers, for Graphviz
#[utoipa::path(get, path = "/api/streams.dot", tag = "streams",
    responses((status = 200, body = String, content_type = "text/vnd.graphviz", description = "A directed graph")))]
async fn dot(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let headers =
        [(header::CONTENT_TYPE, "text/vnd.graphviz; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, graph(&api.registry.list()))
}

/// The whole graph.
fn graph(streams: &[Arc<Stream>]) -> String {
    let mut text = String::from("digraph streamgate {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for (index, stream) in streams.iter().enumerate() {
        let node = |id: String, label: &str| format!("  {id} [label=\"{}\"];\n", quoted(label));
        let title = format!("{}\n{}", stream.name(), stream.state().as_str());
        let _ = writeln!(text, "  s{index} [label=\"{}\", shape=folder, style=solid];", quoted(&title));
        for (place, producer) in stream.producers().iter().enumerate() {
            let (url, status, seen) = (mask(producer.url()), producer.status(), producer.observed());
            let label =
                format!("{}\n{url}\n{}, {} bytes", producer.format_name(), status.state.as_str(), seen.bytes);
            text.push_str(&node(format!("p{index}_{place}"), &label));
            let codecs = names(producer.epoch().tracks.iter().map(|track| track.codec.name()));
            let _ = writeln!(text, "  p{index}_{place} -> s{index} [label=\"{codecs}\"];");
        }
        for consumer in stream.consumers() {
            let (id, info) = (consumer.id, consumer.info.lock().clone());
            let label = format!(
                "{} {id}\n{}\n{}\n{} bytes",
                info.format_name,
                mask(&info.remote_addr),
                mask(&info.user_agent),
                consumer.bytes.load(Relaxed)
            );
            text.push_str(&node(format!("c{id}"), &label));
            let codecs = names(info.codecs.iter().map(|codec| codec.name()));
            let _ = writeln!(text, "  s{index} -> c{id} [label=\"{codecs}\"];");
        }
    }
    text.push_str("}\n");
    text
}

fn names<'n>(codecs: impl Iterator<Item = &'n str>) -> String {
    codecs.collect::<Vec<_>>().join(", ")
}

/// A text within double quotes. What a client or a configuration gave can't end them, nor become one of Graphviz's
/// escapes (`\N`, `\G` …).
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for (count, c) in text.chars().enumerate() {
        match c {
            _ if count == MAX_LABEL => break,
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_not_break_out_of_their_quotes() {
        assert_eq!(quoted("a\"; b [label=\\N]\r\nc"), "a\\\"; b [label=\\\\N] \\nc");
        assert_eq!(quoted(&"금".repeat(1000)).chars().count(), MAX_LABEL);
    }
}
