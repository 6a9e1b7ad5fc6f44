#!/bin/bash
# Records a kernel whose memory controller is on cgroup v2: boots one in qemu (no KVM needed),
# runs `kmbench trace record --raw` in it, and assembles and validates the recording here.
#
#   benchmarks/record_v2.sh FOLDER [KERNEL...]
#
# FOLDER: where the guest is built and the recording ends up; what is there already is used again.
# KERNEL: Debian packages that apt knows, or .deb files [default: what linux-image-cloud-amd64
# depends on]; several where a release splits kernel and modules.
# Needs the Debian packages qemu-system-x86, mmdebstrap, e2fsprogs, busybox-static and cpio, and
# about 1 GiB; PYTHON is the interpreter that has kmbench [default: python3].
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
mkdir -p "$1" && cd "$1"
shift
[ $# -gt 0 ] || set -- $(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p')

if [ ! -d root ]; then
    echo "building the guest" >&2
    mmdebstrap --quiet --variant=minbase --include=python3,kmod bookworm root
    # what the recorder imports, for the guest's Python 3.11; nothing here is compiled
    "$python" -m pip install --quiet --no-deps --target root/opt --python-version 3.11 \
        --only-binary :all: numpy click pluggy
fi
rm -rf root/opt/kmbench && cp -r "$here/kmbench" root/opt/
cp "$here/benchmarks/record_v2_guest.sh" root/guest.sh

rm -rf boot initrd && mkdir -p initrd/bin && : >initrd/modules
for kernel; do
    [ -f "$kernel" ] || { ls "$kernel"_*.deb >/dev/null 2>&1 || apt-get -q download "$kernel"
                          kernel=$(ls "$kernel"_*.deb | tail -1); }
    dpkg -x "$kernel" boot
    name=$(dpkg-deb -f "$kernel" Version | sed 's/[^0-9.].*//')
done
cp "$(command -v busybox)" initrd/bin/
for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
do  # those that are not built in
    file=$(find boot -name "$module.ko" -o -name "$module.ko.xz")
    [ -z "$file" ] && continue
    cp "$file" initrd/ && { xz -dq "initrd/$module.ko.xz" 2>/dev/null || true; }
    echo "insmod /$module.ko" >>initrd/modules
done
cat >initrd/init <<'EOF'
#!/bin/busybox sh
/bin/busybox --install -s /bin
. /modules
mkdir -p /dev /new
mount -t devtmpfs devtmpfs /dev
mount -t ext4 /dev/vda /new
exec switch_root /new /bin/bash /guest.sh
EOF
chmod +x initrd/init
(cd initrd && find . | cpio --quiet -o -H newc) >initrd.img
rm -f disk.img && mkfs.ext4 -q -d root disk.img 1G

echo "booting $name" >&2
timeout "${LIMIT_S:-480}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
    -nographic -no-reboot -nodefaults -serial "file:console-$name.log" \
    -kernel "$(find boot -name 'vmlinuz*' | head -1)" -initrd initrd.img \
    -append "console=ttyS0 panic=-1 quiet" \
    -drive file=disk.img,format=raw,if=virtio,cache=unsafe
raw=v2-$name.kmraw.npz
debugfs -R "dump /v2.kmraw.npz $raw" disk.img 2>/dev/null
[ -s "$raw" ] || { tail -20 "console-$name.log" >&2; exit 1; }
rm -rf "v2-$name"
"$python" -m kmbench trace assemble "$raw" -o "v2-$name"
"$python" -m kmbench trace validate "v2-$name"
