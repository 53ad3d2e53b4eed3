#!/bin/sh
# Installs the musical-chair agent from this bundle as a systemd service. May be run again: it changes what is different.
#
#   sudo ./install.sh --name pi-1 --gateway HOST --token-file FILE
#   sudo ./install.sh --uninstall [--purge]
#
# For tests: MC_ROOT is put before every path of the system.
set -eu
# Of names and numbers: letters are those of ASCII.
LC_ALL=C
export LC_ALL

here=$(cd "$(dirname "$0")" && pwd)
root=${MC_ROOT:-}
user=musical-chair
prefix=/opt/musical-chair
state=/var/lib/musical-chair
config=/etc/musical-chair/agent.yaml
unit=/etc/systemd/system/musical-chair-agent.service

name=
name_given=yes
gateway=
broker_port=
cluster=default
insecure=no
given_config=
token=
token_file=
memory_max=80%
cpu_quota=
start=yes
action=install
purge=no

usage() {
    cat <<END
Installs the musical-chair agent from this bundle as a systemd service.

usage: sudo ./install.sh [options]

  --name NAME          name of the agent, unique in its cluster (default: the host name)
  --gateway HOST[:PORT]
                       the gateway's host or address, and its port for joining (default: it is looked for on the local network, port 8884)
  --broker-port PORT   the port of the gateway's broker (default: 8883; with --insecure 1883)
  --cluster NAME       name of the cluster (default: default)
  --token TOKEN        join token, as mc token create prints it; better in a file: other users can see arguments
  --token-file FILE    join token in a file; - = standard input
  --insecure           plain MQTT without certificates: everybody on the network can listen and join
  --config FILE        settings file to install instead of one made from the options above
  --memory-max SIZE    memory limit of the service: 700M, 2G, 80%, infinity (default: 80%)
  --cpu-quota PERCENT  processor limit of the service, 100% = one core (default: all cores but a tenth of one)
  --no-start           enable the service, but do not start it now
  --uninstall          stop and remove the service and the program; the state stays
  --purge              with --uninstall: remove the state too (slices, credentials, settings) and the user

Files: $prefix (program), $config (settings), $state (state), $unit
END
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

say() { echo "$*"; }

# In tests: the power goes here.
cut_off() {
    if [ "${MC_CUT:-}" = "$1" ]; then kill -9 $$; fi
}

need() {
    [ $# -ge 2 ] || fail "$1 needs a value; see --help"
}

while [ $# -gt 0 ]; do
    case $1 in
        --name) need "$@"; name=$2; shift 2 ;;
        --gateway) need "$@"; gateway=$2; shift 2 ;;
        --broker-port) need "$@"; broker_port=$2; shift 2 ;;
        --cluster) need "$@"; cluster=$2; shift 2 ;;
        --token) need "$@"; token=$2; shift 2 ;;
        --token-file) need "$@"; token_file=$2; shift 2 ;;
        --config) need "$@"; given_config=$2; shift 2 ;;
        --memory-max) need "$@"; memory_max=$2; shift 2 ;;
        --cpu-quota) need "$@"; cpu_quota=$2; shift 2 ;;
        --insecure) insecure=yes; shift ;;
        --no-start) start=no; shift ;;
        --uninstall) action=uninstall; shift ;;
        --purge) purge=yes; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done

# The whole text, not one of its lines: everything that goes into a file below is checked by one of these.
is_name() {
    case $1 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) return 1 ;; esac
    [ "${#1}" -le 64 ]
}

is_number() {
    case $1 in '' | 0* | *[!0-9]*) return 1 ;; esac
    [ "${#1}" -le "$2" ]
}

is_port() { is_number "$1" 5 && [ "$1" -le 65535 ]; }

# As systemd.resource-control(5) has it, without fractions.
is_memory() {
    case $1 in
        infinity) return 0 ;;
        *%) is_number "${1%?}" 3 && [ "${1%?}" -le 100 ] ;;
        *[KMGT]) is_number "${1%?}" 12 ;;
        *) is_number "$1" 15 ;;
    esac
}

is_quota() { case $1 in *%) is_number "${1%?}" 5 ;; *) return 1 ;; esac; }

has_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null 2>&1; }

# Writes standard input to $1, with what umask $2 leaves of 666, so that the former or the new content is there, whatever happens. Only in folders of root's: -C makes a
# regular file or nothing, but writes through a link to a pipe or a device, which somebody else could lay between two commands.
put() {
    rm -rf "$1.new"
    (umask "$2" && set -C && cat >"$1.new") && sync "$1.new" && mv -T "$1.new" "$1" && sync "$(dirname "$1")"
}

