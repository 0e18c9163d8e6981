#!/bin/bash
# Gets and builds the kernels and guests of the tests with real kernels, into a cache outside the repository.
#
#   kernels.sh                        Linux 7.3 for arm64 and x86_64 with 4K pages, and the guests
#   kernels.sh VERSION ARCH [PAGES]   one kernel: 7.3 arm64 16
#
# Sources come from Debian's packages linux-source-VERSION of sid and trixie-backports, or from the source
# package `linux` of an older version that the archive still holds (7.1.13). Nothing is installed, no root is
# needed. What is built stays until the options below change: they are kept beside each build. With KERNEL=Image
# no kernel is built: that one is tested.
#
# Exits with 77 where tools are missing (what is there already can be tested), with 3 where sources cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/kho-inspect/kernels
mkdir -p "$cache"/apt/{lists/partial,archives/partial,parts} "$cache"/{src,build,guest}

need() {
  local missing=() pair
  for pair in qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm gcc:gcc make:make flex:flex bison:bison bc:bc \
    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu cpio:cpio xz:xz-utils; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ -e /usr/aarch64-linux-gnu/lib/libc.a ] || missing+=(libc6-dev-arm64-cross)
  for pair in libelf.h:libelf-dev openssl/opensslv.h:libssl-dev; do
    [ -e "/usr/include/${pair%%:*}" ] || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} = 0 ] && return
  echo "kernels.sh: not installed: ${missing[*]} (apt-get install --no-install-recommends ${missing[*]})" >&2
  exit 77
}

unfetched() {
  echo "kernels.sh: $1 could not be fetched; what apt said is above" >&2
  exit 3
}

# apt with lists and archives of its own.
own_apt() {
  local program=$1; shift
  "$program" -o Dir::State::Lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" -o Dir::Etc::SourceList="$cache/apt/sources.list" \
    -o Dir::Etc::SourceParts="$cache/apt/parts" -o APT::Sandbox::User= -qq "$@"
}

update_lists() {
  [ -s "$cache/apt/updated" ] && return
  local mirror suite kind
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') ||
    { echo "kernels.sh: apt knows no mirror of Debian to get sources from" >&2; exit 3; }
  for suite in sid trixie-backports; do
    for kind in deb deb-src; do
      echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done
  done >"$cache/apt/sources.list"
  own_apt apt-get update --error-on=any || unfetched "the list of packages of $mirror"
  date >"$cache/apt/updated"
}

source_of() {
  local version=$1 tree=$cache/src/$1 package=linux-source-$1
  [ -f "$tree/Makefile" ] && return
  update_lists
  rm -rf "$tree.part" && mkdir "$tree.part"
  if own_apt apt-cache show "$package" >/dev/null 2>&1; then
    (cd "$cache/apt/archives" && own_apt apt-get download "$package") || unfetched "$package"
    dpkg-deb --fsys-tarfile "$cache/apt/archives/${package}"_*.deb | tar -xO "./usr/src/$package.tar.xz" |
      tar -xJ -C "$tree.part" --strip-components=1
    rm "$cache/apt/archives/${package}"_*.deb
  else
    local full
    full=$(own_apt apt-cache showsrc linux | awk '/^Version:/ {print $2}' | grep -m1 "^$version-") ||
      { echo "kernels.sh: Debian has no sources of Linux $version" >&2; exit 3; }
    (cd "$cache/apt/archives" && own_apt apt-get source --download-only "linux=$full") || unfetched "linux=$full"
    tar -xJ -C "$tree.part" --strip-components=1 -f "$cache/apt/archives/linux_$version.orig.tar.xz"
    rm "$cache/apt/archives/linux_$version"*
  fi
  mv "$tree.part" "$tree"
}

