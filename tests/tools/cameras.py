#!/usr/bin/python3
"""An RTSP camera made of GStreamer's RTSP server, on loopback, for tests.

  cameras.py [--port N] [--media FOLDER] [--auth basic|digest:USER:PASSWORD [--tls CERT KEY]] PATH=SPEC ...

Prints `ready rtsp://127.0.0.1:PORT` when it can be dialled. It ends when its standard input ends, so that it never
outlives the test that started it.

PATH is the mount, e.g. /cam. SPEC is a comma-separated list of key=value:

  video=h264|h265|jpeg|none    default h264
  profile=baseline|main|high      H.264 only, default baseline
  size=WxH  fps=N  gop=FRAMES  kbps=N     default 640x360, 25, 50, 800
  bframes=N               default 0
  pattern=ball|snow       the synthetic picture, default ball; snow is noise, which fills any bitrate
  audio=none|aac|opus|pcma|pcmu   default none
  transport=any|tcp|udp   what SETUP accepts, default any
  clip=NAME               a clip of make-clips.sh from --media instead of a synthetic picture: looped for all viewers
  beep=yes                with clip=h264_flash_g30 and audio=: the beeps that belong to its flashes, on the same clock
  record=FILE             takes what is ANNOUNCEd there instead of playing, and writes its video into the file
  once=yes                with clip=: each client gets the clip from its first frame to its end, NAL units untouched

Commands on standard input, one line each, answered by one line on standard output (`ok`, a value, or `error …`):

  stall PATH / resume PATH    stop and go on sending media; the connection stays and keepalives are answered. It is for
                              the clients of now: when all of them have left, the next one gets media again
  size PATH WxH               the same camera goes on with another picture size (synthetic picture only)
  replace PATH SPEC           another camera at the same place: its clients are disconnected
  drop                        disconnect all clients
  clients                     the number of connected clients
"""
import argparse
import random
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

DEFAULTS = dict(
    video="h264", profile="baseline", size="640x360", fps="25", gop="50", kbps="800", bframes="0", pattern="ball", record="",
    audio="none", transport="any", clip="", once="", beep="",
)
CLIP_TIME = 8 * Gst.SECOND
TRANSPORTS = {
    "any": GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP,
    "tcp": GstRtsp.RTSPLowerTrans.TCP,
    "udp": GstRtsp.RTSPLowerTrans.UDP,
}


def parse(spec):
    """The fields of a SPEC, defaults filled in."""
    fields = dict(item.split("=", 1) for item in spec.split(",") if item)
    unknown = set(fields) - set(DEFAULTS)
    if unknown:
        raise ValueError("unknown key: %s" % ", ".join(sorted(unknown)))
    fields = {**DEFAULTS, **fields}
    if fields["clip"]:
        fields["video"] = fields["clip"].split("_")[0]
    return fields


def picture(f):
    """Caps of the synthetic picture."""
    width, height = f["size"].split("x")
    return "video/x-raw,format=I420,width=%d,height=%d,framerate=%d/1" % (int(width), int(height), int(f["fps"]))


def h264_encoder(f):
    # The preset decides the tools used, and with them the profile that the SPS declares.
    if f["profile"] == "baseline":
        preset, tools = "ultrafast", "scenecut=0"
    else:
        preset, tools = "superfast", "scenecut=0:cabac=1:8x8dct=%d" % (f["profile"] == "high")
    b = int(f["bframes"])
    tune = "bframes=%d b-adapt=false" % b if b else "tune=zerolatency bframes=0"
    return "x264enc threads=1 speed-preset=%s %s key-int-max=%s bitrate=%s option-string=\"%s\" ! video/x-h264,profile=%s" % (
        preset, tune, f["gop"], f["kbps"], tools, f["profile"])


def h265_encoder(f):
    b = int(f["bframes"])
    return "x265enc speed-preset=ultrafast %s key-int-max=%s bitrate=%s option-string=\"%s\"" % (
        "" if b else "tune=zerolatency", f["gop"], f["kbps"],
        "bframes=%d:pools=1:frame-threads=1:scenecut=0:open-gop=0:log-level=none" % b)


ENCODERS = {"h264": h264_encoder, "h265": h265_encoder, "jpeg": lambda f: "jpegenc quality=80"}
AUDIO_LIVE = {
    "aac": "audio/x-raw,rate=48000,channels=2 ! avenc_aac bitrate=96000 ! aacparse",
    "opus": "audio/x-raw,rate=48000,channels=2 ! opusenc frame-size=20",
    "pcma": "audio/x-raw,rate=8000,channels=1 ! alawenc",
    "pcmu": "audio/x-raw,rate=8000,channels=1 ! mulawenc",
}
AUDIO_PAY = {
    "aac": "rtpmp4gpay pt=97", "opus": "rtpopuspay pt=97",
    "pcma": "rtppcmapay pt=8 max-ptime=20000000", "pcmu": "rtppcmupay pt=0 max-ptime=20000000",
}
AUDIO_CLIP = {
    "aac": "a_aac.mp4 ! qtdemux ! aacparse",
    "opus": "a_opus.mkv ! matroskademux ! opusparse",
    "pcma": "a_pcma.al ! rawaudioparse use-sink-caps=false format=alaw sample-rate=8000 num-channels=1",
    "pcmu": "a_pcmu.ul ! rawaudioparse use-sink-caps=false format=mulaw sample-rate=8000 num-channels=1",
}


