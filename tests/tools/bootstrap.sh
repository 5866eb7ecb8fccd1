#!/usr/bin/env bash
# Installs what the tests need besides Rust and Node: Debian packages (as root or by sudo) and npm packages.
# Does nothing where all of it is there. Prints what to install by hand where it may not install.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

packages=(
  chromium firefox-esr                              # the browsers
  ffmpeg fonts-dejavu-core                          # clips with a burnt-in counter; a strict RTSP client
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav      # the cameras' encoders and RTP payloaders
  gir1.2-gst-rtsp-server-1.0 python3-gi             # the cameras' RTSP server
  glib-networking                                   # its TLS
  iproute2                                          # network namespaces: UDP blocked, a bad link
  g++                                               # libFuzzer
  valgrind                                          # instruction counts
)

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

if command -v dpkg-query >/dev/null; then
  mapfile -t missing < <(missing_packages)
  if [ ${#missing[@]} -eq 0 ]; then
    echo "Debian packages: all there"
  else
    root=()
    if [ "$(id -u)" != 0 ]; then
      if ! sudo -n true 2>/dev/null; then
        echo "These Debian packages are missing, and installing them needs root:" >&2
        echo "  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
      fi
      root=(sudo -n)
    fi
    echo "Installing Debian packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    "${root[@]}" apt-get -qq -o Acquire::Retries=3 update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 \
      install --no-install-recommends "${missing[@]}" >/dev/null
  fi
else
  echo "This is no Debian: please see to it that these or their like are there: ${packages[*]}" >&2
fi

for command in cargo node npm; do
  command -v "$command" >/dev/null || { echo "$command is missing: the tests need Rust and Node (20 or newer)" >&2; exit 1; }
done

cd "$here/../browser"
if [ node_modules/.package-lock.json -nt package-lock.json ]; then
  echo "npm packages: all there"
else
  echo "Installing npm packages: npm ci"
  npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
  touch node_modules/.package-lock.json
fi
