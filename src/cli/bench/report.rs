//! The figures of a run: as a table and as JSON.

use super::shared::{Shared, Totals};
use super::{BenchArgs, Mark};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

#[derive(Debug, Serialize)]
pub struct Report {
    pub url: String,
    pub protocol: &'static str,
    /// How long was measured.
    pub seconds: f64,
    pub viewers: Viewers,
    /// What viewers failed with, and how many of them.
    pub errors: BTreeMap<String, u64>,
    pub join_ms: Joins,
    /// RTP packets in the measured time; 0 for HLS.
    pub packets: u64,
    pub frames: u64,
    pub bytes: u64,
    /// Sequence numbers that never came, of the whole run.
    pub lost: i64,
    pub duplicates: u64,
    pub reordered: u64,
    /// HTTP responses in the measured time; 0 for WebRTC.
    pub responses: u64,
    pub parts: u64,
    /// What the viewers who look inside found, in the whole run.
    pub checked: Checked,
    /// From a frame's stamp to its arrival, in the measured time. `null`: there were no stamps.
    pub latency_ms: Option<Spread>,
    pub server: Option<Server>,
    /// The load generator's own, 100 is one core.
    pub generator_cpu_percent: Option<f64>,
    pub floor: Option<Floor>,
}

#[derive(Debug, Serialize)]
pub struct Viewers {
    pub asked: u32,
    pub joined: u64,
    pub failed: u64,
    pub ended_early: u64,
    /// Of those that joined: they read nothing any more.
    pub stalled: u32,
}

/// Since the first request.
#[derive(Debug, Serialize)]
pub struct Joins {
    pub answer: Option<Spread>,
    pub first_media: Option<Spread>,
    pub first_frame: Option<Spread>,
    pub first_keyframe: Option<Spread>,
}

#[derive(Debug, Serialize)]
pub struct Checked {
    pub frames: u64,
    pub broken: u64,
    /// Viewers whose first picture was not a whole keyframe.
    pub late_starts: u64,
}

/// A distribution, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Spread {
    pub count: usize,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

#[derive(Debug, Serialize)]
pub struct Server {
    /// 100 is one core.
    pub cpu_percent: f64,
    pub cpu_us_per_packet: Option<f64>,
    pub cpu_us_per_frame: Option<f64>,
    pub cpu_us_per_response: Option<f64>,
    /// Before the first viewer.
    pub rss_kb_before: Option<u64>,
    pub rss_kb: Option<u64>,
    pub rss_kb_per_viewer: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct Floor {
    pub cpu_us_per_packet: f64,
    pub cpu_us_per_frame: f64,
    /// The server's CPU as a multiple of it.
    pub ratio: Option<f64>,
}

impl Report {
    pub fn new(args: &BenchArgs, shared: &Shared, start: &Mark, end: &Mark) -> Report {
        let (from, to) = (&start.totals, &end.totals);
        let (packets, frames) = (to.packets - from.packets, to.frames - from.frames);
        let responses = to.responses - from.responses;
        let time = end.at - start.at;
        let used = |from: Option<Duration>, to: Option<Duration>| Some(to?.saturating_sub(from?));
        let percent = |cpu: Duration| cpu.as_secs_f64() * 100.0 / time.as_secs_f64().max(0.001);
        let server = used(start.server_cpu, end.server_cpu).map(|cpu| Server {
            cpu_percent: percent(cpu),
            cpu_us_per_packet: per(cpu, packets),
            cpu_us_per_frame: per(cpu, frames),
            cpu_us_per_response: per(cpu, responses),
            rss_kb_before: None,
            rss_kb: None,
            rss_kb_per_viewer: None,
        });
        let mut samples = shared.samples.lock();
        Report {
            url: args.url.clone(),
            protocol: if shared.target.is_hls() { "hls" } else { "webrtc" },
            seconds: time.as_secs_f64(),
            viewers: Viewers {
                asked: args.viewers,
                joined: to.joined,
                failed: to.failed,
                ended_early: to.ended_early,
                stalled: args.stall,
            },
            errors: shared.errors.lock().clone(),
            join_ms: Joins {
                answer: spread(&mut samples.answer),
                first_media: spread(&mut samples.first_media),
                first_frame: spread(&mut samples.first_frame),
                first_keyframe: spread(&mut samples.first_keyframe),
            },
            packets,
            frames,
            bytes: to.bytes - from.bytes,
            lost: to.missing,
            duplicates: to.duplicates,
            reordered: to.reordered,
            responses,
            parts: to.parts - from.parts,
            checked: checked(to),
            latency_ms: spread(&mut samples.latency),
            server,
            generator_cpu_percent: used(start.own_cpu, end.own_cpu).map(percent),
            floor: None,
        }
    }

    /// Adds what the server's memory was before the first viewer, and at the end.
    pub fn memory(&mut self, before: Option<u64>, after: Option<u64>) {
        let Some(server) = &mut self.server else { return };
        (server.rss_kb_before, server.rss_kb) = (before, after);
        server.rss_kb_per_viewer = before
            .zip(after)
            .filter(|_| self.viewers.joined > 0)
            .map(|(before, after)| (after as f64 - before as f64) / self.viewers.joined as f64);
    }