def recorder(f):
    """What an ANNOUNCEd stream goes into: the video as a byte stream in the file, the sound nowhere."""
    number = f["video"][1:]
    lines = ["rtph%sdepay name=depay0 ! video/x-h%s,stream-format=byte-stream ! filesink location=%s buffer-mode=unbuffered async=false sync=false"
             % (number, number, f["record"])]
    if f["audio"] != "none":
        lines.append("rtp%sdepay name=depay1 ! fakesink async=false sync=false" % f["audio"])
    return "( %s )" % "  ".join(lines)


def launch(f, media):
    """The gst-launch line for a SPEC's fields. Valves named valve0 and valve1 stop and start the sending."""
    number = {"h264": "264", "h265": "265", "jpeg": "jpeg"}.get(f["video"])
    lines = []
    if number:
        # config-interval=-1: parameter sets before each IDR picture, as cameras do. In a clip they are there already.
        if f["once"]:
            source, interval = "filesrc location=%s/%s.mp4 ! qtdemux ! queue" % (media, f["clip"]), 0
        elif f["clip"]:
            source, interval = "appsrc name=loop0 is-live=true format=time max-bytes=100000 ! clocksync", 0
        else:
            source, interval = "videotestsrc is-live=true pattern=%s ! capsfilter name=picture caps=%s ! %s" % (
                f["pattern"], picture(f), ENCODERS[f["video"]](f)), -1
        pay = "rtpjpegpay pt=26" if number == "jpeg" else "rtph%spay pt=96 config-interval=%d" % (number, interval)
        lines.append("%s ! valve name=valve0 ! %s name=pay0" % (source, pay))
    if f["audio"] != "none":
        if f["once"]:
            source = "filesrc location=%s/%s ! queue" % (media, AUDIO_CLIP[f["audio"]])
        elif f["beep"]:
            source = "appsrc name=loop1 is-live=true format=time max-bytes=20000 ! clocksync"
        else:
            source = "audiotestsrc is-live=true wave=ticks ! %s" % AUDIO_LIVE[f["audio"]]
        n = 1 if number else 0
        lines.append("%s ! valve name=valve%d ! %s name=pay%d" % (source, n, AUDIO_PAY[f["audio"]], n))
    if not lines:
        raise ValueError("neither video nor audio")
    return "( %s )" % " ".join(lines)


class Loop:
    """A clip's video or sound as an endless stream: its access units over and over, the time stamps going on."""

    def __init__(self, source):
        pipeline = Gst.parse_launch("filesrc location=%s ! appsink name=out sync=false" % source)
        out = pipeline.get_by_name("out")
        pipeline.set_state(Gst.State.PLAYING)
        self.units = []
        while sample := out.emit("pull-sample"):
            self.caps, unit = sample.get_caps(), sample.get_buffer()
            # What is decoded before the clip begins (an encoder's priming) lies before the segment.
            if self.caps.get_structure(0).get_name().startswith("audio"):
                unit.pts = sample.get_segment().to_running_time(Gst.Format.TIME, unit.pts)
            if unit.pts < Gst.CLOCK_TIME_NONE:
                self.units.append(unit)
        pipeline.set_state(Gst.State.NULL)
        if not self.units:
            raise ValueError("nothing in %s" % source)
        self.first = min(unit.pts for unit in self.units)
        self.duration = max(unit.pts + unit.duration for unit in self.units) - self.first
        if self.duration > CLIP_TIME:  # padding of the last packet
            self.units = [unit for unit in self.units if unit.pts - self.first < CLIP_TIME]
            self.duration = CLIP_TIME
        # A unit that the demuxer cuts off at the end is made up for: with loops of different length, sound and picture of
        # one camera would drift apart.
        last = self.units[-1]
        while self.duration + last.duration <= CLIP_TIME + Gst.MSECOND:
            extra = last.copy_deep()
            extra.pts = self.first + self.duration
            self.units.append(extra)
            self.duration += last.duration
        if abs(self.duration - CLIP_TIME) < Gst.MSECOND:
            self.duration = CLIP_TIME

    def play(self, source):
        """Feeds an appsrc."""
        sent = 0

        def push(source, _bytes):
            nonlocal sent
            rounds, index = divmod(sent, len(self.units))
            unit = self.units[index].copy_deep()  # copy() only counts a reference
            unit.pts = self.units[index].pts - self.first + rounds * self.duration
            unit.dts = Gst.CLOCK_TIME_NONE
            sent += 1
            return source.emit("push-buffer", unit)

        source.set_property("caps", self.caps)
        source.connect("need-data", push)


