#!/usr/bin/env bash
# How ripvsd starts, is told of a changed configuration, and ends: one daemon a socket, a stale socket is no hindrance, SIGTERM
# leaves nothing behind, a wrong configuration is refused with its line.
# usage: daemon-end.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"

if on lb "$RIPVS_BIN/ripvsd" --config "$LAB_DIR/ripvsd.toml" >"$LAB_DIR/second.log" 2>&1; then
    lab_fail "a second daemon started on the same socket"
fi
adm port >/dev/null || lab_fail "the first daemon went with the second"
echo "ok a second daemon is refused: $(tail -n 1 "$LAB_DIR/second.log")"

# said TEXT: its log says so within a while
said() {
    until_true 10 grep -q "$1" "$LAB_DIR/ripvsd.log" || lab_fail "SIGHUP: nothing of '$1' in the log"
}
cp "$LAB_DIR/ripvsd.toml" "$LAB_DIR/first.toml"
adm addr add 10.77.0.1/24 dev eth1
cat >>"$LAB_DIR/ripvsd.toml" <<EOF
[[route]]
prefix = "10.9.0.0/16"
via = "10.0.0.1"
[sysctl]
sloppy_tcp = 1
[[port]]
name = "eth7"
device = "net_null7"
EOF
kill -HUP "$LAB_RIPVSD"
said 'next start only: port eth7'
[ "$(adm sysctl get sloppy_tcp)" = 'net.ipv4.vs.sloppy_tcp = 1' ] || lab_fail "SIGHUP: the sysctl is as it was"
adm route | grep -q '^10.9.0.0/16 .*10.0.0.1' || lab_fail "SIGHUP: no route: $(adm route)"
echo 'workers 2' >"$LAB_DIR/ripvsd.toml"
kill -HUP "$LAB_RIPVSD"
said 'stays as it is: .*ripvsd.toml:1:'
mv "$LAB_DIR/first.toml" "$LAB_DIR/ripvsd.toml"
kill -HUP "$LAB_RIPVSD"
said 'no route to 10.9.0.0/16'
[ "$(adm sysctl get sloppy_tcp)" = 'net.ipv4.vs.sloppy_tcp = 0' ] || lab_fail "SIGHUP: the sysctl did not go back"
adm addr | grep -q '^10.77.0.1/24' || lab_fail "SIGHUP: an address of ripvsadm's is gone"
echo "ok SIGHUP"

kill -TERM "$LAB_RIPVSD"
status=0
wait "$LAB_RIPVSD" || status=$?
[ $status = 0 ] || lab_fail "SIGTERM: status $status"
[ ! -e "$RIPVS_SOCKET" ] || lab_fail "SIGTERM: the socket is still there"
echo "ok SIGTERM ends it cleanly"

lab_start lb again.log "$RIPVS_BIN/ripvsd" --config "$LAB_DIR/ripvsd.toml"
until_true 30 adm port || lab_fail "it does not start again"
adm addr | grep -q '^10.77.0.1/24' || lab_fail "an address did not outlive the daemon"
! grep 'cannot be restored' "$LAB_DIR/again.log" || lab_fail "something did not outlive the daemon"
kill -KILL "$LAB_STARTED"
wait "$LAB_STARTED" 2>/dev/null || true
[ -e "$RIPVS_SOCKET" ] || lab_fail "kill -9 removed the socket"
lab_start lb stale.log "$RIPVS_BIN/ripvsd" --config "$LAB_DIR/ripvsd.toml"
until_true 30 adm port || lab_fail "a stale socket keeps it from starting"
echo "ok a stale socket is no hindrance"

printf 'workers = 1\nwrokers = 2\n' >"$LAB_DIR/wrong.toml"
if "$RIPVS_BIN/ripvsd" --check "$LAB_DIR/wrong.toml" >"$LAB_DIR/check.log" 2>&1; then
    lab_fail "a wrong configuration passed"
fi
grep -q 'wrong.toml:2' "$LAB_DIR/check.log" || lab_fail "no line named: $(cat "$LAB_DIR/check.log")"
"$RIPVS_BIN/ripvsd" --check "$LAB_DIR/ripvsd.toml" >/dev/null || lab_fail "--check refuses a right one"
echo "ok --check"
