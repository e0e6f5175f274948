/** QEMU's migration capabilities by QEMU's names (qapi/migration.json), and godwit's own. */
import type { Failure } from "./failure.ts";

interface Capability {
  readonly default: boolean;
  /** The guest drivers for which it is on unless it is switched off. */
  readonly defaultFor?: ReadonlyArray<string>;
  /** False: known from QEMU, refused with that word instead of "unknown". */
  readonly supported: boolean;
  readonly requires?: ReadonlyArray<string>;
  readonly conflicts?: ReadonlyArray<string>;
  readonly what: string;
}

export const CAPABILITIES = {
  multifd: {
    default: true,
    supported: true,
    what: "parallel channels for RAM and device state",
  },
  "return-path": {
    default: true,
    supported: true,
    what: "acknowledgements from the destination; godwit always has them",
  },
  events: { default: true, supported: true, what: "emit MIGRATION and MIGRATION_PASS" },
  "pause-before-switchover": {
    default: false,
    supported: true,
    what: "stop in pre-switchover with the guest stopped, until `godwit continue`",
  },
  verify: {
    default: false,
    // Guests for trying and testing show what it does; it costs a guest that is meant for work 0.3 s of a core for each GiB.
    defaultFor: ["builtin"],
    supported: true,
    what: "compare every page with the destination before the guest may run there, and send damaged ones again",
  },
  "switchover-ack": {
    default: false,
    supported: true,
    requires: ["return-path"],
    what: "wait until devices have loaded their initial data",
  },
  "postcopy-ram": {
    default: false,
    supported: true,
    requires: ["return-path"],
    conflicts: ["mapped-ram"],
    what: "allow `godwit start-postcopy` and postcopy-after-rounds: run at the destination with pages missing, and fetch those that the guest touches at once",
  },
  "postcopy-preempt": {
    default: false,
    // A page that a vCPU waits for must never wait for pages that nobody needs yet; QEMU has it off for want of a channel.
    supported: true,
    requires: ["postcopy-ram"],
    what: "a channel of its own, with a worker of its own, for pages that the guest waits for",
  },
  encryption: {
    default: false,
    supported: true,
    // A checkpoint is a file, and goes over no channel.
    conflicts: ["mapped-ram"],
    what: "seal every packet end to end (AES-256-GCM), so that NATS reads and changes nothing of the guest; needs credentials at both nodes",
  },
  xbzrle: {
    default: false,
    supported: true,
    // Unlike QEMU's it goes with multifd: its channels share no cache, our workers do.
    conflicts: ["mapped-ram"],
    what: "keep what is sent after the first pass (xbzrle-cache-size), and send of a page that is dirtied again only what has changed",
  },
  "mapped-ram": {
    default: false,
    supported: true,
    conflicts: ["xbzrle", "postcopy-ram", "encryption"],
    what: "each page at a fixed offset of a file: `godwit save` has it on, and nothing else can",
  },
  "auto-converge": {
    default: false,
    supported: false,
    conflicts: ["dirty-limit"],
    what: "throttle vCPUs when dirtying outruns transfer",
  },
  "dirty-limit": {
    default: false,
    supported: false,
    conflicts: ["auto-converge"],
    what: "throttle each vCPU by a dirty quota",
  },
  "zero-copy-send": {
    default: false,
    supported: false,
    requires: ["multifd"],
    what: "MSG_ZEROCOPY on multifd channels",
  },
} as const satisfies Record<string, Capability>;

export type CapabilityName = keyof typeof CAPABILITIES;
export type Capabilities = Readonly<Record<CapabilityName, boolean>>;

const table: Readonly<Record<string, Capability>> = CAPABILITIES;
const isName = (name: string): name is CapabilityName => Object.hasOwn(table, name);

const defaultsOf = (driver: string | null): Capabilities =>
  Object.fromEntries(
    Object.entries(table).map(([name, c]) => [
      name,
      c.default || (driver !== null && c.defaultFor?.includes(driver) === true),
    ]),
  ) as Capabilities;

/**
 * Checks the whole proposed set at once, as QEMU does: one conflict refuses everything. `driver`: the guest's, once it is known; some
 * defaults depend on it.
 */
export const proposeCapabilities = (
  asked: Readonly<Record<string, boolean>>,
  driver: string | null = null,
  /** Where the pages go: only a file has places for them. */
  transport: "network" | "file" = "network",
): Capabilities | Failure => {
  const refuse = (code: Failure["code"], reason: string): Failure => ({
    code,
    actor: "coordinator",
    step: "check capabilities",
    reason,
  });
  const unknown = Object.keys(asked).find((name) => !isName(name));
  if (unknown !== undefined) return refuse("unknown-capability", `Invalid capability '${unknown}'`);
  const proposed: Capabilities = { ...defaultsOf(driver), "mapped-ram": transport === "file", ...asked };
  for (const [name, capability] of Object.entries(table)) {
    if (!proposed[name as CapabilityName]) continue;
    const missing = capability.requires?.find((other) => !proposed[other as CapabilityName]);
    if (missing !== undefined)
      return refuse("capability-conflict", `Capability '${name}' requires capability '${missing}'`);
    const clash = capability.conflicts?.find((other) => proposed[other as CapabilityName]);
    if (clash !== undefined)
      return refuse("capability-conflict", `Capability '${name}' is not compatible with '${clash}'`);
  }
  const missing = Object.entries(table).find(([name, c]) => proposed[name as CapabilityName] && !c.supported)?.[0];
  if (missing !== undefined)
    return refuse("not-supported", `Capability '${missing}' is not supported by this version of godwit`);
  if (transport === "file" && !proposed["mapped-ram"])
    return refuse(
      "not-supported",
      "Capability 'mapped-ram' cannot be switched off: a checkpoint has a place for each page",
    );
  if (transport === "network" && proposed["mapped-ram"])
    return refuse(
      "capability-conflict",
      "Migration requires seekable transport (e.g. file) for capability 'mapped-ram'; use `godwit save`",
    );
  if (!proposed.multifd || !proposed["return-path"]) {
    const name = proposed.multifd ? "return-path" : "multifd";
    return refuse("not-supported", `Capability '${name}' cannot be switched off: godwit has no other way to send`);
  }
  return proposed;
};
