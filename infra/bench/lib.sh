# Shared by the benchmark scripts: private servers on free ports, medians, ratios. Source it; it sets `work`, a
# temporary directory that is gone at the end together with every process started through it.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/standfast-bench.XXXXXX")
chmod 755 "$work" # PostgreSQL's own user must get through
started=()
trap cleanup EXIT

cleanup() {
    local status=$? pid
    trap - EXIT
    for pid in "${started[@]}"; do kill -- "-$pid" 2>/dev/null || kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$work"
    exit "$status"
}

die() { echo "$(basename "$0"): $*" >&2; exit 1; }
need() { local c; for c in "$@"; do command -v "$c" >/dev/null || die "$c is missing: install it and run again"; done; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# background LOG COMMAND…: a process group of its own, stopped at the end. Its id is in `background_pid`.
background() {
    local log=$1; shift
    setsid "$@" >"$log" 2>&1 &
    background_pid=$!
    started+=("$background_pid")
}
stop() { kill -"${2-TERM}" -- "-$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }

# wait_for SECONDS LOG COMMAND…: until the command succeeds.
wait_for() {
    local limit=$1 log=$2 end; shift 2; end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        if [ $SECONDS -ge $end ]; then tail -n 20 "$log" >&2; die "not within $limit s: $*"; fi
        sleep 0.1
    done
}
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }

# PostgreSQL with its default durability (fsync, synchronous_commit): sets pg_url. It refuses to run as root.
start_postgres() {
    local bin dir=$work/postgres port user=() pid
    bin=$(command -v initdb >/dev/null && dirname "$(readlink -f "$(command -v initdb)")" || ls -d /usr/lib/postgresql/*/bin | tail -n1)
    port=$(free_port)
    mkdir "$dir"
    if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; user=(setpriv --reuid=postgres --regid=postgres --clear-groups); fi
    "${user[@]}" "$bin/initdb" -D "$dir" -U bench -A trust -E UTF8 --locale=C >"$work/initdb.log" 2>&1 || die "initdb: $(tail -n1 "$work/initdb.log")"
    background "$work/postgres.log" "${user[@]}" "$bin/postgres" -D "$dir" -p "$port" -k "$dir" \
        -c listen_addresses=127.0.0.1 -c max_connections=200 -c shared_buffers=256MB
    wait_for 30 "$work/postgres.log" psql -h 127.0.0.1 -p "$port" -U bench -d postgres -c 'SELECT 1'
    pg_url=postgres://bench@127.0.0.1:$port/postgres
}

# start_redis everysec|always: an append-only file that is fsynced each second, or before each answer. Sets redis_port.
start_redis() {
    redis_port=$(free_port)
    mkdir "$work/redis-$1"
    background "$work/redis-$1.log" redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis-$1" \
        --appendonly yes --appendfsync "$1" --save '' --maxmemory-policy noeviction
    wait_for 10 "$work/redis-$1.log" port_open "$redis_port"
}

# A RabbitMQ node of our own, with its own port mapper, so that it meets no other on the machine. Sets amqp_url.
start_rabbitmq() {
    local dir=$work/rabbitmq port epmd
    port=$(free_port) epmd=$(free_port)
    mkdir "$dir"
    # Started by us, in the foreground: the one that Erlang starts by itself would outlive it.
    background "$work/epmd.log" epmd -port "$epmd" -address 127.0.0.1
    wait_for 5 "$work/epmd.log" port_open "$epmd"
    background "$work/rabbitmq.log" env HOME="$dir" ERL_EPMD_PORT="$epmd" RABBITMQ_DIST_PORT="$(free_port)" \
        RABBITMQ_NODENAME="bench-$$@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port" \
        RABBITMQ_MNESIA_BASE="$dir" RABBITMQ_LOG_BASE="$dir" RABBITMQ_ENABLED_PLUGINS_FILE="$dir/plugins" \
        RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_CONFIG_FILE="$dir/none" /usr/lib/rabbitmq/bin/rabbitmq-server
    wait_for 60 "$work/rabbitmq.log" grep -q 'completed with' "$work/rabbitmq.log"
    amqp_url=amqp://guest:guest@127.0.0.1:$port/%2f
}

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

machine() {
    echo "$(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n1)), $(. /etc/os-release && echo "$PRETTY_NAME")," \
        "$(date -u +%Y-%m-%d), commit $(git -C "$root" rev-parse --short HEAD)"
}

# The release binary; built if it is not there. TEST_STANDFAST_BIN names another.
standfast_binary() {
    if [ -z "${TEST_STANDFAST_BIN-}" ]; then
        (cd "$root" && cargo build --release --locked) >&2
        TEST_STANDFAST_BIN=${CARGO_TARGET_DIR:-$root/target}/release/standfast
    fi
}
