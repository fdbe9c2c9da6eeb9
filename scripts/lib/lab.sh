# shellcheck shell=bash
# A small network on one machine: a client, ripvsd, and real servers that run nginx,
# each in a network namespace. Sourced by scripts/demo and by tests/e2e; needs root.
#
#     client  198.18.0.1 ---- eth0  ripvsd  eth1 ----+---- web1  10.0.0.11
#             10.0.0.1   ----------------------------+---- web2  10.0.0.12
#                                                    +---- web3  10.0.0.13
#
# The client stands for a router as well: what the servers send from a virtual address
# (direct routing, tunnels) goes straight to it at 10.0.0.1, everything else to ripvsd,
# which is 10.0.0.254. With one arm ripvsd has eth1 alone, and the client is 10.0.0.1.
# IPv6 likewise: 2001:db8:18::/64 and 2001:db8:10::/64. Virtual addresses are those of
# 192.0.2.0/24 and 2001:db8:2::/64; every server has .100-.119 and ::100-::119 of them.
#
#     LAB=name                     what the namespaces' names begin with (set before sourcing)
#     LAB_SETTINGS=lines           more lines for ripvsd's configuration
#     lab_up [ARMS [WORKERS]]      builds it all; lab_down ends it, lab_down_at_exit sees to that
#     on web1 COMMAND...           runs COMMAND in a namespace
#     adm ARGS...                  runs ripvsadm; LAB_RIPVSD is the process of ripvsd
#
# RIPVS_BIN is the folder of ripvsd and ripvsadm (target/release).

LAB=${LAB:-ripvs}
LAB_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB_DIR=/run/ripvs-lab/$LAB
LAB_RIPVSD=
LAB_STARTED=
LAB_SERVERS="web1 web2 web3"
LAB_PIDS=()
RIPVS_BIN=${RIPVS_BIN:-${CARGO_TARGET_DIR:-$LAB_ROOT/target}/release}
export RIPVS_SOCKET=$LAB_DIR/ripvsd.sock

lab_fail() {
    echo "$LAB: $*" >&2
    if [ -S "$RIPVS_SOCKET" ]; then
        echo "--- what became of packets:" >&2
        timeout 10 "$RIPVS_BIN/ripvsadm" drops >&2 || true
    fi
    if [ -s "$LAB_DIR/ripvsd.log" ]; then
        echo "--- the last lines of $LAB_DIR/ripvsd.log:" >&2
        tail -n 20 "$LAB_DIR/ripvsd.log" >&2
    fi
    exit 1
}

on() {
    local space=$1
    shift
    ip netns exec "$LAB-$space" "$@"
}

adm() {
    "$RIPVS_BIN/ripvsadm" "$@"
}

# until_true SECONDS COMMAND...: polls for something that another process brings about.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

# lab_start SPACE LOG COMMAND...: runs COMMAND in the background until lab_down. LAB_STARTED
# is its process.
lab_start() {
    local space=$1 log=$2
    shift 2
    ip netns exec "$LAB-$space" "$@" >"$LAB_DIR/$log" 2>&1 </dev/null &
    LAB_STARTED=$!
    LAB_PIDS+=("$LAB_STARTED")
    echo "$LAB_STARTED" >>"$LAB_DIR/pids"
}

# ------------------------------------------------------------------ up

lab_up() {
    local arms=${1:-2} workers=${2:-1}
    [ "$(id -u)" = 0 ] || lab_fail "network namespaces need root"
    [ -x "$RIPVS_BIN/ripvsd" ] || lab_fail "$RIPVS_BIN/ripvsd is not there: cargo build --release"
    lab_down
    mkdir -p "$LAB_DIR"
    local space
    for space in client lb switch $LAB_SERVERS; do
        ip netns add "$LAB-$space"
        # shellcheck disable=SC2016
        on "$space" sh -c '
            for f in all default; do
                echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter
                echo 0 > /proc/sys/net/ipv4/conf/$f/accept_redirects
                echo 0 > /proc/sys/net/ipv6/conf/$f/accept_dad
                echo 0 > /proc/sys/net/ipv6/conf/$f/accept_ra
            done'
        on "$space" ip link set lo up
    done
    lab_switch
    lab_ripvsd "$arms" "$workers"
    lab_client "$arms"
    local number=0
    for space in $LAB_SERVERS; do
        number=$((number + 1))
        lab_server "$space" $number "$arms"
    done
}

