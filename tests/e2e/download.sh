#!/usr/bin/env bash
# A download of E2E_MEGABYTES (1024) through NAT arrives intact.
# usage: download.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
lab_up "$1" "$2"

megabytes=${E2E_MEGABYTES:-1024}
# a file system with room for it, unlike /run
file=$(mktemp "${TMPDIR:-/var/tmp}/ripvs-download.XXXXXX")
trap 'rm -f "$file"; lab_down' EXIT
head -c "${megabytes}M" /dev/urandom >"$file"
chmod 644 "$file"
ln -s "$file" "$LAB_DIR/web1/www/big"
want=$(sha256sum <"$file")

adm -A -t 192.0.2.100:80 -s rr
adm -a -t 192.0.2.100:80 -r 10.0.0.11:8080 -m
got=$(on client curl -sSf --max-time 600 http://192.0.2.100/big | sha256sum)
[ "$want" = "$got" ] || lab_fail "$megabytes MiB came as $got, not $want"
echo "ok $megabytes MiB, sha256 $got"
