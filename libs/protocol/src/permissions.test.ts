import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CENTRAL_ROLES,
  type Identity,
  inboxPrefixOf,
  NODE_ROLES,
  type NodeRole,
  permissionsOf,
  userOf,
} from "./permissions.ts";
import { subjects } from "./subjects.ts";

/** Whether the pattern covers the subject, as NATS sees it. */
const covers = (pattern: string, subject: string): boolean => {
  const wanted = pattern.split(".");
  const tokens = subject.split(".");
  for (let i = 0; i < wanted.length; i++) {
    if (wanted[i] === ">") return tokens.length > i;
    if (tokens[i] === undefined || (wanted[i] !== "*" && wanted[i] !== tokens[i])) return false;
  }
  return wanted.length === tokens.length;
};
const may = (identity: Identity, verb: "publish" | "subscribe", subject: string): boolean =>
  permissionsOf(identity)[verb].some((pattern) => covers(pattern, subject));

const name = fc.stringMatching(/^[A-Za-z0-9_-]{1,64}$/);
const everybody = (node: string): ReadonlyArray<Identity> => [
  ...NODE_ROLES.map((role) => ({ role, node })),
  ...CENTRAL_ROLES.map((role) => ({ role })),
];

describe("permissions", () => {
  it("name subjects that NATS takes, once each, and never everything", () => {
    for (const identity of everybody("a")) {
      const { publish, subscribe } = permissionsOf(identity, { objectStores: ["checkpoints"] });
      for (const list of [publish, subscribe]) {
        expect(new Set(list).size).toBe(list.length);
        for (const pattern of list) {
          expect(pattern).toMatch(/^(\$?[A-Za-z0-9_-]+)(\.([A-Za-z0-9_-]+|\*))*(\.>)?$/);
          // What ends openly names at least whose subjects they are, and what for.
          if (identity.role !== "admin" && pattern.endsWith(">"))
            expect(pattern.split(".").length, pattern).toBeGreaterThan(2);
        }
      }
    }
  });

  it("of a worker end at its channels: it sends what it is asked for, asks for connections, refuses, and answers for checkpoints", () => {
    expect([...permissionsOf({ role: "multifd-worker", node: "a" }).publish].sort()).toEqual([
      "godwit.m.*.a.*.ch.*",
      "godwit.m.*.a.*.dev-direct",
      "godwit.m.*.a.*.dev-refused",
      "godwit.m.*.a.*.dev.*",
      "godwit.m.*.a.*.direct",
      "godwit.m.*.a.*.refused",
      "godwit.m.*.a.*.urgent",
      "godwit.node.a.file.*",
      "godwit.presence.member.multifd-worker.a.*",
    ]);
    expect(permissionsOf({ role: "multifd-worker", node: "a" }).responses).toBeUndefined();
  });

  it("let nobody but a coordinator command, and nobody but the destination acknowledge", () => {
    fc.assert(
      fc.property(name, name, name, (node, source, destination) => {
        const route = { migration: "0".repeat(16), source, destination };
        for (const identity of everybody(node)) {
          const isCoordinator = identity.role === "coordinator";
          expect(may(identity, "publish", subjects.source(source))).toBe(isCoordinator);
          expect(may(identity, "publish", subjects.destination(destination))).toBe(isCoordinator);
          const isLoader = identity.role === "loader" && destination === node;
          expect(may(identity, "publish", subjects.acknowledgement(route))).toBe(isLoader);
        }
      }),
    );
  });

  it("keep a node's users to migrations that begin or end there: of others they hear and say nothing", () => {
    fc.assert(
      fc.property(name, name, name, (node, source, destination) => {
        if (node === source || node === destination) return;
        const route = { migration: "0".repeat(16), source, destination };
        const all = [
          ...[subjects.channel(route, 0), subjects.urgent(route), subjects.deviceChannel(route, 0)],
          ...[subjects.acknowledgement(route), subjects.deviceAcknowledgement(route), subjects.refusal(route)],
          ...[subjects.deviceRefusal(route), subjects.switching(route), subjects.event(route)],
          ...[subjects.sourceReport(route), subjects.destinationReport(route), subjects.saveReport(route)],
          ...[subjects.loadReport(route), subjects.work(source, "0", destination)],
          ...[subjects.urgentWork(source, "0", destination), subjects.missingPages(source, destination)],
          subjects.keyAgreement(source, destination),
          ...[subjects.vfio(source), subjects.fileWork(source, "0"), subjects.fileAnswer(source, "x")],
        ];
        for (const role of NODE_ROLES)
          for (const subject of all)
            for (const verb of ["publish", "subscribe"] as const)
              expect(may({ role, node }, verb, subject), `${role} ${verb} ${subject}`).toBe(false);
      }),
    );
  });

  it("give every user inboxes of its own, which no other's cover", () => {
    const users = [...everybody("a"), ...everybody("a-b").slice(0, NODE_ROLES.length)];
    for (const one of users)
      for (const other of users)
        expect(may(one, "subscribe", `${inboxPrefixOf(other)}.x.1`), `${userOf(one)} ${userOf(other)}`).toBe(
          userOf(one) === userOf(other),
        );
  });

  it("open an object store to who saves and who restores, and to nobody else", () => {
    const opened = NODE_ROLES.filter((role: NodeRole) =>
      permissionsOf({ role, node: "a" }, { objectStores: ["checkpoints"] }).publish.includes("$O.checkpoints.>"),
    );
    expect(opened).toEqual(["ram-sender", "loader"]);
    expect(may({ role: "loader", node: "a" }, "publish", "$O.checkpoints.C.x")).toBe(false);
  });
});
