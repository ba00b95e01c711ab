#!/usr/bin/env bash
# Apache Kafka for the tests: real brokers in KRaft mode, on ports chosen at start, in a folder of their own.
#
#   kafka.sh run [BROKERS]           starts 1 to 3 brokers, prints `bootstrap HOST:PORT,…`, runs until Ctrl-C
#   kafka.sh start [BROKERS]         the same in the background
#   kafka.sh stop                    ends what `start` began
#   kafka.sh install                 fetches what is missing, prints the folder
#   kafka.sh format FOLDER BROKERS   makes the folders and settings of a cluster, prints its addresses
#   kafka.sh broker FOLDER N         runs broker N of such a folder; prints `pid …`, then `ready …`
#
# `run` and `broker` end, brokers and all, when their standard input does, so nothing outlives a test that was killed. Jars land in
# ${MCP_RUNTIME_SERVICES:-<repository>/.services}/kafka. Each broker also listens for SASL PLAIN: user `tester`, password `secret`.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
services=${MCP_RUNTIME_SERVICES:-$(cd "$here/../../.." && pwd)/.services}
mkdir -p "$services"
services=$(cd "$services" && pwd)
home=$services/kafka
cluster_id=bWNwLXJ1bnRpbWUtdGVzdA

say() { printf '%s\n' "$*" >&2; }

# Debian packages are installed only where that needs no question: by root, with apt at hand.
need() {
    local command=$1 package=$2
    if command -v "$command" >/dev/null; then return; fi
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "error: missing $package; install it with your package manager and run this again"
        exit 1
    fi
    say "installing $package"
    DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2
}

# A broker with what all of them share; small, because tests run several beside compilers.
java_kafka() {
    local level=$1
    shift
    exec java -Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel="${KAFKA_TIER:-1}" -XX:-UsePerfData -Xshare:auto \
        -Dorg.slf4j.simpleLogger.defaultLogLevel="$level" -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info \
        -Dorg.slf4j.simpleLogger.showDateTime=true -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS \
        -cp "$home/lib/*" "$@"
}

install_jars() {
    local pins
    need java openjdk-17-jre-headless
    need python3 python3
    pins=$(cat "$here/pom.xml" "$here/kafka.sh" | sha256sum | cut -d' ' -f1)
    exec 9>"$services/.kafka.lock"
    flock 9
    if [ "$(cat "$home/.installed" 2>/dev/null)" != "$pins" ]; then
        need mvn maven
        say "fetching Apache Kafka into $home"
        rm -rf "$home"
        mkdir -p "$home"
        mvn --batch-mode --quiet --file "$here/pom.xml" dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$home/lib" >&2
        for node in 1 2 3; do template "$node"; done
        printf '%s\n' "$pins" >"$home/.installed"
    fi
    exec 9>&-
}

# Formatting takes a Java start for each broker; done once here, copied for each cluster.
template() {
    local node=$1 folder=$home/template/$1
    mkdir -p "$folder"
    settings "$node" "$folder" "1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:3" 1 2 3 3 >"$home/template/$node.properties"
    (java_kafka warn kafka.tools.StorageTool format --cluster-id "$cluster_id" --config "$home/template/$node.properties") >&2
}

settings() {
    local node=$1 folder=$2 voters=$3 plain=$4 sasl=$5 controller=$6 brokers=$7
    cat <<SETTINGS
process.roles=broker,controller
node.id=$node
controller.quorum.voters=$voters
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$plain,SASL_PLAINTEXT://127.0.0.1:$sasl,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$plain,SASL_PLAINTEXT://127.0.0.1:$sasl
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_tester="secret";
log.dirs=$folder
auto.create.topics.enable=false
default.replication.factor=$((brokers < 3 ? 1 : 3))
offsets.topic.replication.factor=$((brokers < 3 ? 1 : 3))
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controlled.shutdown.enable=false
replica.lag.time.max.ms=5000
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
background.threads=2
SETTINGS
}

# Ports that were free a moment ago, below those the system gives to clients, so that a restarted broker finds its own again.
free_ports() {
    python3 - "$1" <<'PYTHON'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    one = socket.socket()
    try:
        one.bind(("127.0.0.1", random.randint(15000, 32000)))
        held.append(one)
    except OSError:
        one.close()
print(*(one.getsockname()[1] for one in held))
PYTHON
}

