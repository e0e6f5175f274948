/** Which programs are installed, and what answers where NATS should be. */
import { execFileSync } from "node:child_process";
import { NATS_VERSION_MIN } from "@godwit/fabric";
import { QEMU_PROGRAM } from "@godwit/guest";
import type { GodwitError } from "@godwit/protocol";
import { natsServerPath } from "../../../../scripts/setup-nats.mjs";
import { absent, type Finding, missing, works } from "./finding.ts";
import { greet } from "./nats-greeting.ts";

/** How long `--version` may take, ms; it is instant unless the machine is very busy. */
const VERSION_MS = 10_000;
/** The oldest QEMU whose guests can be moved. */
const QEMU_MAJOR_MIN = 8;
export const QEMU_ADVICE = "install it: apt-get install qemu-system-x86";

const firstLine = (program: string): string =>
  execFileSync(program, ["--version"], {
    encoding: "utf8",
    timeout: VERSION_MS,
    stdio: ["ignore", "pipe", "pipe"],
  }).split("\n")[0] ?? "";

export const qemuFinding = (): Finding => {
  try {
    const line = firstLine(QEMU_PROGRAM);
    const major = Number(/version (\d+)/.exec(line)?.[1] ?? 0);
    if (major >= QEMU_MAJOR_MIN) return works(QEMU_PROGRAM, line);
    return absent(QEMU_PROGRAM, `${line}; only QEMU ${QEMU_MAJOR_MIN} and later can be moved`);
  } catch {
    return absent(QEMU_PROGRAM, `not in PATH; builtin guests do without, for others ${QEMU_ADVICE}`);
  }
};

export const natsServerFinding = async (): Promise<Finding> => {
  try {
    const path = await natsServerPath({ download: false });
    return works("nats-server", `${firstLine(path)}, ${path}`);
  } catch {
    const why = `no nats-server ${NATS_VERSION_MIN} or later in PATH or in the cache`;
    return absent("nats-server", `${why}; \`npm run setup\` fetches one, for \`godwit demo\` and \`godwit up\``);
  }
};

/** `named`: the operator asked for these servers, so that they are not there stands in the way. `login`: null when a connection succeeded. */
export const natsFinding = async (
  servers: string,
  named: boolean,
  login: () => Promise<GodwitError | null>,
): Promise<Finding> => {
  const what = `NATS at ${servers.replace(/\/\/[^@/]*@/g, "//***@")}`;
  let greeting: Awaited<ReturnType<typeof greet>>;
  try {
    greeting = await greet(servers);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return named ? missing(what, reason) : absent(what, `${reason}; \`godwit up\` starts one, --nats names another`);
  }
  const refused = await login();
  if (refused !== null) return missing(what, `${refused.code}: ${refused.reason}; ${refused.remedy}`);
  if (!greeting.jetStream) return missing(what, `version ${greeting.version} without JetStream; start it with -js`);
  return works(what, `version ${greeting.version} with JetStream`);
};
