#!/bin/sh
# A machine for the bundle test, in a mount namespace of its own (unshare --mount --pid): device.sh ROOT SHARED
#
# ROOT is '' for this system with fresh /opt, /etc, /var/lib and /boot, or a folder with another system, in which qemu runs what is foreign. SHARED is a folder
# that both sides see: the card's boot partition stands in SHARED/boot. Does what a machine does: first boot, then the unit's commands again and again, for as long
# as SHARED/on exists.
set -eu
mount --make-rprivate /
# Of its own processes only, and gone with them.
mount -t proc proc /proc 2>/dev/null || true
root=$1
shared=$2
if [ -z "$root" ]; then
    if [ ! -d "$shared/etc" ]; then
        rm -rf "$shared/etc.new"
        cp -a /etc "$shared/etc.new"
        mv "$shared/etc.new" "$shared/etc"
    fi
    mount --bind "$shared/etc" /etc
    for folder in /opt /var/lib /boot; do
        mkdir -p "$shared/disk$folder" "$folder"
        mount --bind "$shared/disk$folder" "$folder"
    done
    root=/
else
    for folder in /proc /dev /sys; do
        mkdir -p "$root$folder"
        mount --rbind "$folder" "$root$folder"
    done
    # onnxruntime takes the processor's parts from there, and crashes on those of another kind.
    mount --bind "$shared/cpuinfo" "$root/proc/cpuinfo"
    mkdir -p "$root/boot" "$root/tmp"
    cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
fi
mkdir -p "$root/boot/firmware"
mount --bind "$shared/boot" "$root/boot/firmware"
cat >"$root/boot/mc-boot.sh" <<'BOOT'
set -u
unit=/etc/systemd/system/musical-chair-agent.service
# Without a card, somebody logs in and installs the bundle by hand.
until [ -f "$unit" ] || [ -e /boot/firmware/musical-chair/start.sh ]; do sleep 0.2; done
if [ -d /boot/firmware/musical-chair ]; then sh -c "$FIRST_BOOT" || echo "first boot: $?"; fi
before=$(sed -n 's/^ExecStartPre=+//p' "$unit")
exec_start=$(sed -n 's/^ExecStart=//p' "$unit")
user=$(sed -n 's/^User=//p' "$unit")
environment=$(sed -n 's/^Environment=//p' "$unit")
mkdir -p /var/lib/musical-chair
chown "$user:$user" /var/lib/musical-chair
# As systemd does it: UMask= is for every command of the unit, also for those of root.
umask "$(sed -n 's/^UMask=//p' "$unit")"
sh -c "$before"
# shellcheck disable=SC2086
exec setpriv --reuid "$user" --regid "$user" --clear-groups env $environment $exec_start
BOOT
while [ -e "$shared/on" ]; do
    echo "-- start"
    chroot "$root" /bin/sh /boot/mc-boot.sh &
    echo $! >"$shared/pid"
    wait $! || echo "-- ended with $?"
    sleep 1
done
