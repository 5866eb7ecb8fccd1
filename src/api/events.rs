//! `GET /api/events`: what happens to streams and viewers, as server-sent events.

use super::Api;
use super::error::{ApiError, ErrorBody};
use super::views::rfc3339;
use crate::graph::events::{Heard, StreamChange};
use crate::graph::{Event, SourceError};
use crate::telemetry::mask;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Clients at most: each holds a connection.
const MAX_CLIENTS: usize = 256;
/// A comment is sent after so long without an event, so that proxies and clients know that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// What happens from now on, as server-sent events
///
/// `state`, `viewer`, `stream`, `config`, and `lost` for a client that was too slow; a comment every 15 s.
#[utoipa::path(get, path = "/api/events", tag = "streams",
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Goes on until it is closed"),
        (status = 503, description = "As many clients as allowed", body = ErrorBody)))]
async fn events(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    if api.registry.events().listeners() >= MAX_CLIENTS {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too many listeners")
            .detail(format!("{MAX_CLIENTS} clients listen, that is the limit"))
            .header(header::RETRY_AFTER, HeaderValue::from_static("10")));
    }
    let (listener, ending) = (api.registry.events().listen(), Box::pin(api.registry.ending()));
    let stream = futures_util::stream::unfold((listener, ending), |(mut listener, mut ending)| async move {
        let heard = tokio::select! {
            biased;
            () = &mut ending => return None,
            heard = listener.next() => heard?,
        };
        let (name, data) = written(&heard, SystemTime::now());
        let event = sse::Event::default().event(name).data(data.to_string());
        Some((Ok::<_, Infallible>(event), (listener, ending)))
    });
    let sse = Sse::new(stream).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    // Some proxies hold back what they are not told to pass on.
    Ok(([("x-accel-buffering", "no")], sse).into_response())
}

/// The event's name and its JSON.
fn written(heard: &Heard, now: SystemTime) -> (&'static str, Value) {
    let (name, mut data) = match heard {
        Heard::Lost(events) => ("lost", json!({"events": events})),
        Heard::Event(Event::Configured) => ("config", json!({})),
        Heard::Event(Event::Stream { stream, change }) => {
            let change = match change {
                StreamChange::Created => "created",
                StreamChange::Changed => "changed",
                StreamChange::Removed => "removed",
            };
            ("stream", json!({"stream": stream, "change": change}))
        }
        Heard::Event(Event::State { stream, state, error }) => {
            let error = error.as_ref().map(SourceError::to_string);
            let error = error.as_deref().map(mask);
            ("state", json!({"stream": stream, "state": state.as_str(), "last_error": error}))
        }
        Heard::Event(Event::Joined { stream, id, format_name, remote_addr, user_agent }) => {
            let viewer = json!({
                "stream": stream, "change": "joined", "id": id, "format_name": format_name,
                "remote_addr": remote_addr, "user_agent": user_agent,
            });
            ("viewer", viewer)
        }
        Heard::Event(Event::Left { stream, id }) => {
            ("viewer", json!({"stream": stream, "change": "left", "id": id}))
        }
    };
    if let Some(fields) = data.as_object_mut() {
        fields.insert("time".to_owned(), rfc3339(now).into());
    }
    (name, data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::State as StreamState;

    #[test]
    fn an_event_names_what_happened_and_no_credentials() {
        let error = Some(SourceError::Unreachable("rtsp://u:hunter2@cam/1 is gone".into()));
        let state = Event::State { stream: "front".into(), state: StreamState::Retrying, error };
        let (name, data) = written(&Heard::Event(state), SystemTime::UNIX_EPOCH);
        let expected = json!({
            "stream": "front", "state": "retrying", "last_error": "rtsp://***@cam/1 is gone",
            "time": "1970-01-01T00:00:00.000Z",
        });
        assert_eq!((name, data), ("state", expected));
        assert_eq!(written(&Heard::Lost(7), SystemTime::UNIX_EPOCH).1["events"], 7);
    }
}