    pub fn floor(&mut self, packet: Duration) {
        let cpu_us_per_packet = packet.as_secs_f64() * 1e6;
        let per_frame = self.packets as f64 / (self.frames as f64).max(1.0);
        let measured = self.server.as_ref().and_then(|server| server.cpu_us_per_packet);
        self.floor = Some(Floor {
            cpu_us_per_packet,
            cpu_us_per_frame: cpu_us_per_packet * per_frame,
            ratio: measured.map(|measured| measured / cpu_us_per_packet),
        });
    }

    pub fn why_nobody_joined(&self) -> String {
        let why = self.errors.keys().next().map_or("stopped before the first picture", String::as_str);
        format!("no viewer joined: {why}")
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            // Writing to a string can't fail.
            let _ = writeln!(out, "{name:<28} {value}");
        };
        let Viewers { asked, joined, failed, ended_early, stalled } = self.viewers;
        row("url", self.url.clone());
        let mut viewers = format!("{joined} of {asked} joined, {failed} failed, {ended_early} ended early");
        if stalled > 0 {
            // Writing to a string can't fail.
            let _ = write!(viewers, ", {stalled} read nothing");
        }
        row("viewers", viewers);
        for (error, count) in &self.errors {
            row("", format!("{count} × {error}"));
        }
        let joins = &self.join_ms;
        for (name, spread) in [
            ("join: answer", &joins.answer),
            ("join: first media", &joins.first_media),
            ("join: first frame", &joins.first_frame),
            ("join: first keyframe", &joins.first_keyframe),
        ] {
            if let Some(spread) = spread {
                row(name, spread.to_string());
            }
        }
        row("measured", format!("{:.1} s", self.seconds));
        let rate = |count: u64| count as f64 / self.seconds.max(0.001);
        row("received", format!("{:.1} Mbit/s", rate(self.bytes) * 8.0 / 1e6));
        if self.protocol == "hls" {
            row("responses", format!("{} ({:.0} a second)", self.responses, rate(self.responses)));
            row("parts", format!("{} ({:.0} a second)", self.parts, rate(self.parts)));
        } else {
            row("packets", format!("{} ({:.0} a second)", self.packets, rate(self.packets)));
            row("frames", format!("{} ({:.0} a second)", self.frames, rate(self.frames)));
            let (lost, repeated, reordered) = (self.lost, self.duplicates, self.reordered);
            row("loss", format!("{lost} lost, {repeated} repeated, {reordered} out of order"));
            let Checked { frames, broken, late_starts } = self.checked;
            row(
                "checked",
                format!("{frames} frames, {broken} broken, {late_starts} not begun at a keyframe"),
            );
        }
        row("latency", self.latency_ms.as_ref().map_or("no time stamps".to_owned(), Spread::to_string));
        if let Some(server) = &self.server {
            row("server: CPU", format!("{:.1} % of a core", server.cpu_percent));
            for (what, cost) in [
                ("packet", server.cpu_us_per_packet),
                ("viewer's frame", server.cpu_us_per_frame),
                ("response", server.cpu_us_per_response),
            ] {
                if let Some(cost) = cost {
                    row(&format!("server: CPU per {what}"), format!("{cost:.2} µs"));
                }
            }
            if let (Some(rss), Some(each)) = (server.rss_kb, server.rss_kb_per_viewer) {
                row("server: memory", format!("{rss} kB, {each:.0} kB for each viewer"));
            }
        }
        if let Some(floor) = &self.floor {
            row("floor: CPU per packet", format!("{:.2} µs", floor.cpu_us_per_packet));
            row("floor: CPU per frame", format!("{:.2} µs", floor.cpu_us_per_frame));
            if let Some(ratio) = floor.ratio {
                row("server / floor", format!("{ratio:.2}"));
            }
        }
        if let Some(own) = self.generator_cpu_percent {
            row("load generator: CPU", format!("{own:.1} % of a core"));
        }
        out
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spread { p50, p90, p95, p99, max, .. } = self;
        write!(f, "p50 {p50:.1}  p90 {p90:.1}  p95 {p95:.1}  p99 {p99:.1}  max {max:.1} ms")
    }
}

fn checked(totals: &Totals) -> Checked {
    let Totals { checked_frames: frames, broken_frames: broken, late_starts, .. } = *totals;
    Checked { frames, broken, late_starts }
}

/// Microseconds of each.
fn per(cpu: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| cpu.as_secs_f64() * 1e6 / count as f64)
}

/// The distribution of some microseconds; sorts them. `None` of none.
fn spread(micros: &mut [u32]) -> Option<Spread> {
    micros.sort_unstable();
    let at = |percent: usize| {
        // The nearest rank: the smallest value that so many are no larger than.
        let rank = (micros.len() * percent).div_ceil(100).max(1);
        micros.get(rank - 1).map(|value| f64::from(*value) / 1000.0)
    };
    Some(Spread {
        count: micros.len(),
        p50: at(50)?,
        p90: at(90)?,
        p95: at(95)?,
        p99: at(99)?,
        max: at(100)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut micros: Vec<u32> = (1..=200).rev().map(|n| n * 1000).collect();
        let all = spread(&mut micros).expect("values");
        assert_eq!((all.p50, all.p90, all.p95, all.p99, all.max), (100.0, 180.0, 190.0, 198.0, 200.0));
        let one = spread(&mut [7000]).expect("a value");
        assert_eq!((one.p50, one.max, one.count), (7.0, 7.0, 1));
        assert!(spread(&mut []).is_none());
    }
}
