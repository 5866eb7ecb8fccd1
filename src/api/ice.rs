//! ICE servers for players: `/api/ice` as JSON, and the `Link` headers of WHEP (RFC 9725 §4.6).

use super::Api;
use crate::config::IceServer;
use axum::Json;
use axum::extract::State;
use axum::http::HeaderValue;
use serde::Serialize;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(ice_servers))
}

/// What `new RTCPeerConnection({iceServers})` takes.
#[derive(Serialize, utoipa::ToSchema)]
struct IceServerView {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    credential: String,
}

#[derive(Serialize, utoipa::ToSchema)]
struct IceServersView {
    ice_servers: Vec<IceServerView>,
}

/// ICE servers for players
#[utoipa::path(get, path = "/api/ice", tag = "webrtc",
    responses((status = 200, body = IceServersView, description = "For `new RTCPeerConnection({iceServers})`")))]
async fn ice_servers(State(api): State<Arc<Api>>) -> Json<IceServersView> {
    let view = |server: &IceServer| IceServerView {
        urls: server.urls.clone(),
        username: server.username.clone(),
        credential: server.credential.clone(),
    };
    Json(IceServersView { ice_servers: api.live.ice_servers().iter().map(view).collect() })
}

/// `<stun:host>; rel="ice-server"` for each URL. What can't be written in a header is left out.
pub(super) fn links(servers: &[IceServer]) -> Vec<HeaderValue> {
    let all = servers.iter().flat_map(|server| server.urls.iter().map(move |url| (server, url)));
    all.filter(|(_, url)| !url.contains(['<', '>', ',']))
        .filter_map(|(server, url)| {
            let mut link = format!("<{url}>; rel=\"ice-server\"");
            if !server.username.is_empty() {
                link.push_str(&format!(
                    "; username={}; credential={}; credential-type=\"password\"",
                    quoted(&server.username),
                    quoted(&server.credential)
                ));
            }
            HeaderValue::from_str(&link).ok()
        })
        .collect()
}

/// A quoted string of RFC 9110 §5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str, username: &str, credential: &str) -> IceServer {
        IceServer { urls: vec![url.into()], username: username.into(), credential: credential.into() }
    }

    #[test]
    fn links_carry_turn_credentials() {
        let servers = [
            server("stun:stun.example.org:3478", "", ""),
            server("turn:turn.example.org?transport=udp", "us\"er", "pass\\word"),
            server("turn:t", "line\nend", "x"),
            server("stun:x>; rel=\"evil\"", "", ""),
        ];
        let links: Vec<_> = links(&servers).iter().map(|link| link.to_str().unwrap().to_owned()).collect();
        assert_eq!(
            links,
            [
                "<stun:stun.example.org:3478>; rel=\"ice-server\"",
                "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"us\\\"er\"; \
                 credential=\"pass\\\\word\"; credential-type=\"password\"",
            ]
        );
    }
}
