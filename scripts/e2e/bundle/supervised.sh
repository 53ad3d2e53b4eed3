#!/bin/sh
# The machine of device.sh (this system, fresh folders) with a real systemd in place of its loop: supervised.sh SHARED
#
# systemd runs as a user's manager, which needs no machine of its own. What only the system's manager has is left out of the unit: other users, file system
# namespaces, limits. WatchdogSec is 8 s instead of 60. SHARED/systemctl: its systemctl.
set -eu
shared=$1
mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$shared/etc" /etc
for folder in /opt /var/lib; do mount --bind "$shared/disk$folder" "$folder"; done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/user "$shared/units"
sed -E -e '/^(User|Group|SupplementaryGroups|Protect.*|Private.*|Restrict.*|LockPersonality|NoNewPrivileges|CapabilityBoundingSet|ReadWritePaths|StateDirectory.*|Memory.*|CPU.*|Tasks.*|OOM.*|LimitCORE)=/d' \
    -e 's/^ExecStartPre=\+/ExecStartPre=/' -e 's/^WatchdogSec=.*/WatchdogSec=8/' \
    /etc/systemd/system/musical-chair-agent.service >"$shared/units/musical-chair-agent.service"
export XDG_RUNTIME_DIR=/run/user SYSTEMD_UNIT_PATH="$shared/units:"
/lib/systemd/systemd --user --log-target=console --unit=musical-chair-agent.service &
wait $!
