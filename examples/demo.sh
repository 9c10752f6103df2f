#!/usr/bin/env bash
# The whole way, once, on a real Dagster project: lock, build, deploy, edit one line, deploy again, roll back.
# `make demo` runs it. What it makes is in .demo/, which a later run reuses; it ends by itself and leaves no process.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
demo=$top/.demo
unset PEXPRESS_CACHE PEXPRESS_CODESERVER # a demo is nothing for whoever's real ones
export PEXPRESS_HOME=$demo/home PATH=$top/bin:$PATH
mkdir -p "$PEXPRESS_HOME"

say() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

# A fresh copy of the project, so that the edit below is the same on each run.
rm -rf "$demo/project"
cp -r examples/dagster-quickstart "$demo/project"
cd "$demo/project"

codeserver serve --state "$demo/state" --cache "$PEXPRESS_HOME/cache" \
  --listen "unix://$PEXPRESS_HOME/codeserver.sock" >"$demo/codeserver.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  pexpress status >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || { cat "$demo/codeserver.log"; exit 1; }
  sleep 0.1
done

# ask prints what the location answers, from Dagster's own client, run by the deployed environment's own Python.
ask() {
  local status address pid
  status=$(pexpress status quickstart --output json)
  address=$(sed -E 's/.*"address": ?"([^"]*)".*/\1/' <<<"$status")
  pid=$(sed -E 's/.*"pid": ?"?([1-9][0-9]*).*/\1/' <<<"$status")
  "$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -n 1)" "$top/examples/ask.py" "$address"
}

say "1. Lock: the hashed requirements become pylock.toml"
run pexpress lock requirements.txt

say "2. First deploy: wheels are fetched, deps.pex and source.pex made, a Dagster code server started"
run pexpress deploy
ask

say "3. Nothing changed: nothing is built, shipped or started"
run pexpress deploy

say "4. One line edited: what would a build do?"
run sed -i 's/Orders per customer/Orders of each customer/' quickstart/assets.py
run pexpress explain

say "5. Deploy it: that file, PEX-INFO and the Directories above them travel; deps.pex is a cache hit"
run pexpress deploy
ask

say "6. And back"
run pexpress rollback quickstart
run pexpress status
say "Done. The cache and the host's store stay in .demo/, so that a second run is quick; make clean removes them."
