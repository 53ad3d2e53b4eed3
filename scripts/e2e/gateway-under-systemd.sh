#!/bin/sh
# The gateway's unit, as `gateway install` writes it, run by a real systemd: ready, alive for longer than WatchdogSec, killed by the watchdog when it stands still,
# started again after SIGKILL, stopped in order. Root, Linux; about a minute; `npm run build` first. Ends with 1 when something did not hold.
#
# systemd runs as a user's manager in namespaces of its own, which needs no machine. What only the system's manager has is left out of the unit: another user, file
# system namespaces, memory limits. WatchdogSec is 8 s instead of 60.
set -eu
if [ "${1:-}" != inside ]; then
    top=$(cd "$(dirname "$0")/../.." && pwd)
    shared=$(mktemp -d)
    mkdir "$shared/units"
    trap 'rm -rf "$shared"' EXIT
    node "$top/dist/scripts/cli.js" gateway install --root "$shared/root" --cluster under-systemd --port 0 --enrol-port 0 --directory "$shared/state" --hidden
    unshare --mount --pid --cgroup --fork --kill-child sh "$0" inside "$shared"
    exit 0
fi
shared=$2
name=musical-chair-gateway.service
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user
sed -E -e '/^(User|Group|Protect.*|Private.*|Restrict(Address|Name|Real|SUID).*|LockPersonality|NoNewPrivileges|CapabilityBoundingSet|AmbientCapabilities|ReadWritePaths|StateDirectory.*|Memory.*|Tasks.*|OOM.*|SystemCall.*|LimitNOFILE)=/d' \
    -e 's/^WatchdogSec=.*/WatchdogSec=8/' -e "s#/etc/musical-chair/#$shared/root/etc/musical-chair/#" \
    "$shared/root/etc/systemd/system/$name" >"$shared/units/$name"
export XDG_RUNTIME_DIR=/run/user SYSTEMD_UNIT_PATH="$shared/units:"
/lib/systemd/systemd --user --log-target=console --unit="$name" >"$shared/log" 2>&1 &
systemd=$!

show() { systemctl --user show -P "$1" "$name" 2>/dev/null || true; }
fail() { echo "FAILED: $1"; cat "$shared/log"; exit 1; }
# Waits for so many restarts, and for the service to be up.
up_after() {
    for _ in $(seq 120); do
        sleep 1
        if [ "$(show NRestarts)" = "$1" ] && [ "$(show ActiveState)" = active ]; then return 0; fi
    done
    fail "not active after $1 restarts"
}

up_after 0
echo "ok  ready: $(show StatusText)"
sleep 20
[ "$(show NRestarts)" = 0 ] || fail 'it was started again although it lives'
echo 'ok  alive for longer than WatchdogSec'
kill -STOP "$(show MainPID)"
up_after 1
echo 'ok  stood still: killed by the watchdog, and started again'
kill -KILL "$(show MainPID)"
up_after 2
echo 'ok  killed: started again'
systemctl --user stop "$name"
[ "$(show ActiveState) $(show Result)" = 'inactive success' ] || fail "stopped, but $(show ActiveState) $(show Result)"
echo 'ok  stopped in order'
kill "$systemd"
