#!/usr/bin/env bash
# The kernel's own tools through ripvs-exec: ipvsadm and ripvsadm show the same, the files in
# /proc/net and the settings in /proc/sys are ripvsd's.
# usage: original-tools.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"
workers=$2

original() {
    "$RIPVS_BIN/ripvs-exec" "$@"
}

# same ARGS...: both command lines print the same. Times to live may tick in between.
same() {
    local theirs ours
    for _ in 1 2 3; do
        theirs=$(original ipvsadm "$@" 2>&1) || lab_fail "ipvsadm $*: $theirs"
        ours=$(adm "$@" 2>&1) || lab_fail "ripvsadm $*: $ours"
        if [ "$theirs" = "$ours" ]; then
            echo "ok ipvsadm $*"
            return
        fi
    done
    lab_fail "ipvsadm $*:
$theirs
--- ripvsadm $*:
$ours"
}

original ipvsadm-restore <<'END' || lab_fail "ipvsadm-restore"
-A -t 192.0.2.100:80 -s rr
-a -t 192.0.2.100:80 -r 10.0.0.11:8080 -m -w 1
-a -t 192.0.2.100:80 -r 10.0.0.12:8080 -m -w 2
-A -t [2001:db8:2::100]:80 -s wlc -p 300
-a -t [2001:db8:2::100]:80 -r [2001:db8:10::11]:8080 -m -w 1
-A -f 7 -s mh -b mh-fallback
-a -f 7 -r 10.0.0.13:0 -i -w 1 --tun-type gue --tun-port 6080
END
for _ in 1 2 3 4 5; do
    on client curl -sSf --max-time 20 -o "$LAB_DIR/page" http://192.0.2.100/ || lab_fail "no answer"
done
on client curl -sSf --max-time 20 -o "$LAB_DIR/page" 'http://[2001:db8:2::100]/' || lab_fail "no answer"

for args in -Ln "-Ln --stats" "-Ln --thresholds" "-Ln --persistent-conn" "-Ln --tun-info" -Sn \
    "-Ln --timeout" "-Ln --daemon" "-Ln -t 192.0.2.100:80"; do
    # shellcheck disable=SC2086
    same $args
done
# connections come in no order
both_list() {
    [ "$(original ipvsadm -Lnc | sort)" = "$(adm -Lnc | sort)" ]
}
until_true 10 both_list || lab_fail "-Lnc: $(original ipvsadm -Lnc) and $(adm -Lnc)"
[ "$(original ipvsadm -Lnc | grep -c '192.0.2.100:80 ')" = 5 ] || lab_fail "-Lnc: $(original ipvsadm -Lnc)"
echo "ok ipvsadm -Lnc"

# /proc/net
[ "$(original cat /proc/net/ip_vs | grep -c -e '^TCP' -e '^FWM')" = 3 ] ||
    lab_fail "ip_vs: $(original cat /proc/net/ip_vs)"
original cat /proc/net/ip_vs | grep -q '^  -> 0A00000C:1F90      Masq    2 ' ||
    lab_fail "ip_vs: $(original cat /proc/net/ip_vs)"
[ "$(original cat /proc/net/ip_vs_conn | grep -c 'C0000264 0050')" = 5 ] ||
    lab_fail "ip_vs_conn: $(original cat /proc/net/ip_vs_conn)"
six_counted() {
    [ "$(original awk 'NR == 3 { print $1 }' /proc/net/ip_vs_stats)" = 6 ]
}
until_true 10 six_counted || lab_fail "ip_vs_stats: $(original cat /proc/net/ip_vs_stats)"
[ "$(original cat /proc/net/ip_vs_stats_percpu | grep -c '^  [0-9]')" = "$workers" ] ||
    lab_fail "ip_vs_stats_percpu: $(original cat /proc/net/ip_vs_stats_percpu)"
echo "ok /proc/net/ip_vs*"

# settings
original sysctl -q -w net.ipv4.vs.sloppy_tcp=1 || lab_fail "sysctl -w"
[ "$(original cat /proc/sys/net/ipv4/vs/sloppy_tcp)" = 1 ] || lab_fail "sloppy_tcp is not 1"
adm sysctl get net.ipv4.vs.sloppy_tcp | grep -q '1$' || lab_fail "ripvsd's sloppy_tcp is not 1"
if original sysctl -q -w net.ipv4.vs.drop_entry=9 2>/dev/null; then
    lab_fail "drop_entry took a value out of its range"
fi
echo "ok settings"

# the kernel's own netlink families are as they were
original ip -br link show lo | grep -q '^lo ' || lab_fail "ip link through ripvs-exec"
echo "ok other netlink families"

kill -TERM "$LAB_RIPVSD"
wait "$LAB_RIPVSD" || lab_fail "ripvsd does not end cleanly"
if original ipvsadm -Ln >"$LAB_DIR/nobody.log" 2>&1; then
    lab_fail "ipvsadm succeeds without ripvsd"
fi
[ "$(grep -c 'ripvsd is not running' "$LAB_DIR/nobody.log")" = 1 ] ||
    lab_fail "without ripvsd: $(cat "$LAB_DIR/nobody.log")"
echo "ok without ripvsd the user is told so"
