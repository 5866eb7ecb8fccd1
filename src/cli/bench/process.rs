//! What a process on this machine uses, from Linux's `/proc`.

use std::fs;
use std::time::Duration;

/// `/proc` counts CPU time in ticks of 10 ms on every architecture (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub struct Process {
    folder: String,
}

impl Process {
    /// A process by its number.
    ///
    /// # Errors
    /// There is none, or the system doesn't tell.
    pub fn find(pid: u32) -> Result<Process, String> {
        let process = Process { folder: format!("/proc/{pid}") };
        match process.cpu() {
            Some(_) => Ok(process),
            None => Err(format!("--pid {pid}: there is no such process here, or /proc doesn't tell")),
        }
    }

    /// This one, where the system tells.
    pub fn own() -> Option<Process> {
        let process = Process { folder: "/proc/self".to_owned() };
        process.cpu().map(|_| process)
    }

    /// CPU time of all its threads, user and system.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("{}/stat", self.folder)).ok()?;
        // The name before the last parenthesis may hold spaces; utime and stime are the 12th and 13th after it.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = |at| fields.split_whitespace().nth(at)?.parse::<u32>().ok();
        Some(TICK * ticks(11)?.checked_add(ticks(12)?)?)
    }

    /// Resident memory.
    pub fn rss_kb(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("{}/status", self.folder)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    }
}

/// CPU time of the calling thread, to the nanosecond.
pub fn thread_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
