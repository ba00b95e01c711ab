#!/usr/bin/env bash
# Installs the third-party MCP components the tests run: the official TypeScript and Python SDKs, and
# server-everything, all at the versions pinned beside this script.
#
#   tests/services/install.sh             installs what is missing, prints the folder
#   tests/services/install.sh node        only the npm packages
#   tests/services/install.sh python      only the two Python environments of the SDKs
#   tests/services/install.sh kafka       only Apache Kafka
#   tests/services/install.sh clickhouse  only the ClickHouse engine
#   tests/services/install.sh prometheus  only promtool, which checks alert rules
#   tests/services/install.sh kubernetes  only the Kubernetes control plane, built from its modules; needs Go
#   tests/services/install.sh registry    only the image registry, built from its module; needs Go
#   tests/services/install.sh postgres    only PostgreSQL, from Debian
#   tests/services/install.sh schemathesis  only Schemathesis, which asks our API whatever its description allows
#
# Everything lands in ${MCP_RUNTIME_SERVICES:-<repository>/.services}. Each part leaves a stamp with the digest of
# its pins, so a second run changes nothing and takes milliseconds; several runs at once wait for each other.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
services=${MCP_RUNTIME_SERVICES:-$(cd "$here/../.." && pwd)/.services}
mkdir -p "$services"
services=$(cd "$services" && pwd)
node_version=22.23.3

say() { printf '%s\n' "$*" >&2; }

# Debian packages are installed only where that needs no question: by root, with apt at hand.
need() {
    local command=$1
    shift
    if eval "$command" >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "error: missing $*; install it with your package manager and run this again"
        exit 1
    fi
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}

digest() { cat "$@" | sha256sum | cut -d' ' -f1; }
warm() { [ "$(cat "$1/.installed" 2>/dev/null)" = "$2" ]; }

install_node() {
    local pins
    pins=$(digest "$here"/npm/package.json "$here"/npm/package-lock.json "$here"/npm/load.mjs)
    if warm "$services/npm" "$pins" && [ -x "$services/bin/node" ]; then return; fi
    need 'node --version' nodejs
    need 'npm --version' npm
    say "installing npm packages into $services/npm"
    rm -rf "$services/npm"
    mkdir -p "$services/npm"
    cp "$here"/npm/package.json "$here"/npm/package-lock.json "$here"/npm/load.mjs "$services/npm/"
    (cd "$services/npm" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    link_node
    printf '%s\n' "$pins" >"$services/npm/.installed"
}

# The conformance suite needs Node 22, and Debian 12 has 18. A newer one comes as an npm package then, without root.
link_node() {
    local node machine major
    node=$(command -v node)
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    if [ "$major" -lt 22 ]; then
        machine=$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')
        say "node $(node --version) is too old; installing $node_version into $services/node"
        npm install --prefix "$services/node" --no-audit --no-fund --loglevel=error \
            "node-linux-$machine@$node_version" >&2
        node=$services/node/node_modules/node-linux-$machine/bin/node
    fi
    mkdir -p "$services/bin"
    ln -sfn "$node" "$services/bin/node"
}

install_python() {
    local name=$1 pins
    pins=$(digest "$here/python/$name.txt")
    if warm "$services/$name" "$pins"; then return; fi
    need 'python3 --version' python3
    need 'python3 -c "import ensurepip, venv"' python3-venv
    say "installing Python packages into $services/$name"
    rm -rf "${services:?}/$name"
    python3 -m venv "$services/$name"
    "$services/$name/bin/python" -m pip install --quiet --disable-pip-version-check \
        --requirement "$here/python/$name.txt" >&2
    printf '%s\n' "$pins" >"$services/$name/.installed"
}

part=${1:-all}
case $part in
all | node | python | clickhouse | kafka | kubernetes | postgres | prometheus | schemathesis | registry) ;;
*)
    say "usage: install.sh [all|node|python|clickhouse|kafka|kubernetes|postgres|prometheus|schemathesis|registry]"
    exit 2
    ;;
esac

exec 9>"$services/.lock"
flock 9
wanted() { [ "$part" = all ] || [ "$part" = "$1" ]; }
if wanted node; then install_node; fi
if wanted python; then
    install_python mcp2
    install_python mcp1
fi
if wanted clickhouse; then install_python clickhouse; fi
# Debian's package starts a server where there is an init system; nothing here needs it.
if wanted prometheus; then need 'promtool --version' prometheus; fi
if wanted kafka; then MCP_RUNTIME_SERVICES=$services "$here/kafka/kafka.sh" install >/dev/null; fi
if wanted registry; then MCP_RUNTIME_SERVICES=$services "$here/registry/build" >/dev/null; fi
if wanted kubernetes; then MCP_RUNTIME_SERVICES=$services "$here/kubernetes/build" >/dev/null; fi
if wanted schemathesis; then install_python schemathesis; fi
if wanted postgres; then "$here/postgres/postgres.sh" install >/dev/null; fi
printf '%s\n' "$services"
