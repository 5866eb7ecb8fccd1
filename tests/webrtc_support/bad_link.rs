//! `lossy-link.py` between two network namespaces. Needs root.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdout, Command, Stdio};

/// The server's side.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
/// The viewer's side.
pub const VIEWER: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);

/// A link that goes with this value.
pub struct BadLink {
    script: Child,
    output: BufReader<ChildStdout>,
    namespaces: [String; 2],
}

impl BadLink {
    /// The script's arguments. `None` where this machine does not allow it, which is said.
    pub fn open(arguments: &[&str]) -> Option<BadLink> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/lossy-link.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn().expect("/usr/bin/python3 can be run");
        let mut output = BufReader::new(script.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["up", server, viewer] = words[..] else {
            eprintln!("skipped: no network namespaces here (are you root?): {line}");
            let _ = script.wait();
            return None;
        };
        let namespaces = [server.to_owned(), viewer.to_owned()];
        Some(BadLink { script, output, namespaces })
    }

    /// Puts the calling thread, and those that it starts, on the server's side.
    pub fn enter_server(&self) {
        enter(&self.namespaces[0]);
    }

    /// The same on the viewer's side.
    pub fn enter_viewer(&self) {
        enter(&self.namespaces[1]);
    }

    /// Takes it down. Packets to the viewer that were forwarded and dropped.
    pub fn close(mut self) -> (usize, usize) {
        drop(self.script.stdin.take());
        let mut said = String::new();
        self.output.read_to_string(&mut said).expect("text");
        let _ = self.script.wait();
        let numbers: Vec<usize> =
            said.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    }
}

impl Drop for BadLink {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).expect("a namespace");
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&file),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )
    .expect("root may enter it");
}
