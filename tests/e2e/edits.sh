#!/usr/bin/env bash
# Connections survive edits of services and servers; draining and removing servers.
# usage: edits.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"
on client python3 "$(dirname "${BASH_SOURCE[0]}")/edits.py" "$RIPVS_BIN/ripvsadm" || lab_fail "edits"
