#!/usr/bin/env bash
# Connections survive edits of services and servers; draining and removing servers.
# usage: edits.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"
for kind in "-m 4" "-m 6" "-g 4" "-i 6"; do
    echo "--- $kind"
    # shellcheck disable=SC2086
    on client python3 "$(dirname "${BASH_SOURCE[0]}")/edits.py" "$RIPVS_BIN/ripvsadm" $kind || lab_fail "edits, $kind"
done
