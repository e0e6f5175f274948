/**
 * Where the actors of tests, benches and chaos keep what Node.js has compiled: one folder for all of them, as for those of a clone's command line. Each
 * world has a runtime directory of its own, and would compile every actor again.
 */
import { fileURLToPath } from "node:url";

process.env["NODE_COMPILE_CACHE"] ??= fileURLToPath(new URL("../.cache/compiled", import.meta.url));
