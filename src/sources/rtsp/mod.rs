//! Cameras over RTSP 1.0 (RFC 2326), also by TLS; RTP interleaved or over UDP.
//! May use `media` and `graph`, `net` to connect, and `rtsp` for what is on the wire.
//! Must never trust a camera: every read, wait and list here has a limit.

mod answer;
mod play;
mod receive;
pub mod sdp;
mod session;
mod udp;
mod wire;

use self::session::{Fail, Session, Setup};
use crate::graph::{BoxFuture, RtpIn, Source, SourceDetails, SourceError, SourceWriter};
use crate::media::Track;
use crate::rtsp::url::{RtspUrl, Transport};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 3;
/// How long UDP may take to come through before TCP is tried.
const UDP_PATIENCE: Duration = Duration::from_secs(3);

/// Where a run writes: [`SourceWriter`], or whatever a test collects with.
pub trait Output: Send {
    /// The tracks, once and before anything else.
    fn set_tracks(&mut self, tracks: Vec<Track>, details: SourceDetails);
    /// One RTP packet.
    fn write_rtp(&mut self, packet: RtpIn<'_>);
    /// A sender report of a track: 64-bit NTP timestamp and RTP timestamp of one instant.
    fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32);
    /// Nothing more is ready to be read.
    fn flush(&mut self);
}

impl Output for SourceWriter {
    fn set_tracks(&mut self, tracks: Vec<Track>, details: SourceDetails) {
        SourceWriter::set_tracks(self, tracks, details);
    }

    fn write_rtp(&mut self, packet: RtpIn<'_>) {
        SourceWriter::write_rtp(self, packet);
    }

    fn sender_report(&mut self, track: usize, ntp: u64, rtp: u32) {
        SourceWriter::sender_report(self, track, ntp, rtp);
    }

    fn flush(&mut self) {
        SourceWriter::flush(self);
    }
}

/// One camera.
#[derive(Debug)]
pub struct RtspSource {
    url: RtspUrl,
}

impl RtspSource {
    /// Reads the camera's URL; nothing is dialled.
    ///
    /// # Errors
    /// What is wrong with the URL, without credentials.
    pub fn open(url: &str) -> Result<RtspSource, String> {
        Ok(RtspSource { url: RtspUrl::parse(url)? })
    }

    /// Dials, plays and writes into `out` until the camera ends it or the future is dropped, which closes the
    /// connection.
    ///
    /// # Errors
    /// It always ends with one: media has no natural end.
    pub async fn run_into<O: Output>(&self, out: &mut O) -> Result<(), SourceError> {
        let mut url = self.url.clone();
        let mut redirects = 0;
        loop {
            let deadline = Instant::now() + url.timeout * 2;
            match run_once(&url, deadline, out).await {
                Ok(ended) => return Err(ended),
                Err(Fail::Source(error)) => return Err(error),
                Err(Fail::Status(why)) => return Err(SourceError::Refused(why)),
                Err(Fail::Redirect(_)) if redirects == MAX_REDIRECTS => {
                    return Err(SourceError::Refused(format!(
                        "the camera redirects in a circle: more than {MAX_REDIRECTS} redirects"
                    )));
                }
                Err(Fail::Redirect(to)) => {
                    redirects += 1;
                    url = url.redirected(&to).map_err(|why| {
                        SourceError::Refused(format!("the camera redirects to what can't be followed: {why}"))
                    })?;
                }
                Err(Fail::Transport(why)) => {
                    tracing::info!(url = %url.shown, "UDP doesn't work, trying TCP: {why}");
                    url.transport = Transport::Tcp;
                }
            }
        }
    }
}

/// One connection: dials, sets up and plays. `Ok` is how it ended after it had begun to play.
async fn run_once<O: Output>(url: &RtspUrl, deadline: Instant, out: &mut O) -> Result<SourceError, Fail> {
    let mut session = Session::connect(url.clone()).await?;
    let started = timeout_at(deadline, start(&mut session)).await;
    let (setups, details) = match started {
        Ok(started) => started?,
        Err(_) => return Err(too_late(&session, url).into()),
    };
    if session.url.transport == Transport::Udp {
        let patience = UDP_PATIENCE.min(url.timeout);
        if !play::udp_comes_through(&mut session, &setups, patience).await? {
            return Err(Fail::Transport(format!("nothing came in {} s", patience.as_secs())));
        }
    }
    out.set_tracks(setups.iter().map(|s| s.track.clone()).collect(), details);
    Ok(play::play(&mut session, &setups, out).await)
}

/// From OPTIONS to PLAY.
async fn start(session: &mut Session) -> Result<(Vec<Setup>, SourceDetails), Fail> {
    let description = session.describe().await?;
    let setups = session.setup(&description).await?;
    session.play().await?;
    let details = SourceDetails {
        protocol: match session.url.transport {
            Transport::Tcp => "rtsp+tcp",
            Transport::Udp => "rtsp+udp",
        },
        remote_addr: session.wire.peer.to_string(),
        sdp: description.shown,
        server: session.server.clone(),
    };
    Ok((setups, details))
}

fn too_late(session: &Session, url: &RtspUrl) -> SourceError {
    let (asking, peer, seconds) = (session.asking, url.peer(), url.timeout.as_secs() * 2);
    SourceError::TimedOut(if session.wire.is_inside_message() {
        format!("{peer} answered {asking} only in part: not complete after {seconds} s")
    } else {
        format!("{peer} accepted the connection but didn't answer {asking} in {seconds} s")
    })
}

impl Source for RtspSource {
    fn run<'a>(&'a self, out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(self.run_into(out))
    }

    fn url(&self) -> &str {
        &self.url.shown
    }

    fn format_name(&self) -> &'static str {
        "rtsp"
    }
}
