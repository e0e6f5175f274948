#!/bin/sh
# build.sh CACHE: the kernel of kernel.config from Debian's linux-source package, with tools from Debian packages that are only unpacked.
# Called again, it builds what has changed.
set -eu
cache=$1
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$cache"
cd "$cache"
if [ ! -e unpacked ]; then
  rm -rf debs tools source && mkdir debs tools source
  (cd debs && apt-get download -qq linux-source-6.12 bison flex libfl2 m4 libelf-dev libelf1)
  for deb in bison flex libfl2 m4 libelf-dev libelf1; do dpkg-deb -x debs/"$deb"_*.deb tools; done
  dpkg-deb --fsys-tarfile debs/linux-source-6.12_*.deb | tar -xO ./usr/src/linux-source-6.12.tar.xz | tar -xJ -C source --strip-components=1
  touch unpacked
fi
# The tests' own device lies among the kernel's samples, and is built in: a module would need a kernel that loads modules.
rm -rf source/samples/godwit-notebook
cp -r "$here/notebook" source/samples/godwit-notebook
grep -q godwit-notebook source/samples/Makefile || echo 'obj-$(CONFIG_GODWIT_NOTEBOOK) += godwit-notebook/' >>source/samples/Makefile
grep -q godwit-notebook source/Kconfig || echo 'source "samples/godwit-notebook/Kconfig"' >>source/Kconfig
export PATH="$cache/tools/usr/bin:$PATH" BISON_PKGDATADIR="$cache/tools/usr/share/bison" M4="$cache/tools/usr/bin/m4"
export LD_LIBRARY_PATH="$cache/tools/usr/lib/x86_64-linux-gnu"
mkdir -p build
make -s -C source O="$cache/build" KCONFIG_ALLCONFIG="$here/kernel.config" allnoconfig
grep '^CONFIG' "$here/kernel.config" | while read -r line; do
  grep -qx "$line" build/.config || { echo "kernel.config: $line did not hold" >&2; exit 1; }
done
make -s -j"$(nproc)" -C source O="$cache/build" \
  LIBELF_FLAGS="-I$cache/tools/usr/include" LIBELF_LIBS="-L$cache/tools/usr/lib/x86_64-linux-gnu -lelf" vmlinux
