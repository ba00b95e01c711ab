#!/usr/bin/env bash
# Real PostgreSQL for the tests: one server in a temporary folder, reached over a Unix socket in it and over no network.
#
#   tests/services/postgres/postgres.sh install     installs what is missing, prints the folder of the programs
#   tests/services/postgres/postgres.sh run         prints {"folder": ..., "bin": ..., "url": ...}, runs until its input ends
#
# Nothing outlives a test that was killed: the server ends with the pipe, and its folder goes with it. PostgreSQL refuses to run as
# root, so it runs as `postgres` or `nobody` then. It does not wait for disks: a test that needs that is not a test of ours.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

programs() {
    local found
    for found in "$(dirname "$(command -v initdb 2>/dev/null || echo /none/initdb)")" /usr/lib/postgresql/*/bin; do
        if [ -x "$found/initdb" ] && [ -x "$found/postgres" ] && [ -x "$found/pg_isready" ] && [ -x "$found/createdb" ]; then
            printf '%s\n' "$found"
            return
        fi
    done
}

bin=$(programs | tail -n 1)
if [ -z "$bin" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "error: missing postgresql; install it with your package manager and run this again"
        exit 1
    fi
    say "installing postgresql"
    # Without a cluster of Debian's own, which nobody here would use.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >&2
    bin=$(programs | tail -n 1)
fi

case ${1:-} in
install)
    printf '%s\n' "$bin"
    exit
    ;;
run) ;;
*)
    say "usage: postgres.sh install|run"
    exit 2
    ;;
esac

# A socket's path has at most 107 bytes, so the folder is a short one.
folder=$(mktemp -d /tmp/postgres.XXXXXXXX)
as=()
if [ "$(id -u)" = 0 ]; then
    user=nobody
    if id postgres >/dev/null 2>&1; then user=postgres; fi
    chown "$user" "$folder"
    as=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups)
fi
server=
finish() {
    if [ -n "$server" ]; then
        kill -INT "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

cd "$folder"
"${as[@]}" "$bin/initdb" --pgdata "$folder/data" --username postgres --auth trust --encoding UTF8 --locale C.UTF-8 --no-sync >"$folder/initdb.log" 2>&1 || {
    cat "$folder/initdb.log" >&2
    exit 1
}
"${as[@]}" "$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= -c fsync=off -c synchronous_commit=off \
    -c full_page_writes=off -c shared_buffers=16MB -c max_connections=200 >"$folder/postgres.log" 2>&1 &
server=$!
for _ in $(seq 600); do
    if "$bin/pg_isready" --quiet --host "$folder" --username postgres; then
        ready=yes
        break
    fi
    if ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.1
done
if [ -z "${ready:-}" ]; then
    cat "$folder/postgres.log" >&2
    exit 1
fi
printf '{"folder": "%s", "bin": "%s", "url": "postgres://postgres@localhost/postgres?host=%s"}\n' "$folder" "$bin" "$folder"
cat >/dev/null
