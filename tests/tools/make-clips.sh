#!/usr/bin/env bash
# Makes the clips that tests play, with ffmpeg, and prints the folder they are in.
#
#   make-clips.sh [FOLDER]        default: target/test-media of this checkout
#
# The clips live in FOLDER/<hash of this script>, so a changed script makes new ones and an unchanged one costs
# nothing. Safe to be run by many tests at once: the first one makes the clips, the others wait for it.
#
# Every picture is 640x360 at 30 fps, 8 s, with a burnt-in frame counter and clock. Every video clip exists as
# NAME.mp4 and as elementary stream NAME.264 or NAME.265 with the same NAL units; parameter sets stand before each
# IDR picture.
#
#   h264_baseline_g60  h264_main_g60  h264_high_g60  h264_high_bf3_g60 (B-frames)  h264_main_g120 (GOP of 4 s)
#   h265_main_g60      h265_main_bf3_g60 (B-frames)
#   h264_flash_g30     black, and white for 0.1 s at each full second
#   a_aac.mp4  a_opus.mkv  a_pcma.al  a_pcmu.ul     440 Hz with a beep each second; G.711 is raw, 8 kHz mono
#   b_aac.mp4  b_opus.mkv  b_pcma.al  b_pcmu.ul     silence, and 1 kHz for 0.1 s at each full second: the sound of the flashes
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
base=${1:-${CARGO_TARGET_DIR:-$here/../../target}/test-media}
mkdir -p "$base"
base=$(cd "$base" && pwd)
out=$base/$(sha256sum "$0" | cut -c 1-12)

exec 9>"$base/.lock"
flock -w 300 9 || { echo "make-clips.sh: another run holds $base/.lock for more than 5 minutes" >&2; exit 1; }
if [ -d "$out" ]; then
  echo "$out"
  exit
fi

work=$(mktemp -d "$base/.making.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

seconds=8
font=/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf
picture="testsrc2=size=640x360:rate=30:duration=$seconds,drawtext=fontfile=$font:text='%{frame_num} %{pts\\:hms}'"
picture="$picture:fontsize=h/10:x=w/20:y=h*0.8:fontcolor=white:box=1:boxcolor=black,format=yuv420p"
tone="sine=frequency=440:beep_factor=4:sample_rate=48000:duration=$seconds"
flash="color=black:size=640x360:rate=30:duration=$seconds,drawbox=color=white:t=fill:enable='lt(mod(n,30),3)',format=yuv420p"
beep="aevalsrc='lt(mod(t,1),0.1)*0.5*sin(2*PI*1000*t)':sample_rate=48000:duration=$seconds"
ff() { ffmpeg -nostdin -hide_banner -loglevel error -y "$@"; }

h264() { # NAME PROFILE GOP B-FRAMES [PICTURE]
  ff -f lavfi -i "${5:-$picture}" -c:v libx264 -threads 1 -preset superfast -profile:v "$2" -level 3.1 -b:v 1M -maxrate 1M \
    -bufsize 1M -g "$3" -keyint_min "$3" -sc_threshold 0 -bf "$4" -x264-params repeat-headers=1 "$1.mp4"
  ff -i "$1.mp4" -c copy -f h264 "$1.264"
}

h265() { # NAME GOP B-FRAMES
  # Encoded once for each file: copied out of the mp4, each keyframe would get a second set of parameter sets.
  for file in "$1.mp4" "$1.265"; do
    ff -f lavfi -i "$picture" -c:v libx265 -preset ultrafast -b:v 1M -tag:v hvc1 -x265-params \
      "log-level=none:pools=1:frame-threads=1:keyint=$2:min-keyint=$2:scenecut=0:open-gop=0:bframes=$3:repeat-headers=1" "$file"
  done
}

sound() { # LETTER GRAPH
  ff -f lavfi -i "$2" -ac 2 -c:a aac -b:a 96k "$1_aac.mp4"
  ff -f lavfi -i "$2" -ac 2 -c:a libopus -b:a 64k -frame_duration 20 "$1_opus.mkv"
  ff -f lavfi -i "$2" -ac 1 -ar 8000 -c:a pcm_alaw -f alaw "$1_pcma.al"
  ff -f lavfi -i "$2" -ac 1 -ar 8000 -c:a pcm_mulaw -f mulaw "$1_pcmu.ul"
}

first() {
  h265 h265_main_g60 60 0
  h264 h264_baseline_g60 baseline 60 0
  h264 h264_main_g60 main 60 0
  sound a "$tone"
  sound b "$beep"
}
second() {
  h265 h265_main_bf3_g60 60 3
  h264 h264_high_g60 high 60 0
  h264 h264_high_bf3_g60 high 60 3
  h264 h264_main_g120 main 120 0
  h264 h264_flash_g30 main 30 0 "$flash"
}
first & one=$!
second & two=$!
failed=0
wait "$one" || failed=1
wait "$two" || failed=1
[ "$failed" = 0 ] || { echo "make-clips.sh: ffmpeg failed, see above" >&2; exit 1; }

mv "$work" "$out"
trap - EXIT
find "$base" -mindepth 1 -maxdepth 1 -type d ! -path "$out" -exec rm -rf {} +
echo "$out"