format() {
    local folder=$1 brokers=$2 ports voters="" plain="" sasl="" node
    install_jars
    mkdir -p "$folder"
    read -ra ports <<<"$(free_ports $((brokers * 3)))"
    for ((node = 1; node <= brokers; node++)); do
        voters+=,$node@127.0.0.1:${ports[node * 3 - 1]}
        plain+=,127.0.0.1:${ports[node * 3 - 3]}
        sasl+=,127.0.0.1:${ports[node * 3 - 2]}
    done
    for ((node = 1; node <= brokers; node++)); do
        cp -r "$home/template/$node" "$folder/$node"
        settings "$node" "$folder/$node" "${voters#,}" "${ports[@]:node * 3 - 3:3}" "$brokers" >"$folder/$node.properties"
    done
    printf 'bootstrap %s\nsasl %s\n' "${plain#,}" "${sasl#,}"
}

broker() {
    local folder=$1 node=$2 java watch status=0
    [ -d "$home/lib" ] || install_jars
    exec 3>&1 4<&0
    java_kafka warn kafka.Kafka "$folder/$node.properties" </dev/null 4<&- > >(
        while IFS= read -r line; do
            printf '%s\n' "$line" >>"$folder/$node.log"
            case $line in *"Kafka Server started"*) printf 'ready %s\n' "$node" >&3 ;; esac
        done
    ) 2>&1 &
    java=$!
    printf 'pid %s\n' "$java" >&3
    # Whoever holds the other end of our input is gone once it ends, and wants nothing of what is on disk.
    (
        cat <&4 || true
        kill -KILL "$java" || true
        tail --pid="$java" -f /dev/null
        rm -rf "${folder:?}/$node" "$folder/$node.properties" "$folder/$node.log"
        rmdir "$folder" || true
    ) >/dev/null 2>&1 3>&- &
    watch=$!
    trap 'kill -TERM "$java" 2>/dev/null || true' TERM INT
    while kill -0 "$java" 2>/dev/null; do wait "$java" && status=0 || status=$?; done
    pkill -P "$watch" 2>/dev/null || true
    kill "$watch" 2>/dev/null || true
    return "$status"
}

run() {
    local brokers=$1 folder addresses node ready=0 line
    folder=$(mktemp -d "${TMPDIR:-/tmp}/kafka.XXXXXX")
    # Our children are ended through their inputs; the folder goes last.
    trap 'exec 5>&-; wait; rm -rf "$folder"' EXIT
    trap 'exit 0' TERM INT
    addresses=$(format "$folder" "$brokers")
    mkfifo "$folder/alive" "$folder/said"
    exec 5<>"$folder/alive" 6<>"$folder/said"
    for ((node = 1; node <= brokers; node++)); do
        "$here/kafka.sh" broker "$folder" "$node" <"$folder/alive" 5>&- >&6 &
    done
    while ((ready < brokers)) && IFS= read -r -t 120 line <&6; do
        case $line in ready*) ready=$((ready + 1)) ;; esac
    done
    if ((ready < brokers)); then
        say "error: the brokers are not ready; the end of their logs:"
        tail -n 20 "$folder"/*.log >&2
        exit 1
    fi
    printf '%s\nfolder %s\n' "$addresses" "$folder"
    cat >/dev/null
}

start() {
    local brokers=$1
    if [ -e "$services/kafka.pid" ] && kill -0 "$(cat "$services/kafka.pid")" 2>/dev/null; then
        say "error: brokers run already; stop them with: $0 stop"
        exit 1
    fi
    : >"$services/kafka.out"
    sleep infinity | "$here/kafka.sh" run "$brokers" >"$services/kafka.out" &
    printf '%s\n' $! >"$services/kafka.pid"
    tail --pid=$! -n +1 -f "$services/kafka.out" | sed '/^folder/q'
}

case ${1:-} in
install) install_jars && printf '%s\n' "$home" ;;
format) format "$2" "${3:-1}" ;;
broker) broker "$2" "$3" ;;
run) run "${2:-1}" ;;
start) start "${2:-1}" ;;
stop) [ ! -e "$services/kafka.pid" ] || kill "$(cat "$services/kafka.pid")"; rm -f "$services/kafka.pid" ;;
*)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
