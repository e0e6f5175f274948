// Builds the programs of a clone (programs.mjs asks for it): node scripts/build-programs.mjs ROOT FOLDER STAMP
// FOLDER then holds each program at its path below ROOT, as .js, and the stamp. Runs under the pinned Node.js.
import { renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { rolldown } from "rolldown";

/** Whatever is started as a process or a thread of its own. One that is missing here runs from its source. */
const PROGRAMS = [
  "services/cli/src/main",
  "services/coordinator/src/main",
  "services/loader/src/main",
  "services/multifd-worker/src/main",
  "services/ram-sender/src/main",
  "services/vfio-agent/src/main",
  "libs/guest/src/builtin/process",
  "libs/guest/src/builtin/vcpu",
  "libs/host/src/ioctl-loop",
  "libs/memory/src/trackers/content-worker",
  "libs/vfio/src/simulated/process",
];

const [root, folder, stamp] = process.argv.slice(2);

/** A module goes on finding what lies beside its source: `import.meta.url` stays the source's. */
const sourceUrls = {
  name: "source-urls",
  transform: (code, id) =>
    id.startsWith(root) && !id.includes("/node_modules/") && code.includes("import.meta.url")
      ? code.replaceAll("import.meta.url", JSON.stringify(pathToFileURL(id).href))
      : null,
};

const bundle = await rolldown({
  input: Object.fromEntries(PROGRAMS.map((path) => [path, join(root, `${path}.ts`)])),
  platform: "node",
  // It loads a library of its own from where its package lies.
  external: ["koffi"],
  plugins: [sourceUrls],
});
const fresh = `${folder}.${process.pid}`;
const former = `${fresh}.former`;
await bundle.write({ dir: fresh, format: "esm", entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js" });
await bundle.close();
writeFileSync(join(fresh, "stamp"), stamp);
// Whoever starts a program between these two lines runs its source.
try {
  renameSync(folder, former);
} catch (error) {
  if (error.code !== "ENOENT") throw error;
}
renameSync(fresh, folder);
rmSync(former, { recursive: true, force: true });
