/** All commands. Each is loaded when it is used: the list of them must not cost what all of them cost. */
import type { Command } from "../arguments/command.ts";

export interface Entry {
  readonly summary: string;
  readonly load: () => Promise<Command>;
}

export const CATALOGUE: Readonly<Record<string, Entry>> = {
  demo: {
    summary: "move a guest between two nodes on this machine, and let it check its memory",
    load: async () => (await import("./demo.ts")).demo,
  },
  "demo-qemu": {
    summary: "the same with two real QEMUs (software emulation)",
    load: async () => (await import("./demo-qemu.ts")).demoQemu,
  },
  up: {
    summary: "try it on one machine: NATS, coordinator, nodes a and b, a builtin guest; until Ctrl-C",
    load: async () => (await import("./up.ts")).up,
  },
  node: {
    summary: "the actors of one host, and the guests on it; until Ctrl-C",
    load: async () => (await import("./node.ts")).node,
  },
  register: {
    summary: "tell a node that runs of further guests: QEMUs of this host",
    load: async () => (await import("./register.ts")).register,
  },
  unregister: {
    summary: "let a node forget guests; nothing happens to them",
    load: async () => (await import("./unregister.ts")).unregister,
  },
  idle: {
    summary: "wait until this host has no migration, save or restore in hand",
    load: async () => (await import("./idle.ts")).idle,
  },
  coordinator: {
    summary: "decides when migrations switch over; until Ctrl-C",
    load: async () => (await import("./coordinator.ts")).coordinator,
  },
  actor: {
    summary: "one actor, in this process, for container engines; until SIGTERM",
    load: async () => (await import("./actor.ts")).actor,
  },
  health: {
    summary: "whether an actor of this host can do its job",
    load: async () => (await import("./health.ts")).health,
  },
  migrate: {
    summary: "move a guest to another node",
    load: async () => (await import("./migrate.ts")).migrateCommand,
  },
  status: {
    summary: "how a migration stands: query-migrate's fields",
    load: async () => (await import("./status.ts")).status,
  },
  watch: {
    summary: "follow a migration to its end",
    load: async () => (await import("./watch.ts")).watch,
  },
  cancel: {
    summary: "end a migration; the guest goes on at its source",
    load: async () => (await import("./cancel.ts")).cancelCommand,
  },
  continue: {
    summary: "go on from pre-switchover",
    load: async () => (await import("./continue.ts")).continueCommand,
  },
  "start-postcopy": {
    summary: "let the guest run at the destination now, and its memory follow",
    load: async () => (await import("./start-postcopy.ts")).startPostcopyCommand,
  },
  pause: {
    summary: "fetch no further pages of a postcopy; the guest waits for those it touches",
    load: async () => (await import("./pause.ts")).pauseCommand,
  },
  recover: {
    summary: "go on with a postcopy that is paused",
    load: async () => (await import("./recover.ts")).recoverCommand,
  },
  "give-up": {
    summary: "say that a guest in postcopy is lost with one of its hosts, and end its migration",
    load: async () => (await import("./give-up.ts")).giveUpCommand,
  },
  save: {
    summary: "write a guest into a checkpoint while it runs",
    load: async () => (await import("./save.ts")).saveCommand,
  },
  restore: {
    summary: "start a guest from a checkpoint",
    load: async () => (await import("./restore.ts")).restoreCommand,
  },
  inspect: {
    summary: "what a checkpoint holds, and whether it is whole",
    load: async () => (await import("./inspect.ts")).inspect,
  },
  set: {
    summary: "change parameters of a running migration",
    load: async () => (await import("./set.ts")).set,
  },
  guests: {
    summary: "the guests that nodes have",
    load: async () => (await import("./guests.ts")).guests,
  },
  nodes: {
    summary: "the nodes that are up",
    load: async () => (await import("./nodes.ts")).nodesCommand,
  },
  credentials: {
    summary: "make the NATS users, least permissions each, and the certificates; add a node, revoke one",
    load: async () => (await import("./credentials.ts")).credentials,
  },
  "setup-nats": {
    summary: "make or correct the buckets in NATS, once, as its admin",
    load: async () => (await import("./setup-nats.ts")).setupNats,
  },
  doctor: {
    summary: "what this host's kernel, NATS and QEMU offer",
    load: async () => (await import("./doctor.ts")).doctor,
  },
};
