//! Sources of go2rtc that nothing comes from here (yet): its files and its clients' calls are taken all the same, and
//! each such source says what to do instead.

use crate::graph::{BoxFuture, Source, SourceError, SourceWriter};
use crate::telemetry::mask;
use std::sync::Arc;

const CAMERA: &str = "most cameras have an RTSP address as well: use that";
const CLOUD: &str = "use the camera's RTSP address if it has one";
const TRANSCODES: &str = "nothing is transcoded here: viewers get what the camera's own address gives";
const PROGRAM: &str = "no programs are run: let the program serve RTSP and use that address";
const DEVICE: &str = "let another program serve the device by RTSP and use that address";

/// go2rtc's schemes, but for those that can be played, and what to do instead.
const SCHEMES: &[(&str, &str)] = &[
    ("alsa", DEVICE),
    ("bubble", CAMERA),
    ("doorbird", CAMERA),
    ("dvrip", CAMERA),
    ("echo", "no programs are run: write the address down that the program prints"),
    ("eseecloud", CAMERA),
    ("exec", PROGRAM),
    ("expr", "write the address down that the expression gives"),
    ("ffmpeg", TRANSCODES),
    ("flussonic", "use the server's RTSP address"),
    ("gopro", CLOUD),
    ("hass", "use the camera's own RTSP address"),
    ("homekit", CLOUD),
    ("http", CAMERA),
    ("https", CAMERA),
    ("httpx", CAMERA),
    ("isapi", "it is for two-way audio, which is not supported yet"),
    ("ivideon", CLOUD),
    ("kasa", CAMERA),
    ("multitrans", "it is for two-way audio, which is not supported yet"),
    ("nest", CLOUD),
    ("onvif", "use the RTSP address that the camera tells ONVIF clients, or the one in its manual"),
    ("ring", CLOUD),
    ("roborock", CLOUD),
    ("rtmp", CAMERA),
    ("rtmps", CAMERA),
    ("rtmpx", CAMERA),
    ("tapo", "use the camera's RTSP address, /stream1, with the camera account that its app sets up"),
    ("tcp", CAMERA),
    ("tuya", CLOUD),
    ("v4l2", DEVICE),
    ("vigi", CAMERA),
    ("webrtc", "use the RTSP address of what it comes from"),
    ("webtorrent", "use the RTSP address of what it comes from"),
    ("wyoming", "it is for voice assistants"),
    ("wyze", CLOUD),
    ("xiaomi", CLOUD),
    ("yandex", CLOUD),
];

/// The names alone.
pub(super) fn schemes() -> impl Iterator<Item = &'static str> {
    SCHEMES.iter().map(|(scheme, _)| *scheme)
}

/// The source, if go2rtc knows its scheme.
pub(super) fn open(scheme: &str, url: &str) -> Option<Arc<dyn Source>> {
    let (scheme, instead) = SCHEMES.iter().find(|(known, _)| scheme.eq_ignore_ascii_case(known))?;
    let why = format!("{scheme}: is not supported and has no effect: {instead}");
    Some(Arc::new(Unsupported { url: mask(url).into_owned(), scheme, why }))
}

struct Unsupported {
    url: String,
    scheme: &'static str,
    why: String,
}

impl Source for Unsupported {
    fn run<'a>(&'a self, _out: &'a mut SourceWriter) -> BoxFuture<'a, Result<(), SourceError>> {
        Box::pin(async { Err(SourceError::Refused(self.why.clone())) })
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn format_name(&self) -> &'static str {
        self.scheme
    }

    fn unsupported(&self) -> Option<&str> {
        Some(&self.why)
    }
}
