#!/usr/bin/env bash
# Usage: tools/lib/guest.sh ARCHITECTURE DIR
# Makes the computer that tools/vm starts: Debian 13 for arm64 or amd64 with systemd, udev, Mesa's software Vulkan
# driver and the kernel's virtual camera and USB serial driver, as DIR/{kernel,initrd,root.squashfs}. Needs no root,
# and nothing of the guest runs while it is made. DIR appears only when it is complete.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=tools/lib/archive.sh
source "$here/archive.sh"

architecture=$1
folder=$(realpath -m -- "$2")
mkdir -p "$(dirname -- "$folder")"
exec 9>"$folder.lock"
flock 9
if [[ -e $folder/root.squashfs ]]; then exit 0; fi
rm -rf "$folder".part-*
part=$(mktemp -d "$folder.part-XXXXXX")
trap 'rm -rf "$part"' EXIT

# vivid is the virtual camera, ftdi_sio drives QEMU's usb-serial.
modules=(virtio_blk virtio_console squashfs overlay xhci_pci ftdi_sio vivid)
start_modules=(virtio_blk squashfs overlay)
packages=(
  "linux-image-$architecture" busybox-static base-files base-passwd
  systemd systemd-sysv udev kmod mount util-linux bash dash coreutils grep sed procps
  mesa-vulkan-drivers libvulkan1
)

root=$part/root
fetch_from_archives "$part/debs" trixie -- "${packages[@]}"
mkdir -p "$root"
# base-files first: it has the links of /bin, /lib and /sbin into /usr.
for package in "$part"/debs/{base-files_,}*.deb; do dpkg-deb --extract "$package" "$root"; done
rm -rf "$part/debs" "$root"/usr/share/{doc,man,locale,info,lintian,bug,i18n} "$root"/usr/share/{fonts,zoneinfo,perl*}
rm -rf "$root/usr/lib/systemd/system/"*{apt,e2scrub,fstrim,dpkg}*

# Kernel and those of its modules that are used, unpacked: the emulated processor would take long over it.
mv "$root"/boot/vmlinuz-* "$part/kernel"
version=$(basename "$root"/usr/lib/modules/*)
list() { /sbin/modprobe --dirname "$root" --set-version "$version" --show-depends "$1" | sed -n 's/^insmod //p'; }
/sbin/depmod --basedir "$root" "$version"
for module in "${modules[@]}"; do list "$module"; done | sort -u >"$part/keep"
for module in "${start_modules[@]}"; do list "$module"; done | awk '!seen[$0]++' >"$part/start"
while read -r file; do touch "$file.keep"; done <"$part/keep"
find "$root/usr/lib/modules/$version/kernel" -name '*.ko*' ! -name '*.keep' | while read -r file; do
  if [[ -e $file.keep ]]; then xz --decompress "$file"; rm "$file.keep"; else rm "$file"; fi
done
find "$root/usr/lib/modules/$version/kernel" -depth -type d -empty -delete
/sbin/depmod --basedir "$root" "$version"

# The start: a busybox that loads what the kernel package has as modules, and puts the run's layer over the root.
start=$part/start-root
mkdir -p "$start"/{bin,modules,proc,dev,robot,base,layer,over}
cp "$root/usr/bin/busybox" "$start/bin/"
while read -r file; do
  cp "${file%.xz}" "$start/modules/"
  basename "${file%.xz}"
done <"$part/start" >"$start/modules/order"
install -m 755 "$here/../guest/init" "$start/init"
(cd "$start" && find . -print0 | cpio --quiet --null --create --format newc --owner 0:0 | gzip -1) >"$part/initrd"

# What the packages' own scripts would have done.
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
mapfile -t groups < <(sed -n 's/^g[!]* *\([a-z_-]*\) .*/\1/p' "$root"/usr/lib/sysusers.d/*.conf | sort -u)
number=900
for group in "${groups[@]}"; do
  if grep -q "^$group:" "$root/etc/group"; then continue; fi
  echo "$group:x:$((number++)):" >>"$root/etc/group"
done
echo robot >"$root/etc/hostname"
echo 7a6f0c3e5d2b4f1a9c8e7d6b5a4f3e2d >"$root/etc/machine-id"
ln -sf /usr/lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
for unit in systemd-{hwdb-update,journal-catalog-update,sysusers,update-done,firstboot,pcrphase,pstore}.service \
  ldconfig.service systemd-update-utmp.service getty@tty1.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

mksquashfs "$root" "$part/root.squashfs" -all-root -comp zstd -Xcompression-level 3 -quiet -no-progress >&2
rm -rf "$root" "$start" "$part/keep" "$part/start"
chmod 755 "$part"
rm -rf "$folder"
mv -T "$part" "$folder"
