#!/usr/bin/env bash
# Makes stand-ins for the images that docker-compose.yml takes from a registry, for machines that reach none: a base from Debian's
# packages, with this project's pinned Node.js and npm, and a NATS server on top of it.
#   deploy/docker/stand-in-images.sh [BASE_NAME [NATS_NAME]]
# Needs root (debootstrap), a Docker engine, Debian's debootstrap, and ways to a Debian mirror and to the npm registry; a clone that was
# set up (`npm run setup`). Then build and run with
#   export GODWIT_BASE_IMAGE=godwit-stand-in/base GODWIT_NATS_IMAGE=godwit-stand-in/nats
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly BASE=${1:-godwit-stand-in/base} NATS=${2:-godwit-stand-in/nats}
readonly SUITE=bookworm MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
# The release that the build stage installs packages with; any from 10 on does.
readonly NPM_VERSION=11.6.2
# What this machine trusts: behind a proxy that ends TLS, npm needs its certificate while the image is built.
readonly CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

say() { printf 'stand-in images: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[[ $(id -u) == 0 ]] || fail 'debootstrap needs root'
command -v debootstrap >/dev/null || fail 'debootstrap is not here; apt-get install debootstrap'
docker info >/dev/null 2>&1 || fail 'no Docker engine answers (docker info)'
case $(uname -m) in
  x86_64) architecture=x64 ;;
  aarch64) architecture=arm64 ;;
  *) fail "no Node.js is pinned for $(uname -m)" ;;
esac
node=node_modules/node-linux-$architecture/bin/node
[[ -x $node ]] || fail "$node is not here; run \`npm run setup\`"
server=$("$node" -e 'import("./scripts/setup-nats.mjs").then((m) => m.natsServerPath({ log: console.error })).then(console.log)')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "Debian $SUITE"
debootstrap --variant=minbase --include=ca-certificates,libstdc++6 "$SUITE" "$work/root" "$MIRROR" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; fail 'debootstrap failed'; }
rm -rf "$work"/root/var/cache/apt/* "$work"/root/var/lib/apt/lists/* "$work"/root/usr/share/{doc,man,locale,info}/*

say "Node.js $("$node" --version), npm $NPM_VERSION"
install -m 755 "$node" "$work/root/usr/local/bin/node"
mkdir -p "$work/root/usr/local/lib/node_modules/npm"
(cd "$work" && npm pack --silent "npm@$NPM_VERSION" >/dev/null)
tar -xzf "$work/npm-$NPM_VERSION.tgz" --strip-components=1 -C "$work/root/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$work/root/usr/local/bin/npm"
[[ ! -e $CERTIFICATES ]] || cp "$CERTIFICATES" "$work/root/etc/ssl/certs/ca-certificates.crt"
tar -C "$work/root" -c . | docker import \
  --change 'ENV NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt' - "$BASE" >/dev/null

say "$("$server" --version)"
mkdir "$work/nats"
cp "$server" "$work/nats/nats-server"
cat >"$work/nats/Dockerfile" <<DOCKERFILE
FROM $BASE
COPY nats-server /nats-server
ENTRYPOINT ["/nats-server"]
DOCKERFILE
docker build --quiet --tag "$NATS" "$work/nats" >/dev/null

docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' "$BASE" >&2
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' "$NATS" >&2
