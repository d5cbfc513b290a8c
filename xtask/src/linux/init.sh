#!/bin/busybox sh
# The first process of examples/linux.toml: a shell on the console; its end is the machine's.
/bin/busybox mkdir -p /proc /sys /dev /tmp /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TERM=linux PS1='linux# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
@LOAD@
echo "Linux $(uname -r) with $(nproc) CPUs; poweroff -f, or the end of this shell, ends it"
setsid cttyhack sh
poweroff -f
