# First process of the guest that record_v2.sh boots: mounts, records, powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root PYTHONPATH=/opt PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
uname -r
cd /tmp
python3 -m kmbench trace record --dry-run -- true

cat >churn.sh <<'EOF'
# a container: processes, files and a walk; half of it is removed again
for i in $(seq 30); do
    mkdir -p /var/churn/$i && for k in $(seq 20); do echo $k >/var/churn/$i/$k; done
    ls -l /var/churn/$i | sort | tail -1 >/dev/null
    [ $((i % 2)) = 0 ] && rm -r /var/churn/$i
done
EOF
cat >sockets.py <<'EOF'
import os, socket, time
kept = []
for i in range(300):
    a, b = socket.socketpair()
    a.send(b"x" * 700)
    kept += [a, b, os.open(f"/tmp/s{i}", os.O_CREAT | os.O_RDWR)]
    if i % 3 == 0:
        for one in kept[:2]:
            one.close()
        del kept[:2]
        os.close(kept.pop(0))
time.sleep(2)
EOF
python3 -m kmbench trace record --raw -o /v2.kmraw.npz --what "cgroup v2 in qemu" \
    -g churn='bash /tmp/churn.sh' -g walk='ls -lR /usr >/dev/null' -g sockets='python3 /tmp/sockets.py'
echo "recorder: exit code $?"
ls -d /sys/fs/cgroup/kmb_* /sys/kernel/tracing/instances/kmb_* 2>/dev/null && echo "left over"
cat /sys/fs/cgroup/cgroup.subtree_control
sync
echo o >/proc/sysrq-trigger
read -rt 60 _ <>/proc/self/fd/0
