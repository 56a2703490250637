# The contenders of `infra/bench/http`, each tuned as its manual says: one worker, upstream connections kept, no access
# log. `serve CONTENDER KIND` starts one on a free port of core 0 and sets `url` and `pid`. Source it after lib.sh; it
# needs `origin` and `reader` (host:port of what answers behind), `files` (a directory), `pem` (chain and key).
# shellcheck shell=bash disable=SC2154

# on_core_0 LOG COMMAND…
on_core_0() {
    local log=$1; shift
    background "$log" taskset -c 0 "$@"
    pid=$background_pid
}

serve() {
    local contender=$1 kind=$2
    port=$(free_port) dir=$work/$contender-$kind log=$work/$contender-$kind.log url=http://127.0.0.1:$port
    [ "$kind" != tls ] || url=https://127.0.0.1:$port
    mkdir -p "$dir"
    # Requests with a body go to an origin that reads it.
    if [ "$kind" = post ]; then local origin=$reader kind=proxy; fi
    "serve_$contender" "$kind"
    wait_for 20 "$log" port_open "$port"
}

# --- nginx: https://nginx.org/en/docs/http/ngx_http_upstream_module.html#keepalive
serve_nginx() {
    local listen="$port deferred backlog=4096" location
    local pass="proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_request_buffering off;
        proxy_buffer_size 16k; proxy_buffers 8 16k; proxy_busy_buffers_size 32k; proxy_max_temp_file_size 0;"
    case $1 in
        proxy) location="location / { $pass }" ;;
        tls) listen="$port ssl deferred backlog=4096" location="ssl_certificate $pem; ssl_certificate_key $pem; ssl_protocols TLSv1.3; location / { $pass }" ;;
        files) location="root $files; open_file_cache max=1000; open_file_cache_valid 60s; sendfile on;" ;;
        cache) location="location / { $pass proxy_cache hot; proxy_cache_valid 200 10m; proxy_cache_lock on; }" ;;
    esac
    nginx_conf "$listen" "$location" "$origin"
    on_core_0 "$log" nginx -c "$dir/nginx.conf" -p "$dir"
}

nginx_conf() { # LISTEN LOCATION UPSTREAM
    cat >"$dir/nginx.conf" <<END
daemon off; worker_processes 1; pid $dir/pid; error_log $dir/error.log crit; user root;
events { worker_connections 16384; multi_accept on; }
http {
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on; client_body_buffer_size 64k;
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/f; uwsgi_temp_path $dir/u; scgi_temp_path $dir/s;
    proxy_cache_path $dir/cache levels=1:2 keys_zone=hot:64m max_size=1g use_temp_path=off;
    upstream origin { server $3; keepalive 256; keepalive_requests 100000000; }
    server { listen $1; $2 }
}
END
}

# --- HAProxy: https://docs.haproxy.org/2.6/configuration.html (http-reuse, nbthread)
serve_haproxy() {
    local bind="127.0.0.1:$port defer-accept" cache=
    [ "$1" != tls ] || bind="127.0.0.1:$port defer-accept ssl crt $pem ssl-min-ver TLSv1.3 alpn http/1.1"
    [ "$1" != cache ] || cache="http-request cache-use hot
    http-response cache-store hot"
    haproxy_conf "$bind" "$cache" "$origin"
    on_core_0 "$log" haproxy -f "$dir/haproxy.cfg" -db
}

haproxy_conf() { # BIND LINES SERVER
    cat >"$dir/haproxy.cfg" <<END
global
    nbthread 1
    maxconn $((($(ulimit -n) - 200) / 2))
cache hot
    total-max-size 256
    max-object-size 1000000
    max-age 600
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 60s
    timeout http-keep-alive 600s
frontend front
    bind $1
    default_backend back
backend back
    $2
    server origin $3 pool-max-conn -1
END
}

# --- Varnish: https://varnish-cache.org/docs/7.1/users-guide/performance.html
serve_varnish() {
    local then_=pass
    [ "$1" != cache ] || then_=hash
    cat >"$dir/vcl" <<END
vcl 4.1;
backend origin { .host = "${origin%:*}"; .port = "${origin#*:}"; }
sub vcl_recv { return ($then_); }
END
    on_core_0 "$log" varnishd -F -n "$dir/varnish" -a "127.0.0.1:$port" -f "$dir/vcl" -s malloc,256m -j none \
        -p thread_pools=1 -p thread_pool_min=100 -p timeout_idle=600 -T none
}

