//! The program under test, as a child process on a free port.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const READY_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 2000;

/// A running Streamgate. It gets SIGTERM when it is dropped; its log is printed when the test fails.
pub struct Streamgate {
    /// `http://127.0.0.1:PORT`, no slash at the end.
    pub base_url: String,
    /// The one port, TCP and UDP.
    pub port: u16,
    /// Its process id.
    pub pid: u32,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
    folder: tempfile::TempDir,
}

impl Streamgate {
    /// Starts it with these arguments besides `--listen`, in an empty folder and without configuration.
    pub fn start(args: &[&str]) -> Streamgate {
        Streamgate::start_in(tempfile::tempdir().expect("a temporary folder"), args)
    }

    /// Starts it with streams given by flags: names and URLs.
    pub fn with_streams(streams: &[(&str, &str)]) -> Streamgate {
        let flags: Vec<String> = streams.iter().map(|(name, url)| format!("--stream={name}={url}")).collect();
        Streamgate::start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts it with a configuration file of this content.
    pub fn with_config(yaml: &str) -> Streamgate {
        Streamgate::with_config_and(yaml, &[])
    }

    /// The same, with variables of its environment.
    pub fn with_config_and(yaml: &str, variables: &[(&str, String)]) -> Streamgate {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("streamgate.yaml"), yaml).expect("a file in it");
        Streamgate::launch(folder, &["-c", "streamgate.yaml"], variables)
    }

    /// Starts it with streams given by flags and with this `PATH`: what programs it finds.
    pub fn with_path(path: &str, streams: &[(&str, &str)]) -> Streamgate {
        let flags: Vec<String> = streams.iter().map(|(name, url)| format!("--stream={name}={url}")).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let args: Vec<&str> = flags.iter().map(String::as_str).collect();
        Streamgate::launch(folder, &args, &[("PATH", path.to_owned())])
    }

    fn start_in(folder: tempfile::TempDir, args: &[&str]) -> Streamgate {
        Streamgate::launch(folder, args, &[])
    }

    fn launch(folder: tempfile::TempDir, args: &[&str], variables: &[(&str, String)]) -> Streamgate {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgate"));
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STREAMGATE_"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .envs(variables.iter().cloned())
            .args(args)
            .args(["--listen", "127.0.0.1:0"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be run");
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (announce, announced) = mpsc::sync_channel(1);
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some(port) = listening_port(&line) {
                    // Only the first is waited for; later ones have no receiver.
                    let _ = announce.try_send(port);
                }
                let mut kept = kept.lock();
                if kept.len() == LOG_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        let pid = child.id();
        let mut streamgate = Streamgate { base_url: String::new(), port: 0, pid, child, log, folder };
        streamgate.port = announced.recv_timeout(READY_DEADLINE).unwrap_or_else(|_| {
            panic!("streamgate {args:?} did not say `listening on http://127.0.0.1:PORT/` in time")
        });
        streamgate.base_url = format!("http://127.0.0.1:{}", streamgate.port);
        streamgate
    }

    /// A URL of it: `path` starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().iter().fold(String::new(), |all, line| all + line + "\n")
    }

    /// Resident memory in kB.
    pub fn rss_kb(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// CPU time used so far, user and system, in clock ticks (100 a second).
    pub fn cpu_ticks(&self) -> u64 {
        let stat = self.proc("stat");
        // The command name before the last parenthesis may hold spaces; utime and stime are the 12th and 13th after it.
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        [11, 12].iter().map(|at| fields[*at].parse::<u64>().expect("a number")).sum()
    }

    /// Open file descriptors: sockets, files, pipes.
    pub fn open_fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("the process lives").count()
    }

    /// Processes that it has started and that live.
    pub fn children(&self) -> usize {
        let parent = |stat: std::io::Result<String>| {
            stat.ok()?.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let stats = processes.map(|entry| std::fs::read_to_string(entry.path().join("stat")));
        stats.filter(|stat| stat.is_ok()).filter_map(parent).filter(|parent| *parent == self.pid).count()
    }

    /// Whether the process still lives.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by name, e.g. `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: a bare Debian has no other.
        let done = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid)]).status();
        assert!(done.expect("sh can be run").success(), "kill -{name} {}", self.pid);
    }

    /// Waits for the process to end; `None` if it still lives after the deadline.
    #[expect(
        clippy::disallowed_methods,
        reason = "between two looks at the process; used in Drop, which is not async"
    )]
    pub fn wait_exit(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).expect("the process lives")
    }
}

/// The port in a log line that says `listening on http://127.0.0.1:PORT/`.
fn listening_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on http://127.0.0.1:")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Drop for Streamgate {
    fn drop(&mut self) {
        if self.is_running() {
            self.signal("TERM");
            if self.wait_exit(STOP_DEADLINE).is_none() {
                // Fails only if it has ended in this moment.
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("--- streamgate's log ---\n{}--- end of the log ---", self.log());
        }
    }
}
