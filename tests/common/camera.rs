//! An RTSP camera: `tests/tools/cameras.py` as a child process.

use super::clips::{clips_folder, tool};
use super::lines::Lines;
use parking_lot::Mutex;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

const READY_DEADLINE: Duration = Duration::from_secs(20);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A camera on loopback. What a spec may say (`video=h265,audio=pcma`, `clip=h264_main_g60,once=yes` …) is written at
/// the top of `cameras.py`. It ends when it is dropped.
pub struct Camera {
    /// Where its first mount plays.
    pub url: String,
    /// Its TCP port, the same after [`Camera::restart`].
    pub port: u16,
    mounts: Vec<(String, String)>,
    auth: Option<String>,
    tls: Option<[PathBuf; 2]>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Commands go in, one line each; one line of answer comes back before the next command.
    io: Mutex<(ChildStdin, Lines)>,
}

impl Camera {
    /// One camera at `/cam`.
    pub fn start(spec: &str) -> Camera {
        Camera::start_with(&[("/cam", spec)], None)
    }

    /// One camera at `/cam` that wants credentials: `auth` is `basic:USER:PASSWORD` or `digest:USER:PASSWORD`.
    /// [`Camera::url`] has none; see [`Camera::url_as`].
    pub fn start_protected(auth: &str, spec: &str) -> Camera {
        Camera::start_with(&[("/cam", spec)], Some(auth))
    }

    /// Several mounts, each a path and a spec, in one server.
    pub fn start_with(mounts: &[(&str, &str)], auth: Option<&str>) -> Camera {
        Camera::begin(mounts, auth, None)
    }

    /// The same over TLS, with a certificate and its key (PEM files). Its URLs are `rtsps://`, and name `localhost`.
    pub fn start_secure(mounts: &[(&str, &str)], auth: &str, files: [PathBuf; 2]) -> Camera {
        Camera::begin(mounts, Some(auth), Some(files))
    }

    fn begin(mounts: &[(&str, &str)], auth: Option<&str>, tls: Option<[PathBuf; 2]>) -> Camera {
        let mut camera = Camera {
            url: String::new(),
            port: 0,
            mounts: mounts.iter().map(|(path, spec)| (path.to_string(), spec.to_string())).collect(),
            auth: auth.map(str::to_owned),
            tls,
            running: None,
        };
        camera.restart();
        camera.url = camera.url_of(mounts.first().expect("at least one mount").0);
        camera
    }

    /// Where another mount plays.
    pub fn url_of(&self, path: &str) -> String {
        match self.tls {
            Some(_) => format!("rtsps://localhost:{}{path}", self.port),
            None => format!("rtsp://127.0.0.1:{}{path}", self.port),
        }
    }

    /// The first mount's URL with credentials: `user:password`, percent-encoded by the caller.
    pub fn url_as(&self, credentials: &str) -> String {
        self.url.replacen("://", &format!("://{credentials}@"), 1)
    }

    /// Stops sending; the connection stays open and keepalives are answered.
    pub fn stall(&self) {
        self.each_mount("stall");
    }

    /// Goes on sending after [`Camera::stall`].
    pub fn resume(&self) {
        self.each_mount("resume");
    }

    /// Goes on with another picture size, e.g. `320x240`: new parameter sets in the running stream. Not for clips.
    pub fn resize(&self, size: &str) {
        self.command(&format!("size {} {size}", self.mounts[0].0));
    }

    /// Puts another camera at the first mount's place and disconnects its clients.
    pub fn replace(&mut self, spec: &str) {
        self.command(&format!("replace {} {spec}", self.mounts[0].0));
        self.mounts[0].1 = spec.to_owned();
    }

    /// Disconnects all clients.
    pub fn drop_clients(&self) {
        self.command("drop");
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.command("clients").parse().expect("a number")
    }

    /// Ends at once, without a farewell to anyone.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Both fail only if the process has ended already, which is what is wanted.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }

    /// Starts again on the same port after [`Camera::kill`]; kills it first if it is running.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(tool("cameras.py")).arg("--media").arg(clips_folder());
        command.args(["--port", &self.port.to_string()]);
        if let Some(auth) = &self.auth {
            command.args(["--auth", auth]);
        }
        if let Some(files) = &self.tls {
            command.arg("--tls").args(files);
        }
        command.args(self.mounts.iter().map(|(path, spec)| format!("{path}={spec}")));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 can be run (tests/tools/bootstrap.sh installs it)");
        let stdin = child.stdin.take().expect("piped");
        let lines = Lines::of(child.stdout.take().expect("piped"));
        let ready = lines.find(READY_DEADLINE, |line| {
            line.strip_prefix("ready rtsp://127.0.0.1:").and_then(|port| port.parse().ok())
        });
        self.running = Some(Running { child, io: Mutex::new((stdin, lines)) });
        self.port = ready.unwrap_or_else(|problem| {
            panic!("the camera simulator {:?} did not start: {problem}; its errors are above", self.mounts)
        });
    }

    fn each_mount(&self, verb: &str) {
        for (path, _) in &self.mounts {
            self.command(&format!("{verb} {path}"));
        }
    }

    fn command(&self, line: &str) -> String {
        let running = self.running.as_ref().expect("the camera is running");
        let mut io = running.io.lock();
        writeln!(io.0, "{line}").expect("the camera simulator reads its commands");
        let answer = io.1.next(ANSWER_DEADLINE);
        drop(io);
        let answer = answer.unwrap_or_else(|problem| panic!("camera simulator, `{line}`: {problem}"));
        assert!(!answer.starts_with("error"), "camera simulator: {answer}");
        answer
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.kill();
    }
}