# --- Traffic Server: https://docs.trafficserver.apache.org/en/9.2.x/admin-guide/performance/index.en.html
serve_trafficserver() {
    local root_=$dir/ats enabled=0 etc=$dir/ats/etc
    [ "$1" != cache ] || enabled=1
    mkdir -p "$etc" "$root_"/{run,log,cache,share}
    cat >"$root_/runroot.yaml" <<END
prefix: $root_
exec_prefix: $root_
sysconfdir: $etc
datadir: $root_/share
localstatedir: $root_
runtimedir: $root_/run
logdir: $root_/log
cachedir: $root_/cache
END
    cat >"$etc/records.config" <<END
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.exec_thread.affinity INT 0
CONFIG proxy.config.http.server_ports STRING $port
CONFIG proxy.config.http.cache.http INT $enabled
CONFIG proxy.config.http.cache.required_headers INT 0
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.crash_log_helper STRING NULL
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.http.keep_alive_no_activity_timeout_out INT 600
CONFIG proxy.config.http.transaction_no_activity_timeout_in INT 600
CONFIG proxy.config.net.connections_throttle INT 18000
CONFIG proxy.config.net.max_connections_in INT 17000
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.diags.output.error STRING E
END
    echo "map / http://$origin/" >"$etc/remap.config"
    echo "$root_/cache 256M" >"$etc/storage.config"
    : >"$etc/plugin.config"
    printf 'ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n' >"$etc/ip_allow.yaml"
    chmod -R a+rwX "$root_"
    on_core_0 "$log" traffic_server --run-root="$root_" -T ''
}

# --- Caddy: https://caddyserver.com/docs/caddyfile/directives/reverse_proxy#the-http-transport
serve_caddy() {
    local address="http://127.0.0.1:$port" site="reverse_proxy $origin {
        transport http {
            keepalive 600s
            keepalive_idle_conns_per_host 256
        }
    }"
    case $1 in
        files) site="root * $files
    file_server" ;;
        tls) address="https://127.0.0.1:$port" site="tls $pem $pem
    $site" ;;
    esac
    cat >"$dir/Caddyfile" <<END
{
    admin off
    auto_https off
    servers {
        protocols h1
    }
}
$address {
    $site
}
END
    HOME=$dir XDG_DATA_HOME=$dir GOMAXPROCS=1 on_core_0 "$log" caddy run --config "$dir/Caddyfile" --adapter caddyfile
}

# --- Ours: the tier that does this work. It runs in `standfast up` beside the smallest rest of the stack, which idles.
serve_standfast() {
    case $1 in
        proxy) stack balancers=1 "[balancer]
workers = 1
listen = \"127.0.0.1:$port\"
[balancer.pool]
tiers = []
members = [{ address = \"$origin\" }]" ;;
        tls) stack balancers=1 "[balancer]
workers = 1
tls_listen = \"127.0.0.1:$port\"
[balancer.tls]
certificates = [{ chain = \"$pem\", key = \"$pem\" }]
[balancer.pool]
tiers = []
members = [{ address = \"$origin\" }]" ;;
        files) stack webs=1 "[web]
workers = 1
listen = \"127.0.0.1:$port\"
[[web.sites]]
root = \"$files\"" ;;
        cache) stack edges=1 "[edge]
workers = 1
listen = \"127.0.0.1:$port\"
origins = [\"$origin\"]" ;;
    esac
}

# stack TIER=COUNT,… CONFIG: those tiers and what a stack cannot be without.
stack() {
    local counts=(databases=1 apps=1 runners=0 webs=0 balancers=0 edges=0)
    {
        echo "[stack]"
        printf '%s\n' "${counts[@]}" "${1//,/$'\n'}" | awk -F= '{ n[$1] = $2 } END { for (tier in n) print tier " = " n[tier] }'
        printf '[%s]\nlisten = "127.0.0.1:0"\n' app console database
        printf '%s\n' "$2"
    } >"$dir/standfast.toml"
    on_core_0 "$log" "$TEST_STANDFAST_BIN" up --config "$dir/standfast.toml" --data "$dir/data"
}

# --- The whole chain: cache, balancer, web server before the same app. `pids` has all of its processes.
serve_chain_standfast() {
    stack webs=1,balancers=1,edges=1 "[web]
workers = 1
[web.pools.bench]
members = [\"http://$origin\"]
[[web.sites]]
pool = \"bench\"
[balancer]
workers = 1
[edge]
workers = 1
listen = \"127.0.0.1:$port\""
    wait_for 20 "$log" grep -q '^ready ' "$log"
}

serve_chain_peers() {
    local app=$origin web_port balancer_port front=$port base=$dir
    local pass="proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_max_temp_file_size 0;"
    web_port=$(free_port) balancer_port=$(free_port)
    dir=$base/web; mkdir -p "$dir"
    nginx_conf "$web_port" "location / { $pass }" "$app"
    on_core_0 "$log" nginx -c "$dir/nginx.conf" -p "$dir"; pids=$pid
    dir=$base/balancer; mkdir -p "$dir"
    haproxy_conf "127.0.0.1:$balancer_port" "" "127.0.0.1:$web_port"
    on_core_0 "$log" haproxy -f "$dir/haproxy.cfg" -db; pids+=" $pid"
    dir=$base/edge; mkdir -p "$dir"
    nginx_conf "$front" "location / { $pass proxy_cache hot; proxy_cache_valid 200 10m; }" "127.0.0.1:$balancer_port"
    on_core_0 "$log" nginx -c "$dir/nginx.conf" -p "$dir"; pids+=" $pid"
    wait_for 20 "$log" port_open "$web_port"
    wait_for 20 "$log" port_open "$balancer_port"
}
