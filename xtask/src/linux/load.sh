#!/bin/sh
# load SECONDS: processes that compute, hash, fork, pipe and write, each against the others, for so
# many seconds of this machine's own clock. What they work out is checked.
end=$(($(date +%s) + ${1:-60}))
mkdir -p /tmp/load && cd /tmp/load || exit 1
goes_on() { [ "$(date +%s)" -lt $end ]; }
same() { [ "$1" = "$2" ] || echo "$name: $1 in place of $2" >>wrong; }

compute() {
    i=0 n=1
    while [ $i -lt 3000 ]; do i=$((i + 1)) n=$(((n * 69069 + 1) & 0x7fffffff)); done
    same $n 1956176585
}
hash() { same "$(dd if=/dev/zero bs=1M count=4 2>/dev/null | md5sum)" 'b5cfa9d6c8febd618f91ac2843d50a1c  -'; }
fork() {
    for i in 1 2 3 4 5 6 7 8 9 10; do (exit $i) & done
    same "$(sh -c 'sh -c "exit 7"; echo $?')" 7
    wait
}
pipe() { same "$(seq 20000 | sort -r | sort -n | tail -n 1)" 20000; }
store() {
    dd if=/dev/urandom of=one bs=64k count=32 2>/dev/null
    cat one one >two && tail -c 2097152 two >three
    same "$(md5sum <one)" "$(md5sum <three)"
}

for name in compute hash fork pipe store; do
    (
        rounds=0
        while goes_on; do $name; rounds=$((rounds + 1)); done
        echo "load: $name, $rounds rounds"
    ) &
done
wait
[ -e wrong ] && cat wrong && exit 1
echo "load: all of it was right"
