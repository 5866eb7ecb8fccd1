//! `/api`: which program this is, and where it listens.

use super::Api;
use super::request::text_header;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The go2rtc API level that is spoken here. Home Assistant's client checks it.
const GO2RTC_VERSION: &str = "1.9.14";

/// What is told of this process.
#[derive(Debug, Clone)]
pub struct Info {
    /// The version of the crate.
    pub version: &'static str,
    /// The git revision it was built from; empty if it was built without git.
    pub revision: &'static str,
    /// The configuration file; empty without one.
    pub config_path: String,
    /// Where it listens, as `127.0.0.1:1984`.
    pub listen: String,
    /// Where RTSP is served: at a port of its own, or there as well.
    pub rtsp_listen: String,
    /// When it started.
    pub started: Instant,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Application {
    config_path: String,
    host: String,
    revision: &'static str,
    rtsp: Rtsp,
    version: &'static str,
    server: Server,
    listeners: Vec<Listener>,
    /// Seconds.
    uptime: u64,
}

/// go2rtc's section.
#[derive(Serialize, utoipa::ToSchema)]
struct Rtsp {
    listen: String,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Server {
    name: &'static str,
    version: &'static str,
    revision: &'static str,
    mse: Muxers,
}

/// Of MSE and MP4: each fragment is made once for all viewers.
#[derive(Serialize, utoipa::ToSchema)]
struct Muxers {
    muxers_running: u64,
    muxers_started: u64,
    fragments: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Listener {
    address: String,
    protocols: Vec<&'static str>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(status))
}

/// Which program this is, and where it listens
///
/// `version` is the level of go2rtc's API that is spoken; `server` is this program.
#[utoipa::path(get, path = "/api", tag = "application",
    responses((status = 200, body = Application, description = "This program")))]
async fn status(State(api): State<Arc<Api>>, headers: HeaderMap, uri: Uri) -> Json<Application> {
    let info = &api.info;
    // HTTP/2 has the host in the URI.
    let host = uri.authority().map_or_else(|| text_header(&headers, &header::HOST), |host| host.as_str());
    let mut protocols = vec!["http"];
    if api.live.has_tls() {
        protocols.push("https");
    }
    protocols.extend(["webrtc/udp", "webrtc/tcp", "rtsp"]);
    if api.live.has_tls() {
        protocols.push("rtsps");
    }
    let mut listeners = vec![Listener { address: info.listen.clone(), protocols }];
    if info.rtsp_listen != info.listen {
        listeners.push(Listener { address: info.rtsp_listen.clone(), protocols: vec!["rtsp"] });
    }
    let counters = api.mse.counters();
    let mse = Muxers {
        muxers_running: counters.running.load(Relaxed),
        muxers_started: counters.muxers.load(Relaxed),
        fragments: counters.fragments.load(Relaxed),
    };
    Json(Application {
        config_path: info.config_path.clone(),
        host: host.to_owned(),
        revision: info.revision,
        rtsp: Rtsp { listen: info.rtsp_listen.clone() },
        version: GO2RTC_VERSION,
        server: Server { name: "streamgate", version: info.version, revision: info.revision, mse },
        listeners,
        uptime: info.started.elapsed().as_secs(),
    })
}
