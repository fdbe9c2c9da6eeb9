#!/usr/bin/env bash
# Real FTP servers (vsftpd) under NAT, and a real client (curl): passive and active mode, the old
# commands and the extended ones, IPv4 and IPv6, downloads and uploads, several on one connection.
# usage: ftp.sh ARMS WORKERS
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib/lab.sh"
lab_down_at_exit
# shellcheck disable=SC2034
LAB_SETTINGS='ftp_ports = [21]'
lab_up "$1" "$2"
client=198.18.0.1
client6=2001:db8:18::1
if [ "$1" = 1 ]; then
    client=10.0.0.1
    client6=2001:db8:10::1
fi

# server SPACE: vsftpd, with a file that tells who it is, two larger ones, and a place for uploads.
server() {
    local space=$1 dir=$LAB_DIR/$1/ftp
    mkdir -p "$dir/up" "$LAB_DIR/$space/empty"
    echo "$space" >"$dir/who"
    head -c 2000000 /dev/urandom >"$dir/one"
    head -c 3000000 /dev/urandom >"$dir/two"
    chown ftp: "$dir/up"
    cat >"$LAB_DIR/$space/vsftpd.conf" <<EOF
background=NO
listen=NO
listen_ipv6=YES
anonymous_enable=YES
no_anon_password=YES
anon_root=$dir
anon_upload_enable=YES
anon_umask=022
write_enable=YES
local_enable=NO
connect_from_port_20=YES
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
secure_chroot_dir=$LAB_DIR/$space/empty
EOF
    lab_start "$space" "$space.vsftpd.log" vsftpd "$LAB_DIR/$space/vsftpd.conf"
    until_true 10 on "$space" sh -c 'ss -Hltn sport = :21 | grep -q .' || lab_fail "$space: no vsftpd"
}

# transfer WORDS...: curl with these words for two files over one control connection, both from
# one server; what it said and heard goes to a log. Files that fit into no socket's buffer: in
# active mode curl gives up if the end of a transfer is told before it saw the connection, and
# the two are different flows, which may overtake one another.
transfer() {
    on client curl -sSv --fail-early --max-time 60 -o "$LAB_DIR/one" -o "$LAB_DIR/two" "$@" 2>"$LAB_DIR/curl.log" ||
        lab_fail "curl $*: $(tail -n 5 "$LAB_DIR/curl.log")"
    local space
    for space in web1 web2; do
        if cmp -s "$LAB_DIR/$space/ftp/one" "$LAB_DIR/one"; then
            cmp -s "$LAB_DIR/$space/ftp/two" "$LAB_DIR/two" || lab_fail "curl $*: the second file is not $space's"
            return
        fi
    done
    lab_fail "curl $*: the first file is no server's"
}

# heard WORDS: the log of the last transfer has them.
heard() {
    grep -qF -- "$1" "$LAB_DIR/curl.log" || lab_fail "not heard: $1, but $(grep '^[<>]' "$LAB_DIR/curl.log")"
}

for space in web1 web2; do
    server $space
done
for service in 192.0.2.100:21 '[2001:db8:2::100]:21'; do
    adm -A -t "$service" -s rr
done
for number in 11 12; do
    adm -a -t 192.0.2.100:21 -r 10.0.0.$number:21 -m
    adm -a -t '[2001:db8:2::100]:21' -r "[2001:db8:10::$number]:21" -m
done
both=(ftp://192.0.2.100/one ftp://192.0.2.100/two)
both6=('ftp://[2001:db8:2::100]/one' 'ftp://[2001:db8:2::100]/two')

# twice each: by one server and by the other, whose addresses are of the same length, and shorter
for turn in 1 2; do
    transfer --disable-epsv --no-ftp-skip-pasv-ip "${both[@]}"
    heard '227 Entering Passive Mode (192,0,2,100,'
    transfer "${both[@]}"
    heard '229 Entering Extended Passive Mode (|||'
    transfer --disable-eprt -P $client "${both[@]}"
    heard '> PORT '
    transfer -P $client "${both[@]}"
    heard '> EPRT |1|'
    transfer -g "${both6[@]}"
    heard '229 Entering Extended Passive Mode (|||'
    transfer -g -P $client6 "${both6[@]}"
    heard '> EPRT |2|'
    echo "ok turn $turn"
done

# the numbers of a long conversation keep fitting
files=()
for n in $(seq 20); do
    files+=(-o "$LAB_DIR/who$n" ftp://192.0.2.100/who)
done
on client curl -sS --fail-early --max-time 60 --disable-epsv --no-ftp-skip-pasv-ip "${files[@]}" ||
    lab_fail "twenty files over one connection"
[ "$(sort -u "$LAB_DIR"/who?*)" = "$(cat "$LAB_DIR/who1")" ] || lab_fail "twenty files from several servers"
echo "ok twenty files over one connection"

number=0
for mode in "--disable-epsv --no-ftp-skip-pasv-ip" "--disable-eprt -P $client"; do
    # a name of its own each time: an anonymous client may not overwrite
    number=$((number + 1))
    head -c 2000000 /dev/urandom >"$LAB_DIR/sent"
    # shellcheck disable=SC2086
    on client curl -sS --max-time 60 $mode -T "$LAB_DIR/sent" ftp://192.0.2.100/up/$number ||
        lab_fail "upload with $mode"
    found=
    for space in web1 web2; do
        ! cmp -s "$LAB_DIR/$space/ftp/up/$number" "$LAB_DIR/sent" || found=$space
    done
    [ -n "$found" ] || lab_fail "no server has what was sent with $mode"
    echo "ok upload with $mode"
done

# data connections are no scheduled ones: 8 + 1 + 2 control connections by IPv4, 4 by IPv6
counted() {
    adm -Ln --stats | awk '/^TCP/ { printf "%s%s", sep, $3; sep = " " }' | grep -qx '11 4\|4 11'
}
until_true 10 counted || lab_fail "counted: $(adm -Ln --stats)"
adm -Lnc | grep -q "$client:.* 192.0.2.100:20 " || lab_fail "no active data connection is listed: $(adm -Lnc)"
echo "ok counts"
