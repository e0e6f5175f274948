/** Which programs are installed. */
import { execFileSync } from "node:child_process";
import { NATS_VERSION_MIN } from "@godwit/fabric";
import { QEMU_PROGRAM } from "@godwit/guest";
import { natsServerPath } from "../../../../scripts/setup-nats.mjs";
import { absent, type Finding, works } from "./finding.ts";

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