lab_switch() {
    on switch ip link add br0 type bridge
    on switch ip link set br0 up
}

# lab_plug SPACE: a cable, called servers, from a namespace to the switch.
lab_plug() {
    ip link add servers netns "$LAB-$1" type veth peer name "$1" netns "$LAB-switch"
    on switch ip link set "$1" master br0 up
    on "$1" ip link set servers up
}

lab_ripvsd() {
    local arms=$1 workers=$2
    {
        cat <<EOF
workers = $workers
socket = "$RIPVS_SOCKET"
state_dir = "$LAB_DIR/state"
idle = "adaptive"
connections = 262144
${LAB_SETTINGS:-}

[eal]
args = ["--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "256"]

[loopback]
addresses = ["192.0.2.100/32", "192.0.2.101/32", "192.0.2.102/32", "2001:db8:2::100/128", "2001:db8:2::101/128", "2001:db8:2::102/128"]

[[port]]
name = "eth1"
device = "net_tap1,iface=$LAB-1"
mac = "02:00:00:00:00:02"
addresses = ["10.0.0.254/24", "2001:db8:10::fe/64"]
EOF
        [ "$arms" = 1 ] || cat <<EOF

[[port]]
name = "eth0"
device = "net_tap0,iface=$LAB-0"
mac = "02:00:00:00:00:01"
addresses = ["198.18.0.254/24", "2001:db8:18::fe/64"]
EOF
    } >"$LAB_DIR/ripvsd.toml"
    lab_ripvsd_start "$arms"
}

# lab_ripvsd_start ARMS: also after it has ended, with one arm; LAB_RIPVSD is its process.
lab_ripvsd_start() {
    local arms=$1
    lab_start lb ripvsd.log "$RIPVS_BIN/ripvsd" --config "$LAB_DIR/ripvsd.toml"
    # shellcheck disable=SC2034
    LAB_RIPVSD=$LAB_STARTED
    until_true 30 adm port || lab_fail "ripvsd does not answer"
    # ripvsd has configured its ports; now their kernel ends may move, under a MAC of their own
    lab_move 1 switch servers-lb
    on switch ip link set servers-lb master br0 up
    if [ "$arms" != 1 ]; then
        lab_move 0 client eth0
    fi
}

# lab_move NUMBER SPACE NAME: the kernel's end of a net_tap port goes to a namespace.
lab_move() {
    on lb ip link set "$LAB-$1" down
    on lb ip link set "$LAB-$1" address "02:00:00:00:ff:0$1"
    on lb ip link set "$LAB-$1" name "$3" netns "$LAB-$2"
    on "$2" ip link set "$3" up
}

lab_client() {
    lab_plug client
    on client ip address add 10.0.0.1/24 dev servers
    on client ip address add 2001:db8:10::1/64 dev servers nodad
    if [ "$1" = 1 ]; then
        on client ip route add 192.0.2.0/24 via 10.0.0.254
        on client ip route add 2001:db8:2::/64 via 2001:db8:10::fe
    else
        on client ip address add 198.18.0.1/24 dev eth0
        on client ip address add 2001:db8:18::1/64 dev eth0 nodad
        on client ip route add 192.0.2.0/24 via 198.18.0.254
        on client ip route add 2001:db8:2::/64 via 2001:db8:18::fe
    fi
}

lab_server() {
    local space=$1 number=$2 arms=$3 last
    lab_plug "$space"
    on "$space" ip address add "10.0.0.1$number/24" dev servers
    on "$space" ip address add "2001:db8:10::1$number/64" dev servers nodad
    # its own replies (NAT) go back through ripvsd ...
    on "$space" ip route add default via 10.0.0.254
    on "$space" ip route add default via 2001:db8:10::fe
    if [ "$arms" = 1 ]; then
        on "$space" ip route add 10.0.0.1/32 via 10.0.0.254
        on "$space" ip route add 2001:db8:10::1/128 via 2001:db8:10::fe
    fi
    # ... those from a virtual address (direct routing, tunnels) straight to the client
    on "$space" ip rule add from 192.0.2.0/24 table 100
    on "$space" ip -6 rule add from 2001:db8:2::/64 table 100
    on "$space" ip route add 10.0.0.0/24 dev servers table 100
    on "$space" ip route add default via 10.0.0.1 table 100
    on "$space" ip -6 route add 2001:db8:10::/64 dev servers table 100
    on "$space" ip -6 route add default via 2001:db8:10::1 table 100
    on "$space" sh -c '
        echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore
        echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce'
    for last in $(seq 100 119); do
        echo "address add 192.0.2.$last/32 dev lo"
        echo "address add 2001:db8:2::$last/128 dev lo nodad"
    done | on "$space" ip -batch -
    lab_tunnel_end "$space" "$number"
    lab_nginx "$space"
}

# The server's end of IP-in-IP tunnels: the kernel's where it has ipip, otherwise a
# program that unpacks what arrives.
lab_tunnel_end() {
    local space=$1 number=$2
    if on "$space" ip link add tunnels type ipip local "10.0.0.1$number" remote any 2>/dev/null &&
        on "$space" ip link add tunnels6 type ip6tnl mode any \
            local "2001:db8:10::1$number" remote any 2>/dev/null; then
        on "$space" ip link set tunnels up
        on "$space" ip link set tunnels6 up
        return
    fi
    on "$space" ip link delete tunnels 2>/dev/null || true
    lab_start "$space" "$space.untunnel.log" "$LAB_ROOT/scripts/lib/untunnel" tunnels
    until_true 10 on "$space" ip link show up dev tunnels || lab_fail "$space: no tunnel's end"
}

lab_nginx() {
    local space=$1 dir=$LAB_DIR/$1
    mkdir -p "$dir/www"
    echo "$space" >"$dir/www/index.html"
    cat >"$dir/nginx.conf" <<EOF
daemon off;
user root;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    sendfile on;
    keepalive_timeout 600;
    keepalive_requests 1000000;
    server {
        listen 80;
        listen 8080;
        listen [::]:80;
        listen [::]:8080;
        root $dir/www;
    }
}
EOF
    lab_start "$space" "$space.nginx.log" nginx -p "$dir" -e "$dir/error.log" -c "$dir/nginx.conf"
    until_true 10 on "$space" curl -sf --max-time 2 http://127.0.0.1/ ||
        lab_fail "$space: nginx does not answer: $(cat "$dir/error.log")"
}

# ------------------------------------------------------------------ down

# lab_down: ends what lab_up started, this time's or an earlier one's under the same name.
lab_down() {
    local pid space
    if [ -f "$LAB_DIR/pids" ]; then
        while read -r pid; do
            # only what is still in one of our namespaces: a number may be another's by now
            case " $(ip netns identify "$pid" 2>/dev/null) " in
            *" $LAB-"*) kill "$pid" 2>/dev/null || true ;;
            esac
        done <"$LAB_DIR/pids"
        for pid in "${LAB_PIDS[@]}"; do
            wait "$pid" 2>/dev/null || true
        done
    fi
    LAB_PIDS=()
    for space in client lb switch $LAB_SERVERS; do
        if [ -e "/run/netns/$LAB-$space" ]; then
            # whatever else runs in there
            for pid in $(ip netns pids "$LAB-$space"); do
                kill -9 "$pid" 2>/dev/null || true
            done
            ip netns delete "$LAB-$space"
        fi
    done
    rm -rf "$LAB_DIR"
}

# lab_down_at_exit: also on Ctrl-C and on errors.
lab_down_at_exit() {
    # Nothing stops it half-way, not a second Ctrl-C either.
    trap 'trap "" INT TERM HUP; lab_down' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}
