// Makes a clone ready to run: packages, the pinned Node.js, the built programs, a nats-server. Plain JavaScript for any Node >= 18 without
// dependencies, since it runs before anything is there. Does nothing, quickly, when nothing is to be done.
// All text goes to stderr: stdout belongs to the command that set-up was run for.
import { pathToFileURL } from "node:url";
import { installPackages, packagesAreInstalled } from "./packages.mjs";
import { checkPinnedNode, checkPlatform } from "./pinned-node.mjs";
import { providePrograms } from "./programs.mjs";
import { natsServerPath } from "./setup-nats.mjs";

const log = (line) => process.stderr.write(`${line}\n`);

/**
 * Resolves once the clone is ready. `nats: false` leaves nats-server out, for what never starts one.
 * Throws an Error whose message tells the operator what to do.
 */
export async function setUp({ nats }) {
  checkPlatform();
  if (!packagesAreInstalled()) await installPackages(log);
  checkPinnedNode();
  await providePrograms(log);
  if (nats) await natsServerPath({ log });
}

/** Like `setUp`, for programs: a failure is shown and ends the process with exit code 1. */
export async function setUpOrExit(options) {
  try {
    await setUp(options);
  } catch (error) {
    log(`godwit setup: ${error.message}`);
    process.exit(1);
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await setUpOrExit({ nats: true });
