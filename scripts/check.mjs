// `npm run check`: types, lint and format. Both are always run, so that one look shows everything.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { exitOf } from "./child.mjs";
import { ROOT } from "./packages.mjs";
import { PINNED_NODE } from "./pinned-node.mjs";
import { setUpOrExit } from "./setup.mjs";

await setUpOrExit({ nats: false });

const checks = [
  { name: "types (tsc)", args: [join(ROOT, "node_modules", ".bin", "tsc"), "-p", "tsconfig.json"] },
  { name: "lint and format (biome)", args: [join(ROOT, "scripts", "biome.mjs"), "check", "."] },
];
for (const { name, args } of checks) {
  const exit = await exitOf(spawn(PINNED_NODE, args, { cwd: ROOT, stdio: "inherit" }));
  console.log(`${name}: ${exit === 0 ? "passed" : `failed (exit ${exit})`}`);
  if (exit !== 0) process.exitCode = 1;
}
