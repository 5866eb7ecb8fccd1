#!/usr/bin/python3
"""A bad network link in user space, for kernels without netem: delay, jitter, loss, rate and reordering.

  lossy-link.py DELAY_MS JITTER_MS LOSS_PERCENT [RATE_KBIT] [REORDER_PERCENT] [QUEUE_BYTES]

Makes two network namespaces and joins them by two TAP devices, the same behaviour in both directions:
sgsrv<pid> (10.98.0.1) and sgcli<pid> (10.98.0.2). Prints `up SERVER_NAMESPACE CLIENT_NAMESPACE`, runs until SIGTERM,
SIGINT or the end of standard input, then prints what it forwarded and dropped and removes both namespaces. Needs root.
ARP is never dropped. What waits for the rate is at most QUEUE_BYTES, or 300 ms' worth: what does not fit is dropped.
"""
import fcntl
import heapq
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MAX_QUEUE_SECONDS = 0.3
IPV4 = b"\x08\x00"


def run(*command):
    subprocess.run(command, check=True)


def tap(namespace, address, mac):
    """A TAP device inside a new namespace; the file descriptor gives and takes its Ethernet frames."""
    device = "tap" + namespace[2:]
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    run("ip", "netns", "add", namespace)
    run("ip", "link", "set", device, "address", mac, "netns", namespace)
    run("ip", "-n", namespace, "addr", "add", address + "/24", "dev", device)
    run("ip", "-n", namespace, "link", "set", device, "mtu", "1500", "up", "txqueuelen", "10000")
    run("ip", "-n", namespace, "link", "set", "lo", "up")
    return fd


class Direction:
    """What leaves one side: counters, and when the link is free again."""

    def __init__(self):
        self.forwarded = self.dropped = 0
        self.free_at = self.last_out = 0.0


class Link:
    def __init__(self, delay, jitter, loss, rate, reorder, queue):
        self.delay, self.jitter, self.loss, self.rate, self.reorder = delay, jitter, loss, rate, reorder
        self.max_wait = queue * 8 / rate if queue and rate else MAX_QUEUE_SECONDS
        self.queue, self.count = [], 0

    def take(self, direction, to, frame, now):
        """One frame from a side: dropped, or queued for the other side."""
        if frame[12:14] == IPV4 and random.random() * 100 < self.loss:
            direction.dropped += 1
            return
        at = now
        if self.rate:
            if direction.free_at - now > self.max_wait:
                direction.dropped += 1
                return
            direction.free_at = max(direction.free_at, now) + len(frame) * 8 / self.rate
            at = direction.free_at
        at += self.delay + random.uniform(-self.jitter, self.jitter)
        if random.random() * 100 >= self.reorder:
            at = direction.last_out = max(at, direction.last_out)
        self.count += 1
        heapq.heappush(self.queue, (at, self.count, to, frame))
        direction.forwarded += 1

    def deliver(self, now):
        while self.queue and self.queue[0][0] <= now:
            _, _, to, frame = heapq.heappop(self.queue)
            try:
                os.write(to, frame)
            except OSError:
                pass  # the device's own queue is full, or the side is being taken down

    def wait_seconds(self, now):
        return max(0.0, self.queue[0][0] - now) if self.queue else 1.0


def main():
    if not 4 <= len(sys.argv) <= 7:
        sys.exit(__doc__)
    numbers = [float(a) for a in sys.argv[1:]] + [0.0, 0.0, 0.0]
    delay, jitter, loss, rate, reorder, queue = numbers[:6]
    link = Link(delay / 1000, jitter / 1000, loss, rate * 1000, reorder, queue)
    names = ["sg%s%d" % (side, os.getpid()) for side in ("srv", "cli")]
    stop = lambda *_: sys.exit(0)  # noqa: E731
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server, client = Direction(), Direction()
    try:
        a = tap(names[0], "10.98.0.1", "02:00:00:00:00:01")
        b = tap(names[1], "10.98.0.2", "02:00:00:00:00:02")
        print("up", *names, flush=True)
        sides = {a: (server, b), b: (client, a)}
        while True:
            ready, _, _ = select.select([a, b, sys.stdin], [], [], link.wait_seconds(time.monotonic()))
            now = time.monotonic()
            if sys.stdin in ready:
                if not os.read(sys.stdin.fileno(), 4096):
                    return
                ready.remove(sys.stdin)
            for side in ready:
                direction, to = sides[side]
                for _ in range(256):
                    try:
                        link.take(direction, to, os.read(side, 65536), now)
                    except OSError:
                        break
            link.deliver(time.monotonic())
    finally:
        print("server to client: %d forwarded, %d dropped; client to server: %d forwarded, %d dropped" % (
            server.forwarded, server.dropped, client.forwarded, client.dropped), flush=True)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


main()
