#!/usr/bin/env bash
# How ripvsd starts and ends: one daemon a socket, a stale socket is no hindrance, SIGTERM
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

kill -TERM "$LAB_RIPVSD"
status=0
wait "$LAB_RIPVSD" || status=$?
[ $status = 0 ] || lab_fail "SIGTERM: status $status"
[ ! -e "$RIPVS_SOCKET" ] || lab_fail "SIGTERM: the socket is still there"
echo "ok SIGTERM ends it cleanly"

lab_start lb again.log "$RIPVS_BIN/ripvsd" --config "$LAB_DIR/ripvsd.toml"
until_true 30 adm port || lab_fail "it does not start again"
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
