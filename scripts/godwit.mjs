// `npm run demo`, `npm run godwit -- status`, `npx godwit`: sets the clone up if need be, then runs the command line.
import { runPinned } from "./pinned-node.mjs";
import { programPath } from "./programs.mjs";
import { setUpOrExit } from "./setup.mjs";

/** Commands that start a NATS server of their own; the others talk to one that is there. */
const STARTS_NATS = ["demo", "demo-qemu", "up"];

const args = process.argv.slice(2);
await setUpOrExit({ nats: STARTS_NATS.includes(args[0]) });
process.exitCode = await runPinned(programPath("services/cli/src/main"), args);
