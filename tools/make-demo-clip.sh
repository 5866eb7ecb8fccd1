#!/usr/bin/env bash
# Makes src/sources/demo/demo.mp4, the clip of the built-in demo camera. Needs ffmpeg with libx264 and libopus.
#
# 1280x720 at 30 fps, 10 s: H.264 Constrained Baseline (which every browser takes over WebRTC), no B-frames, a keyframe
# every 2 s; Opus, 20 ms a packet. Pictures and sound have a period of exactly 10 s (300 frames, 500 Opus packets), so
# the clip can be played round and round without a seam; only the counter and the clock start again.
set -euo pipefail
cd "$(dirname "$0")/.."
out=src/sources/demo/demo.mp4
seconds=10 fps=30 gop=60
bold=/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf
mono=/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ff() { ffmpeg -nostdin -hide_banner -loglevel error -y "$@"; }

# Slow waves of colour, computed small and scaled up. One turn is the whole clip.
turn="2*PI*T/$seconds"
waves="geq=lum='94+18*sin(X/44+$turn)+16*sin(Y/33-2*$turn)+12*sin((X+Y)/55+$turn)'"
waves="$waves:cb='150+26*sin(X/90-$turn)+8*sin(Y/40)':cr='104+20*sin(Y/60+$turn)-12*sin(X/75)'"
background="color=c=gray:size=320x180:rate=$fps:duration=$seconds,format=yuv444p,$waves,scale=1280:720:flags=bicubic"

# A ball on a Lissajous curve: its motion shows a stutter at once.
ball="color=c=white:size=96x96:rate=$fps:duration=$seconds,format=yuva444p"
ball="$ball,geq=lum=245:cb=118:cr=146:a='255*clip(46-hypot(X-47.5,Y-47.5),0,1)'"
path="x='592+470*sin(2*PI*t/5)':y='312+150*sin(4*PI*t/5+PI/4)'"

# A hand that turns once a second round a dial of dots.
dial="color=c=black:size=140x140:rate=$fps:duration=$seconds,format=yuva444p,geq=lum='if(lt(hypot(X-70-52*sin(2*PI*T),Y-70+52*cos(2*PI*T)),11),250,190)'"
dial="$dial:cb=128:cr=128:a='if(lt(hypot(X-70-52*sin(2*PI*T),Y-70+52*cos(2*PI*T)),11),255,if(lt(abs(hypot(X-70,Y-70)-52),2),150,0))'"

shadow="shadowcolor=black@0.55:shadowx=3:shadowy=3"
title="drawtext=fontfile=$bold:text='Streamgate demo':fontsize=92:fontcolor=white:x=(w-tw)/2:y=92:$shadow"
under="drawtext=fontfile=$bold:text='RTSP in, WebRTC out':fontsize=34:fontcolor=white@0.85:x=(w-tw)/2:y=204:$shadow"
strip="drawbox=x=0:y=ih-112:w=iw:h=112:color=black@0.5:t=fill"
count="drawtext=fontfile=$mono:text='frame %{eif\\:n\\:d\\:3}':fontsize=56:fontcolor=white:x=60:y=h-84"
clock="drawtext=fontfile=$mono:text='%{pts\\:hms}':fontsize=56:fontcolor=white:x=w-tw-60:y=h-84"

encode() { # PASS OUTPUT...
  ff -filter_complex "$background[bg];$ball[ball];$dial[dial];
      [bg][ball]overlay=$path:shortest=1[a];[a][dial]overlay=x=(W-w)/2:y=H-262[b];
      [b]$title,$under,$strip,$count,$clock,format=yuv420p[v]" -map '[v]' \
    -c:v libx264 -profile:v baseline -level 3.1 -preset veryslow -tune animation -bf 0 -refs 3 -aq-mode 3 \
    -g $gop -keyint_min $gop -sc_threshold 0 -b:v 520k -maxrate 900k -bufsize 900k -pass "$1" -passlogfile "$work/pass" "${@:2}"
}
encode 1 -f null -
encode 2 "$work/video.mp4"

# A soft melody, ten notes in five seconds, and a beep on each full second. Silent at the seam.
note='st(0,floor(mod(t,5)*2));st(1,mod(t,0.5))'
pitch='220*pow(2,(7*eq(ld(0),1)+12*eq(ld(0),2)+16*eq(ld(0),3)+19*eq(ld(0),4)+16*eq(ld(0),5)+12*eq(ld(0),6)+9*eq(ld(0),7)+7*eq(ld(0),8)+4*eq(ld(0),9))/12)'
tone="st(2,$pitch);0.16*(sin(2*PI*ld(2)*t)+0.35*sin(4*PI*ld(2)*t))*exp(-5*ld(1))*min(1,ld(1)*80)*min(1,(0.5-ld(1))*60)"
beep='0.09*sin(2*PI*1760*t)*between(mod(t,1),0.02,0.07)'
ff -f lavfi -i "aevalsrc=exprs='$note;$tone+$beep':sample_rate=48000:duration=$((seconds + 1))" -ac 2 \
  -c:a libopus -b:a 48k -vbr on -frame_duration 20 -frames:a $((seconds * 50)) "$work/audio.mp4"

ff -i "$work/video.mp4" -i "$work/audio.mp4" -map 0:v -map 1:a -c copy -movflags +faststart \
  -map_metadata -1 -fflags +bitexact "$out"
ls -l "$out" | awk '{ print $9 ": " $5 " bytes" }'
