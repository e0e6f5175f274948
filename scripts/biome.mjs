// Runs the Biome binary of this platform. `@biomejs/biome` itself cannot be a dependency: `npm ci` fails on registries
// that lack one of its many optional platform packages, so the two we support are named in package.json directly.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";

const binary = createRequire(import.meta.url).resolve(`@biomejs/cli-linux-${process.arch}/biome`);
process.exit(spawnSync(binary, process.argv.slice(2), { stdio: "inherit" }).status ?? 1);
