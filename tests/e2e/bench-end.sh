#!/usr/bin/env bash
# A measurement that is ended leaves the machine as it was; two at once are refused.
# usage: bench-end.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

out=$(mktemp -d)
sleep 1000 &
bystander=$!
bench=
trap 'kill $bystander $bench 2>/dev/null || true; rm -rf "$out"' EXIT

state() {
    taskset -p $bystander
    cat /sys/devices/virtual/workqueue/cpumask /proc/sys/vm/nr_hugepages 2>/dev/null || true
    grep -c hugetlbfs /proc/mounts || true
    ls -d /tmp/tmp.* /run/dpdk/* 2>/dev/null || true
}

for signal in TERM INT; do
    state >"$out/before"
    # Of its own group, since a shell lets what it starts in the background ignore INT.
    setsid env --default-signal=INT scripts/bench alone --rounds 1000000 --case "twos, 10 dests" >"$out/log" 2>&1 &
    bench=$!
    for ((tries = 0; tries < 3000; tries++)); do
        if grep -q 'A worker alone' "$out/log"; then break; fi
        sleep 0.1
    done
    state >"$out/during"
    if [ "$(nproc)" = 1 ] || ! cmp -s "$out/before" "$out/during"; then :; else
        echo "the machine is not made ready:" && cat "$out/during" "$out/log" && exit 1
    fi
    if refused=$(scripts/bench alone --case "twos, 10 dests" 2>&1); then echo "two at once" && exit 1; fi
    grep -q 'another one is under way' <<<"$refused" || { echo "$refused" && exit 1; }
    kill -$signal $bench
    ended=0
    wait $bench || ended=$?
    [ $ended = $((128 + $(kill -l $signal))) ] || { echo "$signal: status $ended" && cat "$out/log" && exit 1; }
    if pgrep -f "ripvs-bench alone --results" >/dev/null; then echo "$signal: it goes on" && exit 1; fi
    state >"$out/after"
    diff "$out/before" "$out/after" || { echo "$signal: the machine is not as it was" && exit 1; }
done
echo ok
