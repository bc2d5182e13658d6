#!/usr/bin/env bash
# Runs a command in a throw-away copy of a root file system, with this machine's network and its settings of pip.
# Called in fresh mount and pid namespaces (simulator/rootfs.py), which take every mount here with them.
# arguments  the root file system, an empty directory, a directory that appears at its own path, the command
set -euo pipefail
lower=$1 scratch=$2 shared=$3
shift 3

mount -t tmpfs -o mode=755 sim-root "$scratch"
root=$scratch/root
mkdir "$scratch/upper" "$scratch/work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
rm -f "$root/etc/resolv.conf"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

# What lies at a path of this machine appears at the same path.
show() {
    [ -e "$1" ] || return 0
    mkdir -p "$root$(dirname "$1")"
    if [ -d "$1" ]; then mkdir -p "$root$1"; else touch "$root$1"; fi
    mount --bind "$1" "$root$1"
}
show "$shared"
show /etc/ssl/certs
for path in /etc/pip.conf "$HOME/.config/pip" "$HOME/.pip" "${PIP_CONFIG_FILE:-}" "${PIP_FIND_LINKS:-}" \
    "${PIP_CERT:-}" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
    case $path in /etc/ssl/certs/*) ;; /*) show "$path" ;; esac
done
exec env --unset=PYTHONPATH --unset=PYTHONHOME --unset=VIRTUAL_ENV --unset=LD_PRELOAD \
    PATH=/usr/sbin:/usr/bin LC_ALL=C.UTF-8 chroot "$root" "$@"