# A kernel with little more than handover, orchestrator, memfd and their tests.
COMMON="64BIT EXPERT PRINTK PRINTK_TIME TTY BLK_DEV_INITRD RD_GZIP BINFMT_ELF PROC_FS SYSFS SYSCTL DEVTMPFS TMPFS SHMEM MEMFD_CREATE
  KEXEC KEXEC_FILE KEXEC_HANDOVER KEXEC_HANDOVER_DEBUGFS KEXEC_HANDOVER_DEBUG KEXEC_HANDOVER_ENABLE_DEFAULT LIVEUPDATE LIVEUPDATE_MEMFD
  LIVEUPDATE_TEST RUNTIME_TESTING_MENU TEST_KEXEC_HANDOVER DEBUG_FS DEBUG_FS_ALLOW_ALL DEBUG_KERNEL RELOCATABLE MULTIUSER FUTEX EPOLL
  POSIX_TIMERS HIGH_RES_TIMERS BUG KALLSYMS TRANSPARENT_HUGEPAGE TRANSPARENT_HUGEPAGE_MADVISE COMPACTION MIGRATION CMA ADVISE_SYSCALLS
  FILE_LOCKING UNIX98_PTYS CRYPTO CRYPTO_SHA256 SMP DEVMEM"
X86_64="SERIAL_8250 SERIAL_8250_CONSOLE ACPI PCI X86_LOCAL_APIC X86_IO_APIC"
ARM64="SERIAL_AMBA_PL011 SERIAL_AMBA_PL011_CONSOLE ARM_AMBA OF"
# Without STRICT_DEVMEM the guest reads the regions of reserve_mem through /dev/mem.
WITHOUT="DEFERRED_STRUCT_PAGE_INIT NUMA RANDOMIZE_BASE STRICT_DEVMEM"

# What scripts/config gets for an architecture with pages of so many K, an option a line.
# shellcheck disable=SC2086 # lists of words
options_of() {
  local arch=$1 pages=$2 size
  printf -- '--enable %s\n' $COMMON $([ "$arch" = arm64 ] && echo "$ARM64" || echo "$X86_64")
  if [ "$arch" = arm64 ]; then
    for size in 4 16 64; do [ "$size" = "$pages" ] || echo "--disable ARM64_${size}K_PAGES"; done
    echo "--enable ARM64_${pages}K_PAGES"
  fi
  printf -- '--disable %s\n' $WITHOUT
}

build() {
  local version=$1 arch=$2 pages=${3:-4} tree=$cache/src/$1 out image options
  out=$cache/build/$version-$arch-${pages}k
  image=$out/arch/$([ "$arch" = arm64 ] && echo arm64/boot/Image || echo x86/boot/bzImage)
  options=$(options_of "$arch" "$pages")
  [ -f "$image" ] && [ "$options" = "$(cat "$out/options" 2>/dev/null)" ] && return
  source_of "$version"
  echo "building Linux $version for $arch with pages of ${pages}K; a few minutes" >&2
  mkdir -p "$out"
  local make=(make -s -C "$tree" O="$out" ARCH="$arch")
  [ "$arch" = arm64 ] && make+=(CROSS_COMPILE=aarch64-linux-gnu-)
  "${make[@]}" tinyconfig
  # shellcheck disable=SC2086 # a list of words
  "$tree/scripts/config" --file "$out/.config" $options
  "${make[@]}" olddefconfig
  nice -n 10 "${make[@]}" -j"$(nproc)" "$(basename "$image")"
  # Only now: what did not come to its end is built again.
  echo "$options" >"$out/options"
}

# The init of both architectures, against the newest kernel's declaration of its ioctls.
guests() {
  local arch compiler dir uapi
  uapi=$cache/guest/uapi/linux
  mkdir -p "$uapi"
  [ -f "$uapi/liveupdate.h" ] || { source_of 7.3 && cp "$cache/src/7.3/include/uapi/linux/liveupdate.h" "$uapi/"; }
  for arch in x86_64 arm64; do
    [ "$cache/guest/$arch.cpio" -nt "$here/guest.c" ] && continue
    compiler=$([ $arch = arm64 ] && echo aarch64-linux-gnu-gcc || echo gcc)
    dir=$(mktemp -d)
    "$compiler" -static -O2 -Wall -s -I "$cache/guest/uapi" -o "$dir/init" "$here/guest.c"
    (cd "$dir" && echo init | cpio -o -H newc --quiet >"$cache/guest/$arch.cpio")
    rm -r "$dir"
  done
}

need
if [ $# -ge 2 ]; then
  build "$@"
elif [ -z "${KERNEL:-}" ]; then
  build 7.3 arm64
  build 7.3 x86_64
fi
guests
