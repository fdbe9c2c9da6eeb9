#!/usr/bin/env bash
# NAT, direct routing and tunnels carry HTTP and iperf3, TCP and UDP, IPv4 and IPv6.
# usage: forwarding.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"
workers=$2

# answers URL COUNT: who answered COUNT requests, each over a connection of its own, sorted.
answers() {
    local count
    for count in $(seq "$2"); do
        on client curl -sS --max-time 20 "$1" || lab_fail "request $count to $1 failed"
    done | sort | uniq -c | awk '{ printf "%s%s %s", sep, $2, $1; sep = ", " }'
}

# spread URL SERVERS: the servers answer in turn, equally often; with several workers, each
# of which takes its turns for itself, all of them at least answer.
spread() {
    local each=4 number found
    number=$(wc -w <<<"$2")
    if [ "$workers" = 1 ]; then
        found=$(answers "$1" $((each * number)))
        [ "$found" = "$(printf ", %s $each" $2 | cut -c3-)" ] || lab_fail "$1: answered by $found"
    else
        found=$(answers "$1" $((10 * number)) | sed 's/ [0-9][0-9]*//g; s/,//g')
        [ "$found" = "$2" ] || lab_fail "$1: answered by $found"
    fi
    echo "ok $1"
}

# service FORWARDING V4 V6 PORT [SERVER_PORT]: all servers behind both addresses.
service() {
    local method=$1 port=$4 server_port=${5:-$4} number
    adm -A -t "$2:$port" -s rr
    adm -A -t "[$3]:$port" -s rr
    for number in 11 12 13; do
        adm -a -t "$2:$port" -r "10.0.0.$number:$server_port" "$method"
        adm -a -t "[$3]:$port" -r "[2001:db8:10::$number]:$server_port" "$method"
    done
}

# iperf ARGS...: what went wrong, or nothing. It wants all of one packet or more to arrive.
iperf() {
    on client iperf3 "$@" -J >"$LAB_DIR/iperf.json" 2>&1 || true
    python3 - "$LAB_DIR/iperf.json" <<'END'
import json, sys
text = open(sys.argv[1]).read()
try:
    found = json.loads(text)
    end = found.get("end", {})
    total = end.get("sum_received") or end.get("sum") or {}
    if "error" in found:
        print(found["error"])
    elif not total.get("bytes") or total.get("packets", 1) <= total.get("lost_packets", 0):
        print("nothing came")
except ValueError:
    print(text)
END
}

# perf ADDRESS...: iperf3 by TCP and by UDP. It opens several connections, so one server.
perf() {
    local address wrong
    for address; do
        wrong=$(iperf -c "$address" -n 20M)
        [ -z "$wrong" ] || lab_fail "iperf3 by TCP to $address: $wrong"
        wrong=$(iperf -c "$address" -u -b 100M -l 1200 -n 4M)
        [ -z "$wrong" ] || lab_fail "iperf3 by UDP to $address: $wrong"
        echo "ok iperf3 $address"
    done
}

# perf_service FORWARDING V4 V6
perf_service() {
    local kind
    for kind in -t -u; do
        adm -A $kind "$2:5201" -s rr
        adm -a $kind "$2:5201" -r 10.0.0.11:5201 "$1"
        adm -A $kind "[$3]:5201" -s rr
        adm -a $kind "[$3]:5201" -r '[2001:db8:10::11]:5201' "$1"
    done
}

# one for each address: with UDP it answers from the address it is bound to
for address in 10.0.0.11 2001:db8:10::11 192.0.2.101 2001:db8:2::101 192.0.2.102 2001:db8:2::102; do
    lab_start web1 "iperf-$address.log" iperf3 -s -B "$address"
done
until_true 10 on web1 sh -c '[ "$(ss -Hltn sport = :5201 | wc -l)" = 6 ]' || lab_fail "no iperf3 servers"

service -m 192.0.2.100 2001:db8:2::100 80 8080
spread http://192.0.2.100/ "web1 web2 web3"
spread 'http://[2001:db8:2::100]/' "web1 web2 web3"
perf_service -m 192.0.2.100 2001:db8:2::100
perf 192.0.2.100 2001:db8:2::100

service -g 192.0.2.101 2001:db8:2::101 80
spread http://192.0.2.101/ "web1 web2 web3"
spread 'http://[2001:db8:2::101]/' "web1 web2 web3"
perf_service -g 192.0.2.101 2001:db8:2::101
perf 192.0.2.101 2001:db8:2::101

service -i 192.0.2.102 2001:db8:2::102 80
spread http://192.0.2.102/ "web1 web2 web3"
spread 'http://[2001:db8:2::102]/' "web1 web2 web3"
perf_service -i 192.0.2.102 2001:db8:2::102
perf 192.0.2.102 2001:db8:2::102
# IPv4 in IPv6 and the reverse
adm -A -t 192.0.2.102:8080 -s rr
adm -a -t 192.0.2.102:8080 -r '[2001:db8:10::12]:8080' -i
spread http://192.0.2.102:8080/ web2
adm -A -t '[2001:db8:2::102]:8080' -s rr
adm -a -t '[2001:db8:2::102]:8080' -r 10.0.0.13:8080 -i
spread 'http://[2001:db8:2::102]:8080/' web3

# the balancer answers for itself, and routes what is no service's
on client ping -c 1 -W 10 192.0.2.100 >/dev/null || lab_fail "no echo from the virtual address"
on client ping -c 1 -W 10 2001:db8:2::100 >/dev/null || lab_fail "no echo over IPv6"
echo "ok echo"
