//! The built-in demo camera, `demo:`: a clip that a small RTSP server on loopback plays, pulled as from any camera.
//! May use `media`, `graph`, what `rtsp` knows of the wire, and the `rtsp` source.
//! Must never take a short cut: what the demo shows has gone the whole way that a camera's media goes.

pub mod cameras;
mod clip;
mod dialog;
mod lineup;
mod playback;
mod server;

use self::clip::Clip;
use self::lineup::Lineup;
use crate::graph::{BoxFuture, Source, SourceError, SourceWriter};
use crate::sources::rtsp::RtspSource;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// The clip, made by `tools/make-demo-clip.sh`.
const CLIP: &[u8] = include_bytes!("demo.mp4");

/// The demo camera. Its server lives as long as a run, on a port that the system chooses.
struct DemoSource {
    url: String,
    /// What follows the URL's `#`, for the RTSP source, with the `#`.
    options: String,
}

/// Makes the source of `demo:`; the RTSP source's options may follow, e.g. `demo:#media=video`.
///
/// # Errors
/// What is wrong with the URL.
pub fn open(url: &str) -> Result<Arc<dyn Source>, String> {
    let rest = url.split_once(':').map_or("", |(_, rest)| rest);
    let (path, options) = rest.split_at(rest.find('#').unwrap_or(rest.len()));
    if !["", "//"].contains(&path) {
        return Err("the demo camera's URL is demo: and nothing more, but for options after a #".to_owned());
    }
    RtspSource::open(&rtsp_url(554, options))?;
    Ok(Arc::new(DemoSource { url: url.to_owned(), options: options.to_owned() }))
}

fn rtsp_url(port: u16, options: &str) -> String {
    format!("rtsp://127.0.0.1:{port}/demo{options}")
}

impl DemoSource {
    async fn play(&self, out: &mut SourceWriter) -> Result<(), SourceError> {
        let unusable =
            |what: String| SourceError::Unreachable(format!("the demo camera can't start: {what}"));
        let clip = Clip::read(CLIP).map_err(unusable)?;
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|e| unusable(e.to_string()))?;
        let port = listener.local_addr().map_err(|e| unusable(e.to_string()))?.port();
        let camera = RtspSource::open(&rtsp_url(port, &self.options)).map_err(unusable)?;
        tokio::select! {
            ended = camera.run(out) => ended,
            () = server::serve(listener, Arc::new(Lineup::demo(clip))) => Ok(()),
        }
    }
}

impl Source for DemoSource {
    fn run<'a>(&'a self, out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(self.play(out))
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn format_name(&self) -> &'static str {
        "demo"
    }
}

#[cfg(test)]
mod tests;
