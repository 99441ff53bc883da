#!/bin/sh
# Three replicas and three etcd nodes on the loopback addresses of this machine, to try them without a
# container engine:
#
#   deploy/replicas/local.sh up DIR       starts what does not run; the first time it begins a cluster
#   deploy/replicas/local.sh status DIR   lists the processes and the replicas
#   deploy/replicas/local.sh down DIR     stops all; the data stays in DIR
#
# SCOPEGATE and ETCD name the programs, if they are not in the PATH. Callers are not authenticated.
set -eu

usage() {
  echo "usage: $0 up|status|down DIR" >&2
  exit 64
}
[ $# -eq 2 ] || usage
verb=$1
root=$(dirname "$0")/../..
if [ -z "${SCOPEGATE:-}" ]; then
  SCOPEGATE=$(command -v scopegate || echo "$root/target/release/scopegate")
fi
ETCD=${ETCD:-etcd}
url=etcd://127.0.0.1:12379,127.0.0.1:22379,127.0.0.1:32379/scopegate
peers=etcd-1=http://127.0.0.1:12380,etcd-2=http://127.0.0.1:22380,etcd-3=http://127.0.0.1:32380

# The process of this name, if it runs. A process with the same id and another command is another one.
pid_of() {
  pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
  words=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") 2>/dev/null || return 1
  case $words in *"$dir/$1 "*) ;; *) return 1 ;; esac
  echo "$pid"
}

# start NAME COMMAND…
start() {
  name=$1
  shift
  pid_of "$name" >/dev/null && return
  setsid "$@" </dev/null >>"$dir/$name.log" 2>&1 &
  echo $! >"$dir/$name.pid"
}

# stop NAME…: asks all to end, and waits for them.
stop() {
  for name; do
    if pid=$(pid_of "$name"); then kill "$pid"; fi
  done
  for name; do
    tries=0
    while pid_of "$name" >/dev/null; do
      tries=$((tries + 1))
      [ "$tries" -lt 300 ] || { echo "$name does not end: see $dir/$name.log" >&2; exit 1; }
      sleep 0.1
    done
    rm -f "$dir/$name.pid"
  done
}

# until_ok COMMAND…: repeats a command until it succeeds, for about two minutes.
until_ok() {
  tries=0
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { "$@"; echo "not within two minutes: see the logs in $dir" >&2; exit 1; }
    sleep 0.2
  done
}

start_replica() {
  start "replica-$1" "$SCOPEGATE" serve --data-dir "$dir/replica-$1" --replicate "$url" \
    --replica-name "replica-$1" --listen "127.0.0.1:5005$1" \
    --advertise "http://127.0.0.1:5005$1" --metrics "127.0.0.1:946$1" --allow-unauthenticated
}

# Starts a replica again if it has ended, as a supervisor does: for example because a connection of
# another program had its port. The system keeps that port for a minute.
is_healthy() {
  start_replica "$1"
  "$SCOPEGATE" health --endpoint "127.0.0.1:5005$1"
}

case $verb in
up)
  mkdir -p "$2"
  dir=$(cd "$2" && pwd)
  for program in "$SCOPEGATE" "$ETCD"; do
    command -v "$program" >/dev/null ||
      { echo "there is no $program: build it, install it, or set SCOPEGATE or ETCD" >&2; exit 69; }
  done
  for n in 1 2 3; do
    start "etcd-$n" "$ETCD" --name "etcd-$n" --data-dir "$dir/etcd-$n" \
      --listen-client-urls "http://127.0.0.1:${n}2379" \
      --advertise-client-urls "http://127.0.0.1:${n}2379" \
      --listen-peer-urls "http://127.0.0.1:${n}2380" \
      --initial-advertise-peer-urls "http://127.0.0.1:${n}2380" \
      --initial-cluster "$peers" --initial-cluster-token "scopegate-local" \
      --auto-compaction-mode periodic --auto-compaction-retention 5m
  done
  # Only once in this directory: an etcd that has lost its data is not an empty cluster.
  until_ok "$SCOPEGATE" replicas init --once "$dir/begun" --replicate "$url"
  for n in 1 2 3; do start_replica "$n"; done
  for n in 1 2 3; do until_ok is_healthy "$n"; done
  echo "replicas serve at 127.0.0.1:50051, 127.0.0.1:50052 and 127.0.0.1:50053"
  ;;
status)
  dir=$(cd "$2" && pwd)
  for name in etcd-1 etcd-2 etcd-3 replica-1 replica-2 replica-3; do
    if pid=$(pid_of "$name"); then echo "$name runs as $pid"; else echo "$name does not run"; fi
  done
  "$SCOPEGATE" replicas list --replicate "$url"
  ;;
down)
  dir=$(cd "$2" && pwd)
  stop replica-1 replica-2 replica-3
  stop etcd-1 etcd-2 etcd-3
  ;;
*) usage ;;
esac
