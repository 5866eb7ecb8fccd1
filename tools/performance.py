#!/usr/bin/env python3
"""Measures what docs/performance.md tells, row by row: synthetic cameras, Streamgate and the load generator on this machine.

    tools/performance.py [--bin target/release/streamgate] [--seconds 10] [ROW...]

Rows: fanout growth latency join idle sources storm stuck hls. Without a row: all of them, some six minutes.
Everything listens on loopback and ends with the script. Linux only: CPU time is read from /proc.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Program:
    """A child process that is ended with the script."""

    def __init__(self, args, ready, stream):
        pipe = {stream: subprocess.PIPE}
        other = {"stdout": "stderr", "stderr": "stdout"}[stream]
        self.child = subprocess.Popen(args, text=True, cwd=FOLDER.name, **pipe, **{other: subprocess.DEVNULL})
        RUNNING.append(self)
        lines = getattr(self.child, stream)
        for line in lines:
            if ready in line:
                self.address = line.split(ready, 1)[1].split("/")[0].split()[0]
                break
        else:
            sys.exit(f"{args} ended before it was ready")
        if stream == "stderr":
            # What it logs later is not read; it must not wait for a reader.
            subprocess.Popen(["cat"], stdin=lines, stdout=subprocess.DEVNULL)

    def cpu(self):
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_kb(self):
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def cores(self, seconds):
        """CPU used over the next seconds: 1.0 is one core."""
        before, start = self.cpu(), time.monotonic()
        time.sleep(seconds)
        return (self.cpu() - before) / (time.monotonic() - start)

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.terminate()
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
        if self in RUNNING:
            RUNNING.remove(self)


def camera(*args, listen="127.0.0.1:0"):
    return Program([BIN, "camera", "--listen", listen, *args], "rtsp://", "stdout")


def footage():
    """720p30 at 2 Mbit/s with one slice in a picture, as IP cameras have it. Without ffmpeg: the demo clip and filler data."""
    if not shutil.which("ffmpeg"):
        return "--bitrate", "2M"
    clip = Path(FOLDER.name) / "footage.mp4"
    if not clip.exists():
        picture = "testsrc2=size=1280x720:rate=30:duration=10,noise=alls=12:allf=t,format=yuv420p"
        encoder = "-c:v libx264 -preset veryfast -bf 0 -g 60 -sc_threshold 0 -b:v 2M -maxrate 2M -bufsize 500k"
        slices = ["-x264-params", "slices=1:sliced-threads=0"]
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", picture, *encoder.split(), *slices, clip], check=True)
    return "--clip", str(clip)


def server(streams, lasting=True):
    """Streamgate with streams by name, kept warm."""
    config = Path(FOLDER.name) / "performance.yaml"
    sources = "".join(
        f'  {name}: {{ sources: ["{url}"], on_demand: {str(not lasting).lower()} }}\n' for name, url in streams.items()
    )
    config.write_text("api:\n  listen: 127.0.0.1:0\n" + ("streams:\n" + sources if sources else ""))
    return Program([BIN, "-c", str(config), "--log-level", "info", "--log-format", "text"], "listening on http://", "stderr")


def one_camera(*args):
    cameras = camera(*args)
    streamgate = server({"front": f"rtsp://{cameras.address}/cam1#timeout=60"})
    until(lambda: live(streamgate) == 1, 20, "the camera is live")
    # A camera that was dialled amid a GOP has no keyframe yet: the first viewer waits for it, and is not measured.
    bench(streamgate, "--viewers", 1, "--decrypt", 1, "--seconds", 1)
    return cameras, streamgate


def bench_command(streamgate, path, *args):
    url = f"http://{streamgate.address}{path}"
    return [BIN, "bench", "--url", url, "--pid", str(streamgate.child.pid), "--json", "-", *map(str, args)]


def bench(streamgate, *args, path="/api/webrtc?src=front"):
    done = subprocess.run(bench_command(streamgate, path, *args), stdout=subprocess.PIPE, text=True, timeout=600)
    if done.returncode:
        sys.exit("the load generator failed")
    report = json.loads(done.stdout)
    viewers, checked = report["viewers"], report["checked"]
    if viewers["failed"] or viewers["ended_early"] or report["lost"] > 0 or checked["broken"]:
        print(f"  NOT VALID: {viewers}, lost {report['lost']}, {checked}, {report['errors']}")
    return report


def producers(streamgate):
    with urllib.request.urlopen(f"http://{streamgate.address}/api/streams", timeout=10) as reply:
        return [producer for stream in json.load(reply).values() for producer in stream["producers"] or []]


def live(streamgate):
    """How many cameras are live."""
    return sum(producer.get("state") == "live" for producer in producers(streamgate))


def received(streamgate):
    """Bytes from all cameras so far."""
    return sum(producer.get("bytes_recv") or 0 for producer in producers(streamgate))


def until(condition, seconds, what):
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - start


def fanout(seconds):
    _, streamgate = one_camera(*footage())
    report = bench(streamgate, "--viewers", 200, "--seconds", seconds, "--floor")
    cost, floor = report["server"], report["floor"]
    yield "200 viewers, CPU for one viewer's frame", f"{cost['cpu_us_per_frame']:.1f} µs", "≤ 18 µs"
    yield "the same per packet", f"{cost['cpu_us_per_packet']:.2f} µs", ""
    yield "the floor per frame, per packet", f"{floor['cpu_us_per_frame']:.1f}, {floor['cpu_us_per_packet']:.2f} µs", ""
    yield "server / floor", f"{floor['ratio']:.2f}", "≤ 2.0"
    yield "memory for each additional viewer", f"{cost['rss_kb_per_viewer']:.0f} kB", "≤ 150 kB"


def growth(seconds):
    _, streamgate = one_camera(*footage())
    costs = {}
    for viewers in (20, 200, 1000):
        report = bench(streamgate, "--viewers", viewers, "--seconds", seconds, "--decrypt", 2)
        costs[viewers] = report["server"]["cpu_us_per_packet"]
        yield f"{viewers} viewers, CPU per packet", f"{costs[viewers]:.2f} µs", ""
    yield "growth from 20 to 1000 viewers", f"{costs[1000] / costs[20]:.2f}", "≤ 1.3"


def latency(seconds):
    _, streamgate = one_camera(*footage())
    for viewers, target in ((20, "≤ 0.3, 1 ms"), (200, "≤ 1, 5 ms")):
        spread = bench(streamgate, "--viewers", viewers, "--seconds", seconds, "--decrypt", 5)["latency_ms"]
        yield f"latency with {viewers} viewers, p50, p99", f"{spread['p50']:.2f}, {spread['p99']:.2f} ms", target


def join(_seconds):
    _, streamgate = one_camera("--bitrate", "1M", "--fps", "15", "--gop", "4s")
    # The camera was begun anywhere in a GOP: it has shown a whole one by then.
    time.sleep(8)
    # Over five GOPs, so that they come at any time of one.
    report = bench(streamgate, "--viewers", 100, "--decrypt", 100, "--ramp", "20s", "--seconds", 1)
    spread = report["join_ms"]["first_keyframe"]
    yield "POST to the first keyframe, GOP 4 s, p50, p95", f"{spread['p50']:.1f}, {spread['p95']:.1f} ms", "≤ 30, 100 ms"


def idle(seconds):
    cameras, streamgate = one_camera(*footage(), "--silent-after", "20s")
    silent = time.monotonic() + 20
    command = bench_command(streamgate, "/api/webrtc?src=front", "--viewers", 200, "--ramp", "2s", "--seconds", 20 + seconds)
    load = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(max(0, silent + 2 - time.monotonic()))
    used = streamgate.cores(seconds)
    viewers = json.loads(load.communicate(timeout=120)[0])["viewers"]
    cameras.stop()
    yield "200 idle viewers, CPU", f"{used * 100:.1f} % of a core", "≤ 1 %"
    yield "of them connected to the end", f"{viewers['joined'] - viewers['ended_early']}", "200"


def five_hundred():
    cameras = camera("--cameras", "500", "--bitrate", "1M")
    streams = {f"cam{n}": f"rtsp://{cameras.address}/cam{n}" for n in range(1, 501)}
    streamgate = server(streams)
    began = until(lambda: live(streamgate) == 500, 90, "500 cameras are live")
    return cameras, streamgate, began


def sources(seconds):
    empty = server({})
    time.sleep(1)
    before = empty.rss_kb()
    empty.stop()
    _, streamgate, began = five_hundred()
    # The memory of a ring is that of its GOPs: two are there after four seconds.
    time.sleep(5)
    yield "500 cameras of 1 Mbit/s live after", f"{began:.1f} s", ""
    start, so_far = time.monotonic(), received(streamgate)
    used = streamgate.cores(seconds)
    rate = (received(streamgate) - so_far) * 8 / (time.monotonic() - start) / 500
    # Where the machine is too busy for the cameras themselves, the CPU is that of less.
    yield "the same, received from each", f"{rate / 1e6:.2f} Mbit/s", "1"
    yield "the same, CPU", f"{used:.2f} cores", "≤ 1"
    yield "the same, memory of each", f"{(streamgate.rss_kb() - before) / 500:.0f} kB", "≤ 2000 kB"


def storm(_seconds):
    cameras, streamgate, _ = five_hundred()
    cameras.stop()
    until(lambda: live(streamgate) == 0, 30, "all cameras are missed")
    before = streamgate.cpu()
    camera("--cameras", "500", "--bitrate", "1M", listen=cameras.address)
    took = until(lambda: live(streamgate) == 500, 120, "500 cameras are live again")
    yield "500 cameras come back: all live after", f"{took:.1f} s", ""
    yield "the same, CPU until then", f"{streamgate.cpu() - before:.1f} s", ""


def stuck(seconds):
    _, streamgate = one_camera(*footage())
    for stalled in (0, 5):
        report = bench(streamgate, "--viewers", 20 + stalled, "--stall", stalled, "--seconds", seconds, "--decrypt", 5)
        beside = f"beside {stalled} that stopped reading" if stalled else "alone"
        yield f"p99 of 20 viewers {beside}", f"{report['latency_ms']['p99']:.2f} ms", "the same" if stalled else ""
        yield f"server's memory with 20 viewers {beside}", f"{report['server']['rss_kb']} kB", ""


def hls(seconds):
    _, streamgate = one_camera(*footage())
    report = bench(streamgate, "--viewers", 1000, "--seconds", seconds, path="/api/stream.m3u8?src=front")
    yield "1000 LL-HLS viewers, CPU per response", f"{report['server']['cpu_us_per_response']:.0f} µs", ""
    yield "the same, responses a second", f"{report['responses'] / report['seconds']:.0f}", ""


ROWS = {row.__name__: row for row in (fanout, growth, latency, join, idle, sources, storm, stuck, hls)}
RUNNING = []
FOLDER = tempfile.TemporaryDirectory()


def main():
    global BIN
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release/streamgate", help="the program")
    parser.add_argument("--seconds", type=int, default=10, help="how long each measurement takes")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=" ".join(ROWS))
    args = parser.parse_args()
    unknown = [row for row in args.rows if row not in ROWS]
    if unknown:
        parser.error(f"no such row: {' '.join(unknown)}; there are {' '.join(ROWS)}")
    BIN = os.path.abspath(args.bin)
    if not os.access(BIN, os.X_OK):
        sys.exit(f"{args.bin} is not there: cargo build --release --locked")
    # So that what was started ends also when this is told to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    print(f"{'what':<62} {'measured':<24} target")
    for row in args.rows or ROWS:
        try:
            for what, value, target in ROWS[row](args.seconds):
                print(f"{what:<62} {value:<24} {target}", flush=True)
        finally:
            for program in list(RUNNING):
                program.stop()


if __name__ == "__main__":
    main()
