#!/bin/busybox sh
# The first process of a test machine: mounts, modules, the script, power off.
# Console (ttyS0): the kernel's log and the script's status. ttyS1: what the script prints.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /sbin /usr/bin /usr/sbin /root
/bin/busybox --install -s /bin
export PATH=/opt/bin:/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmp /dev/shm
mount -t tmpfs -o mode=1777,size=75% tmp /tmp
mount -t tmpfs run /run
@LOAD@
ip link set lo up
stty -F /dev/ttyS1 raw -echo
@KEEP@
cd /root
@PIN@ sh /script </dev/null >/dev/ttyS1 2>&1
status=$?
# Opening and closing it waits until all of it is out.
stty -F /dev/ttyS1 >/dev/null
echo "xtask-vm: status $status" >/dev/ttyS0
stty -F /dev/ttyS0 >/dev/null
poweroff -f
