#!/bin/sh
# The programs that tests and benchmarks run and Python's packages do not bring: checked, and where this is root
# on Debian or Ubuntu installed. Elsewhere it says what to install and exits 1. Arguments: the ones to look for.
set -eu

java_is_recent() {
    command -v java >/dev/null 2>&1 || return 1
    major=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [ "${major:-0}" -ge 17 ]
}

node_is_recent() {
    command -v node >/dev/null 2>&1 || return 1
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    [ "${major:-0}" -ge 18 ]
}

is_there() {
    case $1 in
        java) java_is_recent ;;
        node) node_is_recent ;;
        # Debian does not put it on the PATH.
        initdb) command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

package_of() {
    case $1 in
        java) echo default-jre-headless ;;
        mvn) echo maven ;;
        node) echo nodejs ;;
        initdb) echo postgresql ;;
        *) echo "$1" ;;
    esac
}

purpose_of() {
    case $1 in
        java) echo "Java 17 or later: runs Apache Kafka" ;;
        mvn) echo "Apache Maven: fetches Apache Kafka" ;;
        openssl) echo "OpenSSL: makes the test broker's certificates" ;;
        kcat) echo "kcat: a subscriber in the documentation" ;;
        node) echo "Node.js 18 or later: validates asyncapi.yaml, runs JupyterHub's proxy" ;;
        initdb) echo "PostgreSQL: a store of the consumers" ;;
        chromium) echo "Chromium: looks at the dashboard" ;;
        npm) echo "npm: fetches what node runs" ;;
        *) echo "$1: unknown to tools/install_system.sh" ;;
    esac
}

missing_of() {
    for program in "$@"; do
        is_there "$program" || printf '%s ' "$program"
    done
}

[ $# -gt 0 ] || set -- java mvn openssl kcat node npm initdb chromium
missing=$(missing_of "$@")
[ -n "$missing" ] || exit 0

packages=
for program in $missing; do
    packages="$packages $(package_of "$program")"
done
packages=${packages# }

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing $packages (once)" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2 >&2
    for program in $missing; do
        # One may have come with another: some distributors' nodejs brings npm, and conflicts with Debian's.
        is_there "$program" || apt-get install --yes --quiet=2 --no-install-recommends "$(package_of "$program")" >&2
    done
    missing=$(missing_of "$@")
    [ -n "$missing" ] || exit 0
fi

echo "these programs are missing, or too old:" >&2
for program in $missing; do
    echo "  $(purpose_of "$program")" >&2
done
echo "on Debian or Ubuntu, as root: apt-get install $packages" >&2
exit 1
