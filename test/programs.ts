/**
 * Tests, benches and chaos start the same programs as a clone's command line does: built ones, of the sources as they stand now, and with what Node.js
 * has compiled of them in one folder for all. Each world has a runtime directory of its own, and would compile every actor again.
 */
import { fileURLToPath } from "node:url";
import { providePrograms } from "../scripts/programs.mjs";

process.env["NODE_COMPILE_CACHE"] ??= fileURLToPath(new URL("../.cache/compiled", import.meta.url));
await providePrograms((line) => process.stderr.write(`${line}\n`));
