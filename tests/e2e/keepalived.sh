#!/usr/bin/env bash
# The original keepalived drives ripvsd under live traffic: its TCP, HTTP and MISC checks add,
# inhibit, remove and restore real servers; it outlives its own reload and restarts of ripvsd.
# usage: keepalived.sh 1 WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"

V=192.0.2.100:80
ONE=10.0.0.11:8080
TWO=10.0.0.12:8080
THREE=10.0.0.13:8080

# The namespace of ripvsd gets a cable of its own, for health checks.
lab_plug lb
on lb ip address add 10.0.0.253/24 dev servers

# configure WEIGHT: keepalived's configuration, with that weight for the third server.
configure() {
    cat >"$LAB_DIR/keepalived.conf" <<EOF
global_defs {
    router_id lab
    script_user root
    enable_script_security
}
vrrp_instance lab {
    interface servers
    virtual_router_id 51
    priority 255
    advert_int 1
    virtual_ipaddress {
        10.0.0.200/24
    }
}
virtual_server 192.0.2.100 80 {
    delay_loop 1
    lb_algo wrr
    lb_kind NAT
    protocol TCP
    alpha
    real_server 10.0.0.11 8080 {
        weight 1
        inhibit_on_failure
        TCP_CHECK {
            connect_timeout 3
            retry 0
        }
    }
    real_server 10.0.0.12 8080 {
        weight 1
        HTTP_GET {
            url {
                path /health
                status_code 200
            }
            connect_timeout 3
            retry 0
        }
    }
    real_server 10.0.0.13 8080 {
        weight $1
        MISC_CHECK {
            misc_path "/usr/bin/test -e $LAB_DIR/web3-is-well"
            misc_timeout 5
        }
    }
}
EOF
}

# servers: those of the service with their weights, sorted, on one line.
servers() {
    adm -Ln -t "$V" | awk '$1 == "->" && $2 ~ /^[0-9]/ { print $2 "=" $4 }' | sort | xargs
}

are() {
    [ "$(servers)" = "$*" ]
}

# become WHY SERVER...: waits until the service has exactly these servers.
become() {
    local why=$1
    shift
    until_true 30 are "$@" || lab_fail "$why: $(servers), not $*
$(tail -n 20 "$LAB_DIR/keepalived.log")"
    echo "ok $why"
}

# answered SERVER COUNT: whether it has answered so often since the last call of `anew`.
answered() {
    [ "$(grep -c "$1" "$LAB_DIR/answers")" -ge "$2" ]
}

# anew: forgets what has been answered, and what may still be on its way.
anew() {
    : >"$LAB_DIR/answers"
    until_true 30 answered . 2 || lab_fail "no request is answered"
    : >"$LAB_DIR/answers"
}

# carried_by SERVER...: requests go on, to these servers and no other.
carried_by() {
    local server
    anew
    for server; do
        until_true 30 answered "$server" 3 || lab_fail "$server gets no requests: $(cat "$LAB_DIR/answers")"
    done
    for server in $LAB_SERVERS; do
        case " $* " in
        *" $server "*) ;;
        *) ! answered "$server" 1 || lab_fail "$server gets requests" ;;
        esac
    done
    echo "ok answered by $*"
}

start_traffic() {
    # each request is written down by who answered it
    # shellcheck disable=SC2016
    lab_start client traffic.log sh -c 'while sleep 0.02; do
        curl -sS --max-time 5 "http://192.0.2.100/" >>"$0" || echo failed >>"$1"
    done' "$LAB_DIR/answers" "$LAB_DIR/failures"
}

touch "$LAB_DIR/answers" "$LAB_DIR/failures" "$LAB_DIR/web3-is-well" "$LAB_DIR/web2/www/health"
configure 1
lab_start lb keepalived.log "$RIPVS_BIN/ripvs-exec" keepalived -n -l -D -f "$LAB_DIR/keepalived.conf" \
    -p "$LAB_DIR/keepalived.pid" -c "$LAB_DIR/checkers.pid" -r "$LAB_DIR/vrrp.pid"
keepalived=$LAB_STARTED
become "keepalived adds the service and its servers" $ONE=1 $TWO=1 $THREE=1
start_traffic
carried_by web1 web2 web3
vrrp_address() {
    on lb ip -brief address show dev servers | grep -q 10.0.0.200/24
}
until_true 30 vrrp_address || lab_fail "no address by VRRP: $(tail -n 20 "$LAB_DIR/keepalived.log")"
echo "ok VRRP sets its address in the kernel"

# the first server's way back to the balancer, which asks, is gone; its clients do not notice
on web1 ip route add unreachable 10.0.0.253
become "TCP_CHECK inhibits" $ONE=0 $TWO=1 $THREE=1
carried_by web2 web3
on web1 ip route delete unreachable 10.0.0.253
become "TCP_CHECK restores" $ONE=1 $TWO=1 $THREE=1

rm "$LAB_DIR/web2/www/health"
become "HTTP_GET removes" $ONE=1 $THREE=1
carried_by web1 web3
touch "$LAB_DIR/web2/www/health"
become "HTTP_GET restores" $ONE=1 $TWO=1 $THREE=1

rm "$LAB_DIR/web3-is-well"
become "MISC_CHECK removes" $ONE=1 $TWO=1
carried_by web1 web2
touch "$LAB_DIR/web3-is-well"
become "MISC_CHECK restores" $ONE=1 $TWO=1 $THREE=1
carried_by web1 web2 web3

configure 2
kill -HUP "$keepalived"
become "a reload changes what the configuration changed" $ONE=1 $TWO=1 $THREE=2
carried_by web1 web2 web3
# a removed server's packets are dropped, so a request may be lost with each removal
failures=$(wc -l <"$LAB_DIR/failures")
[ "$failures" -le 2 ] || lab_fail "$failures requests failed: $(tail -n 3 "$LAB_DIR/traffic.log")"
echo "ok requests went on all the time ($failures of those under way at two removals were lost)"

# keepalived has one socket for good: it has to find the next ripvsd, which has kept its state.
# What happens in between is not lost either.
removals() {
    grep -c 'Removing service \[10.0.0.12\]' "$LAB_DIR/keepalived.log"
}
removed_twice() {
    [ "$(removals)" = 2 ]
}
[ "$(removals)" = 1 ] || lab_fail "keepalived's log has $(removals) removals of the second server"
kill -TERM "$LAB_RIPVSD"
wait "$LAB_RIPVSD" || lab_fail "ripvsd does not end cleanly"
rm "$LAB_DIR/web2/www/health"
until_true 30 removed_twice || lab_fail "keepalived does not notice a failed check"
lab_ripvsd_start "$1"
become "a check that failed while ripvsd was away counts" $ONE=1 $THREE=2
carried_by web1 web3
touch "$LAB_DIR/web2/www/health"
become "checks work after a restart of ripvsd" $ONE=1 $TWO=1 $THREE=2
carried_by web1 web2 web3

kill -TERM "$keepalived"
wait "$keepalived" || true
[ -z "$(adm -Ln -t "$V" 2>/dev/null)" ] || lab_fail "the service is still there: $(adm -Ln)"
echo "ok keepalived takes its service away when it ends"