# The state's folder is the agent's: what goes there is made beside it, in root's, and given away before it is moved. A link there is replaced, never followed.
put_token() {
    put "$root$state.token" 077
    own "$root$state.token"
    mv -T "$root$state.token" "$root$state/token" && sync "$root$state"
}

# With the user's own group, whatever that is called. Of a link, the link.
own() { if [ "$(id -u)" = 0 ] && id "$user" >/dev/null 2>&1; then chown -h "$user:" "$@"; fi; }

uninstall() {
    if has_systemd; then
        systemctl disable --now musical-chair-agent.service 2>/dev/null || true
    fi
    rm -f "$root$unit" "$root/etc/systemd/system/multi-user.target.wants/musical-chair-agent.service"
    rm -rf "$root$prefix"
    if has_systemd; then systemctl daemon-reload; fi
    if [ "$purge" = yes ]; then
        rm -rf "$root$state" "$root$state.token" "$root$state.token.new" "$root$config"
        # A gateway on this machine has its settings there, too.
        rmdir "$root/etc/musical-chair" 2>/dev/null || true
        if [ -z "$root" ] && id "$user" >/dev/null 2>&1; then userdel "$user" || true; fi
        say "musical-chair is removed, with its state. The gateway still knows the agent: mc agents revoke NAME"
    else
        say "musical-chair is removed; $state and /etc/musical-chair stay (--purge removes them, too)"
    fi
}

word() { awk -v key="$1" '$1 == key { print $2; exit }' "$here/MANIFEST"; }

# The first thing in a folder that is neither file nor folder: what a link leads to may be changed later.
odd_in() { find "$1/." ! -type d ! -type f | head -n 1; }

# Every file of the list is in the folder, as it was made, and nothing else is.
has_all() {
    (cd "$1" && awk '$1 == "file" { print $2 "  " $5 }' MANIFEST | sha256sum -c --quiet) >&2
}
has_more() {
    [ "$(find "$1/." -type f | wc -l)" -ne "$(($(awk '$1 == "file" { print $5 }' "$1/MANIFEST" | sort -u | wc -l) + 1))" ]
}

check_bundle() {
    odd=$(odd_in "$here")
    [ -z "$odd" ] || fail "BUNDLE_DAMAGED: $odd is neither a file nor a folder; unpack the bundle anew"
    [ -f "$here/MANIFEST" ] || fail "BUNDLE_DAMAGED: $here/MANIFEST is missing; unpack the bundle anew"
    [ "$(sed '$d' "$here/MANIFEST" | sha256sum | cut -d' ' -f1)" = "$(word seal)" ] || fail "BUNDLE_DAMAGED: MANIFEST was changed; unpack the bundle anew"
    has_all "$here" || fail "BUNDLE_DAMAGED: files were changed or are missing; unpack the bundle anew"
    if has_more "$here"; then fail "BUNDLE_DAMAGED: $here holds files that are not of the bundle; unpack it anew"; fi
}

# What is installed there is this bundle, whole.
is_installed() {
    [ -d "$1" ] && [ ! -L "$1" ] && [ -z "$(odd_in "$1")" ] && cmp -s "$here/MANIFEST" "$1/MANIFEST" && has_all "$1" && ! has_more "$1"
}

# Under another name first: a folder that has a bundle's name is whole, whenever the power goes.
remove_version() {
    rm -rf "$versions/.removing"
    mv -T "$1" "$versions/.removing"
    rm -rf "$versions/.removing"
}

check_machine() {
    [ "$(uname -s)" = Linux ] || fail "this bundle is for Linux; got $(uname -s)"
    case $(word arch) in
        arm64) wanted=aarch64 ;;
        x64) wanted=x86_64 ;;
        *) wanted=unknown ;;
    esac
    machine=${MC_MACHINE:-$(uname -m)}
    [ "$machine" = "$wanted" ] || fail "BUNDLE_WRONG_ARCH: this bundle is for $wanted; this machine is $machine"
    # A 64-bit kernel may carry a 32-bit system (Raspberry Pi OS does that): there, Node cannot even be loaded.
    said=$("$here/bin/node" --version 2>&1) || fail "BUNDLE_WRONG_ARCH: Node does not run here ($said). A 32-bit system on a 64-bit kernel? Install the 64-bit one; getconf LONG_BIT says $(getconf LONG_BIT 2>/dev/null || echo nothing)"
    if [ -z "$root" ]; then
        [ "$(id -u)" = 0 ] || fail "install.sh needs root: sudo ./install.sh"
        command -v systemctl >/dev/null 2>&1 || fail "this machine has no systemd; run bin/musical-chair agent under your own supervisor"
        command -v systemd-notify >/dev/null 2>&1 || fail "systemd-notify is missing; it belongs to the package systemd"
    fi
}

