#!/bin/busybox sh
# The first process of examples/linux.toml: a shell on the console; its end is the machine's. With
# root=DEVICE on the kernel's command line it mounts that (ext4), as "ro" or "rw" say, and goes on
# with the init that is there.
/bin/busybox mkdir -p /proc /sys /dev /tmp /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=linux PS1='linux# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
@LOAD@
root= init=/sbin/init mode=ro
for word in $(cat /proc/cmdline); do
    case $word in
    root=*) root=${word#root=} ;;
    init=*) init=${word#init=} ;;
    ro | rw) mode=$word ;;
    esac
done
if [ "$root" ]; then
@LOAD_ROOT@
    mkdir -p /mnt
    if mount -t ext4 -o $mode "$root" /mnt && [ -x /mnt"$init" ]; then
        mount --move /dev /mnt/dev && exec switch_root -c /dev/console /mnt "$init"
    fi
    echo "root=$root: no ext4 file system with an $init can be mounted there; this is the RAM disk"
fi
echo "Linux $(uname -r) with $(nproc) CPUs; poweroff -f, or the end of this shell, ends it"
setsid cttyhack sh
poweroff -f