class Camera:
    def __init__(self, args):
        self.media_folder = args.media
        self.fields, self.media, self.clients = {}, {}, 0
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address("127.0.0.1")
        self.server.connect("client-connected", self.client_connected)
        self.role = None
        if args.auth:
            self.protect(args.tls, *args.auth.split(":", 2))
        for mount in args.mounts:
            path, spec = mount.split("=", 1)
            self.mount(path, spec)
        self.port = self.listen(args.port)

    def listen(self, port):
        # Below the range from which the system takes ports for outgoing connections: the port stays free for a restart.
        for candidate in [port] if port else random.sample(range(20000, 32000), 50):
            self.server.set_service(str(candidate))
            if self.server.attach(None):
                return candidate
        sys.exit("cameras.py: can't listen on 127.0.0.1:%s" % (port or "any port"))

    def protect(self, tls, method, user, password):
        self.role = "viewer"
        auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
        if tls:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_files(*tls))
        token.set_string("media.factory.role", self.role)
        if method == "basic":
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        else:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(user, password, token)
        self.server.set_auth(auth)

    def mount(self, path, spec):
        f = parse(spec)
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(recorder(f) if f["record"] else launch(f, self.media_folder))
        if f["record"]:
            factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        factory.set_shared(not f["once"])
        factory.set_latency(0)
        factory.set_protocols(TRANSPORTS[f["transport"]])
        if self.role:
            permissions = GstRtspServer.RTSPPermissions()
            permissions.add_role(self.role)
            for what in ("access", "construct"):
                permissions.add_permission_for_role(self.role, "media.factory." + what, True)
            factory.set_permissions(permissions)
        self.media[path] = []
        factory.connect("media-configure", lambda _factory, media: self.opened(path, media))
        self.server.get_mount_points().add_factory(path, factory)
        self.fields[path] = f

    def opened(self, path, media):
        self.media[path].append(media)
        f, folder = self.fields[path], self.media_folder
        loops = [("loop0", "%s/%s.mp4 ! qtdemux" % (folder, f["clip"]))]
        if f["beep"]:
            loops.append(("loop1", "%s/%s" % (folder, AUDIO_CLIP[f["audio"]].replace("a_", "b_", 1))))
        for name, source in loops:
            if element := media.get_element().get_by_name(name):
                Loop(source).play(element)
        media.connect("unprepared", lambda media: media in self.media[path] and self.media[path].remove(media))

    def client_connected(self, _server, client):
        self.clients += 1
        client.connect("closed", self.client_closed)

    def client_closed(self, _client):
        self.clients -= 1

    def elements(self, path, *names):
        """The elements of these names in what plays at the path now."""
        found = [media.get_element().get_by_name(name) for media in self.media[path] for name in names]
        found = [element for element in found if element]
        if not found:
            raise ValueError("nothing that could do this is playing at %s" % path)
        return found

    def disconnect_all(self):
        self.server.client_filter(lambda _server, _client: GstRtspServer.RTSPFilterResult.REMOVE)

    def command(self, line):
        verb, *args = line.split()
        if verb in ("stall", "resume"):
            for valve in self.elements(args[0], "valve0", "valve1"):
                valve.set_property("drop", verb == "stall")
        elif verb == "size":
            f = {**self.fields[args[0]], "size": args[1]}
            for filtered in self.elements(args[0], "picture"):
                filtered.set_property("caps", Gst.Caps.from_string(picture(f)))
        elif verb == "replace":
            self.server.get_mount_points().remove_factory(args[0])
            self.mount(args[0], args[1])
            self.disconnect_all()
        elif verb == "drop":
            self.disconnect_all()
        elif verb == "clients":
            return str(self.clients)
        else:
            raise ValueError("unknown command %s" % verb)
        return "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--media", default=".", help="folder of the clips")
    parser.add_argument("--auth", help="basic:USER:PASSWORD or digest:USER:PASSWORD")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="PEM files; it speaks TLS only")
    parser.add_argument("mounts", nargs="+", metavar="PATH=SPEC")
    args = parser.parse_args()
    Gst.init(None)
    camera = Camera(args)
    loop = GLib.MainLoop()

    def on_input(channel, _condition):
        line = channel.readline()
        if not line:
            loop.quit()
            return False
        try:
            answer = camera.command(line)
        except Exception as error:  # the test that sent the command shows the answer
            answer = "error %s: %r" % (line.strip(), error)
        print(answer, flush=True)
        return True

    GLib.io_add_watch(sys.stdin, GLib.PRIORITY_DEFAULT, GLib.IOCondition.IN | GLib.IOCondition.HUP, on_input)
    print("ready rtsp://127.0.0.1:%d" % camera.port, flush=True)
    loop.run()


main()
