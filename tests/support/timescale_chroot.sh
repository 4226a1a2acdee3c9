#!/bin/sh
# A Debian trixie root with PostgreSQL 17 and TimescaleDB, for tests on a real hypertable.
#
#   timescale_chroot.sh path     print where it is, or will be
#   timescale_chroot.sh build    make it if it is not there yet, then print where it is
#
# The folder lives outside the checkout and is made once: ${XDG_CACHE_HOME:-~/.cache}/stockify.
# A build happens in a folder of its own beside it and is renamed into place when it is whole, so
# that an interrupted one is never taken for a finished one. Only root can build or use it.
# Exit status: 0 it is there, 2 this machine cannot have it (the reason goes to stderr).
set -eu

suite=trixie
packages=postgresql-17,postgresql-17-timescaledb
cache="${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/stockify"
root="$cache/trixie-timescale"
finished="$root/.finished"

refuse() {
    echo "timescale_chroot: $*" >&2
    exit 2
}

# The Debian mirror that this machine's own apt uses.
mirror() {
    apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' \
        'Identifier: Packages' | sed -n 's/^Debian|Debian|main|//p' | head -n 1
}

apt_proxy() {
    apt-config dump Acquire::http::Proxy | sed -n 's/^Acquire::http::Proxy "\(.*\)";$/\1/p'
}

build() {
    [ -e "$finished" ] && return 0
    [ "$(id -u)" = 0 ] || refuse "only root can build a chroot"
    command -v debootstrap >/dev/null || refuse "debootstrap is not installed"
    command -v apt-get >/dev/null || refuse "no apt here to tell the Debian mirror"
    site=$(mirror)
    [ -n "$site" ] || refuse "apt knows no Debian mirror; run apt-get update first"
    mkdir -p "$cache"
    exec 9>"$cache/trixie-timescale.lock"
    flock 9 # a second build waits for the first and finds its result
    [ -e "$finished" ] && return 0
    rm -rf "$root" "$cache"/trixie-timescale.build.*
    half=$(mktemp -d "$cache/trixie-timescale.build.XXXXXX")
    chmod 755 "$half"
    trap 'rm -rf "$half"' EXIT
    trap 'exit 1' INT TERM HUP
    proxy=$(apt_proxy)
    if [ -n "$proxy" ] && [ "$proxy" != DIRECT ]; then
        http_proxy=$proxy
        export http_proxy
    fi
    log="$cache/trixie-timescale.log"
    if ! debootstrap --variant=minbase --include="$packages" "$suite" "$half" "$site" \
        >"$log" 2>&1 9>&-; then
        tail -n 5 "$log" >&2
        refuse "debootstrap failed; its log is $log"
    fi
    rm -rf "$half"/var/cache/apt/archives/*.deb "$half"/var/lib/apt/lists/* \
        "$half"/var/lib/postgresql/17/main "$half"/etc/postgresql/17/main
    [ -x "$half/usr/lib/postgresql/17/bin/postgres" ] || refuse "the build holds no PostgreSQL"
    touch "$half/.finished"
    mv "$half" "$root"
    trap - EXIT
}

case "${1:-}" in
path) echo "$root" ;;
build)
    build
    echo "$root"
    ;;
*)
    echo "usage: $0 path|build" >&2
    exit 64
    ;;
esac