make_user() {
    if [ -n "$root" ] || id "$user" >/dev/null 2>&1; then return; fi
    useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin "$user"
}

# Copied beside, flushed, renamed: a folder that has its name is whole. What the first boot has unpacked there is only renamed.
install_files() {
    bundle=$(word version)-$(word seal | cut -c1-16)
    versions=$root$prefix/versions
    mkdir -p "$versions"
    chmod 755 "$root$prefix" "$versions"
    if ! is_installed "$versions/$bundle" 2>/dev/null; then
        rm -rf "$versions/.unpacking"
        case $here in
            "$root$prefix"/unpacking/*) mv "$here" "$versions/.unpacking" ;;
            *) cp -R "$here" "$versions/.unpacking" ;;
        esac
        if [ "$(id -u)" = 0 ]; then chown -R 0:0 "$versions/.unpacking"; fi
        chmod -R u=rwX,go=rX "$versions/.unpacking"
        sync -f "$versions/.unpacking"
        cut_off install-1
        if [ -e "$versions/$bundle" ] || [ -L "$versions/$bundle" ]; then
            say "what was installed of $bundle is damaged: it is replaced"
            remove_version "$versions/$bundle"
        fi
        mv -T "$versions/.unpacking" "$versions/$bundle"
        sync "$versions"
    fi
    here=$versions/$bundle
    cut_off install-2
    former=$(basename "$(readlink "$root$prefix/current" 2>/dev/null || echo none)")
    if [ "$former" != "$bundle" ]; then
        if [ "$former" != none ]; then
            ln -sfn "versions/$former" "$root$prefix/previous.new"
            mv -T "$root$prefix/previous.new" "$root$prefix/previous"
        fi
        ln -sfn "versions/$bundle" "$root$prefix/current.new"
        mv -T "$root$prefix/current.new" "$root$prefix/current"
    fi
    # Who installs by hand has decided: nothing is on trial any more.
    rm -f "$root$prefix/trial"
    put "$root$prefix/launch" 022 <"$here/launch"
    sync "$root$prefix"
    for folder in "$versions"/*; do
        kept=$(basename "$folder")
        # What is not called like a bundle, or is a link, is not ours.
        case $kept in *-????????????????) ;; *) continue ;; esac
        if [ -d "$folder" ] && [ ! -L "$folder" ] && [ "$kept" != "$bundle" ] && [ "$kept" != "$former" ]; then remove_version "$folder"; fi
    done
}

# HOST, HOST:PORT, [ADDRESS]:PORT or ADDRESS: `host` as it stands in a URL, and `join_port` when it was given.
split_gateway() {
    host=$gateway
    join_port=
    case $gateway in
        '') return ;;
        \[*\]) ;;
        \[*\]:*) host=${gateway%:*} join_port=${gateway##*:} ;;
        *:*:*) host="[$gateway]" ;;
        *:*) host=${gateway%:*} join_port=${gateway##*:} ;;
    esac
    inside=${host#\[}
    inside=${inside%\]}
    case $host in
        "[$inside]") case $inside in '' | *[!0-9A-Fa-f:.]*) host= ;; esac ;;
        *[!A-Za-z0-9._-]*) host= ;;
    esac
    [ -n "$host" ] || fail "--gateway $gateway is no host or address, with a port or without"
    case $gateway in "$host" | "$inside") ;; *) is_port "$join_port" || fail "--gateway $gateway: a port is 1 to 65535" ;; esac
    if [ -n "$join_port" ] && [ "$insecure" = yes ]; then fail "--gateway $gateway: with --insecure nobody joins; --broker-port is the broker's port"; fi
}

check_options() {
    [ -n "$name" ] || name_given=no
    [ -n "$name" ] || name=$(uname -n | tr -c 'A-Za-z0-9._\n-' '-')
    is_name "$name" || fail "AGENT_NAME_INVALID: --name $name; letters, digits, dot, dash and underscore, at most 64"
    is_name "$cluster" || fail "AGENT_NAME_INVALID: --cluster $cluster; letters, digits, dot, dash and underscore, at most 64"
    split_gateway
    [ -z "$broker_port" ] || is_port "$broker_port" || fail "--broker-port $broker_port is no port (1 to 65535)"
    [ -z "$broker_port" ] || [ -n "$gateway" ] || fail "--broker-port goes with --gateway"
    is_memory "$memory_max" || fail "--memory-max $memory_max is no size (700M, 2G, 80%, infinity)"
    [ -z "$cpu_quota" ] || is_quota "$cpu_quota" || fail "--cpu-quota $cpu_quota is no percentage (250%)"
    [ -z "$given_config" ] || [ -f "$given_config" ] || fail "FILE_NOT_FOUND: --config $given_config"
    [ -z "$token" ] || [ -z "$token_file" ] || fail "give --token or --token-file, not both"
    [ -z "$token_file" ] || [ "$token_file" = - ] || [ -s "$token_file" ] || fail "--token-file $token_file is empty or not there"
    [ "$purge" = no ] || fail "--purge goes with --uninstall"
}

make_config() {
    mkdir -p "$root/etc/musical-chair"
    if [ -n "$given_config" ]; then
        put "$root$config" 022 <"$given_config"
    elif [ "$name_given" = yes ] || [ -n "$gateway" ] || [ ! -f "$root$config" ]; then
        broker=mqtts://$host:${broker_port:-8883}
        if [ "$insecure" = yes ]; then broker=mqtt://$host:${broker_port:-1883}; fi
        {
            echo "# Settings of this agent. Restart musical-chair-agent after a change."
            # Quoted: there are names that would be read as a number, or as yes and no.
            echo "cluster: \"$cluster\""
            if [ "$insecure" = yes ]; then echo "insecure: true"; fi
            if [ -n "$gateway" ]; then echo "broker: $broker"; fi
            echo "agent:"
            echo "  name: \"$name\""
            echo "  directory: $state"
            if [ -n "$join_port" ]; then echo "  gateway: \"$host:$join_port\""; fi
        } | put "$root$config" 022
    fi
}

# With credentials it has joined: a token that comes then (a first boot that was cut off and does it all again) is not wanted.
take_token() {
    mkdir -p "$root$state"
    chmod 700 "$root$state"
    own "$root$state"
    if [ -e "$root$state/credentials/cert.pem" ]; then
        if [ -n "$token$token_file" ]; then say "this agent has joined already: the token is not used"; fi
        return
    fi
    if [ "$token_file" = - ]; then
        put_token
    elif [ -n "$token_file" ]; then
        put_token <"$token_file"
    elif [ -n "$token" ]; then
        printf '%s\n' "$token" | put_token
    fi
}

make_unit() {
    mkdir -p "$(dirname "$root$unit")"
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
    # A tenth of a core stays for ssh, and for who looks after the machine.
    quota=${cpu_quota:-$((cores * 100 - 10))%}
    groups=
    if getent group video >/dev/null 2>&1; then groups=video; fi
    sed -e "s|@USER@|$user|g" -e "s|@PREFIX@|$prefix|g" -e "s|@STATE@|$state|g" -e "s|@STATE_NAME@|$(basename "$state")|g" \
        -e "s|@CONFIG@|$config|g" -e "s|@GROUPS@|$groups|g" -e "s|@MEMORY_MAX@|$memory_max|g" -e "s|@CPU_QUOTA@|$quota|g" \
        "$here/musical-chair-agent.service" | put "$root$unit" 022
    wants=$root/etc/systemd/system/multi-user.target.wants
    if has_systemd; then
        systemctl daemon-reload
        systemctl enable --quiet musical-chair-agent.service
    else
        # Before systemd runs (a first boot), or in another root: what `enable` would do.
        mkdir -p "$wants"
        ln -sfn "$unit" "$wants/musical-chair-agent.service"
        sync "$wants"
    fi
}

if [ "$action" = uninstall ]; then
    [ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "install.sh needs root: sudo ./install.sh --uninstall"
    uninstall
    exit 0
fi
check_options
check_bundle
check_machine
make_user
install_files
cut_off install-3
make_config
cut_off install-4
take_token
cut_off install-5
make_unit
cut_off install-6
say "musical-chair $bundle is installed in $prefix; settings: $config"
if [ "$start" = yes ] && has_systemd; then
    systemctl restart musical-chair-agent.service
    say "the agent runs: systemctl status musical-chair-agent"
fi
