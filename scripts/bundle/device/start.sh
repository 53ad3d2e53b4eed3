#!/bin/sh
# The first boot of a card: installs the bundle beside this file, moves the join token off the boot partition, and removes what is not needed any more.
# Called as root at every boot for as long as it is there; may be cut off anywhere. Status 0: done; 75: to be called again at the next boot.
# Steps and reasons: docs/flashing.md. For tests: MC_ROOT is put before every path of the system.
set -u
boot=$(cd "$(dirname "$0")" && pwd)
root=${MC_ROOT:-}
prefix=$root/opt/musical-chair
state=$root/var/lib/musical-chair
log=$boot/first-boot.log

say() {
    echo "musical-chair: $*"
    printf '%s\n' "$*" >>"$log" 2>/dev/null || true
}

# The boot partition, to the card.
flush() { sync -f "$boot" 2>/dev/null || sync; }

later() {
    say "not done: $*"
    flush
    exit 75
}

# In tests: the power goes here.
cut_off() {
    if [ "${MC_CUT:-}" = "$1" ]; then kill -9 $$; fi
}

# Overwritten, flushed, then removed: what is left of it is what the card's controller keeps.
scrub() {
    if [ -f "$1" ]; then
        bytes=$(wc -c <"$1")
        head -c "$bytes" /dev/zero | dd of="$1" bs=4096 conv=notrunc,fsync 2>/dev/null || return 1
        rm -f "$1"
        flush
    fi
}

say "first boot"
cut_off 1
if [ -f "$boot/bundle.tgz" ]; then
    (cd "$boot" && sha256sum -c --status bundle.sum) || later "bundle.tgz is damaged: write the card again"
    cut_off 2
    rm -rf "$prefix/unpacking"
    mkdir -p "$prefix/unpacking" || later "$prefix cannot be made"
    # The last four bytes of a .gz: the size of what is in it (RFC 1952). A stock image has little room until its file system was grown.
    needed=$(($(tail -c 4 "$boot/bundle.tgz" | od -An -tu4) / 1024 + 65536))
    room=$(df -Pk "$prefix/unpacking" | awk 'NR == 2 { print $4 }')
    [ "$room" -ge "$needed" ] || later "$room KiB are free, $needed are needed: has the file system been grown?"
    tar -xzf "$boot/bundle.tgz" -C "$prefix/unpacking" --no-same-owner 2>>"$log" || later "bundle.tgz cannot be unpacked: is the card full?"
    cut_off 3
    set -- --no-start --config "$boot/agent.yaml"
    if [ -s "$boot/token" ]; then set -- "$@" --token-file "$boot/token"; fi
    sh "$prefix/unpacking/musical-chair/install.sh" "$@" >>"$log" 2>&1 || later "install.sh failed"
    cut_off 4
elif [ ! -e "$prefix/current" ]; then
    later "there is no bundle.tgz, and nothing is installed"
fi
# From here on the token is on the card's own file system, for the agent alone.
if [ -s "$boot/token" ] && [ ! -s "$state/token" ] && [ ! -e "$state/credentials/cert.pem" ]; then later "the token was not taken over"; fi
cut_off 5
scrub "$boot/token" || later "the token cannot be removed from the boot partition"
cut_off 6
rm -rf "$prefix/unpacking"
rm -f "$boot/bundle.tgz" "$boot/bundle.sum" "$boot/agent.yaml"
cut_off 7
say "done: the agent is installed and joins when the network is there (systemctl status musical-chair-agent)"
rm -f "$boot/start.sh"
flush
if [ -z "$root" ] && command -v systemctl >/dev/null 2>&1; then systemctl start --no-block musical-chair-agent.service || true; fi
exit 0
