/** What the kernel offers, found out by trying. */
import { type Ability, type HostAbilities, probeHost, SHARED_MEMORY_DIRECTORY } from "@godwit/host";
import { formatBytes } from "../terminal/format.ts";
import { absent, type Finding, missing, works } from "./finding.ts";

/** Less is no use: the smallest guest that is worth moving, its copy and its shadow, bytes. */
const SHARED_MEMORY_BYTES_MIN = 3 * 16 * 1024 ** 2;

const tracker = (name: string, ability: Ability, good: string): Finding =>
  ability._tag === "Works" ? works(`tracker ${name}`, good) : absent(`tracker ${name}`, ability.reason);

export const hostFindings = (): ReadonlyArray<Finding> => {
  let host: HostAbilities;
  try {
    host = probeHost();
  } catch (error) {
    return [missing(SHARED_MEMORY_DIRECTORY, error instanceof Error ? error.message : String(error))];
  }
  const free = formatBytes(host.sharedMemoryFreeBytes);
  const roomy = host.sharedMemoryFreeBytes >= SHARED_MEMORY_BYTES_MIN;
  return [
    works("kernel", `Linux ${host.kernelRelease}, ${host.architecture}, pages of ${host.kernelPageBytes} bytes`),
    works("Node.js", process.version),
    works("user", host.uid === 0 ? "root" : `uid ${host.uid}; root would add: ${host.rootWouldAdd.join("; ")}`),
    roomy
      ? works(SHARED_MEMORY_DIRECTORY, `${free} free for guest memory`)
      : missing(
          SHARED_MEMORY_DIRECTORY,
          `only ${free} free; make it larger (mount -o remount,size=2g, docker run --shm-size=2g)`,
        ),
    tracker(
      "userfaultfd",
      host.userfaultfd,
      `mode ${host.userfaultfd.mode}; for builtin guests, which register their memory`,
    ),
    host.missingFaults._tag === "Works"
      ? works("lazy restore", "builtin guests run before their memory is there")
      : absent("lazy restore", host.missingFaults.reason),
    tracker("soft-dirty", host.softDirty, "for any process; freezes it for each scan"),
    works("tracker content", "for any guest whose memory is a file; needs room for a copy of it"),
  ];
};
