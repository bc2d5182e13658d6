#!/usr/bin/env bash
# Becomes PID 1 of one simulated Spark: its own root (an overlay of a Debian), then sshd and dockerd.
# Called in fresh mount, UTS, IPC and PID namespaces and in the Spark's network namespace.
# arguments  name, directory of the Spark with its settings (simulator/sparks.py)
set -euo pipefail
name=$1 home=$2 root=$2/rw/root
lower='' sources='' user='' password='' uuid='' hook='' gpus='' nvidia_smi_exit=''
# shellcheck source=/dev/null
. "$home/settings"

hostname "$name"
# The upper layer is a tmpfs mounted outside, so files survive a power cut of the Spark.
mkdir -p "$home/rw/upper" "$home/rw/work" "$root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$home/rw/upper,workdir=$home/rw/work" "$root"
mount -t proc proc "$root/proc"
# A Spark's memory, not this machine's.
mount --bind "$home/meminfo" "$root/proc/meminfo"
# Writing there would drop this machine's.
: >"$home/drop_caches"
mount --bind "$home/drop_caches" "$root/proc/sys/vm/drop_caches"
# As systemd sets it: ping is neither setuid nor does it have capabilities.
echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup" 2>/dev/null || true
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
# /sys/class is rebuilt with the real net class and the simulated infiniband class.
mkdir -p "$home/rw/class"
mountpoint -q "$home/rw/class" || mount --bind "$home/rw/class" "$home/rw/class"
mkdir -p "$home/rw/class/net" "$home/rw/class/infiniband"
mount --bind "$root/sys/class/net" "$home/rw/class/net"
mount --bind "$home/infiniband" "$home/rw/class/infiniband"
mount --rbind "$home/rw/class" "$root/sys/class"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
cp -a /dev/{null,zero,full,random,urandom,tty} "$root/dev/"
[ ! -e /dev/fuse ] || cp -a /dev/fuse "$root/dev/"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue" "$root/dev/infiniband"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777,size=8g tmpfs "$root/dev/shm"
mknod -m 666 "$root/dev/infiniband/uverbs0" c 1 3
mknod -m 666 "$root/dev/infiniband/rdma_cm" c 1 3
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/sshd" "$root/run/lock"
mount -t tmpfs -o mode=1777,size=4g tmpfs "$root/tmp"
mkdir -p "$root/var/lib/docker" "$root/var/lib/containerd" "$root/srv/spark"
mount --bind "$home/docker" "$root/var/lib/docker"
mount --bind "$home" "$root/srv/spark"
mkdir -p "$home/rw/rootfiles" "$home/rw/homes"
mount --bind "$home/rw/rootfiles" "$root/root"
mount --bind "$home/rw/homes" "$root/home"

echo "$name" >"$root/etc/hostname"
cp "$home/../hosts" "$root/etc/hosts"
: >"$root/etc/resolv.conf"
# Each Spark is a machine of its own; the id survives its reboots.
[ -f "$home/rw/machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >"$home/rw/machine-id"
cp "$home/rw/machine-id" "$root/etc/machine-id"
echo "$uuid" >"$root/etc/spark-gpu-uuid"
echo "$gpus" >"$root/etc/spark-gpus"
install -m 755 "$sources"/bin/* "$root/usr/local/bin/"
[ "$hook" ] || rm "$root/usr/local/bin/nvidia-container-runtime-hook"

if [ ! -f "$home/rw/prepared" ]; then
    chroot "$root" useradd --create-home --shell /bin/bash --groups docker "$user"
    echo "$user:$password" | chroot "$root" chpasswd
    chroot "$root" install -d -m 700 -o "$user" -g "$user" "/home/$user/.ssh"
    cp "$home/../keys/id_ed25519.pub" "$root/home/$user/.ssh/authorized_keys"
    chroot "$root" chown "$user:$user" "/home/$user/.ssh/authorized_keys"
    cp "$home/ssh_host_ed25519_key" "$home/ssh_host_ed25519_key.pub" "$root/etc/ssh/"
    chmod 600 "$root/etc/ssh/ssh_host_ed25519_key"
    mkdir -p "$root/etc/docker" "$root/etc/netplan"
    cp "$home/daemon.json" "$root/etc/docker/daemon.json"
    cp "$home/docker-flags" "$root/etc/spark-docker-flags"
    cp "$home/sshd.conf" "$root/etc/ssh/sshd_config.d/spark.conf"
    [ "$nvidia_smi_exit" = 0 ] || echo "$nvidia_smi_exit" >"$root/etc/spark-gpu-broken"
    # As the NVIDIA toolkit ships it.
    mkdir -p "$root/etc/nvidia-container-runtime"
    printf '%s\n' '#accept-nvidia-visible-devices-as-volume-mounts = false' '#swarm-resource = "DOCKER_RESOURCE_GPU"' '' \
        '[nvidia-container-cli]' 'load-kmods = true' >"$root/etc/nvidia-container-runtime/config.toml"
    install -m 440 "$home/sudoers" "$root/etc/sudoers.d/dgx-spark-simulated"
    touch "$home/rw/prepared"
fi

cd "$root"
mkdir -p .outside
pivot_root . .outside
cd /
umount -l /.outside
rmdir /.outside 2>/dev/null || true
# shellcheck disable=SC2016 # the inner shell expands these
exec /usr/bin/tini -g -- /bin/bash -c '
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# The kernel forgets them when a machine is switched off; this network namespace does not.
nft flush ruleset
for unit in /etc/systemd/system/sysinit.target.wants/*.service; do
    [ ! -e "$unit" ] || systemctl start "${unit##*/}"
done
/usr/sbin/sshd -D -e >>/var/log/sshd.log 2>&1 &
start-dockerd &
wait
'
