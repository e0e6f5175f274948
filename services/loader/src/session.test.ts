import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { OwnershipRegister, Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import type { DirectDestination } from "@godwit/fabric/direct";
import { type GuestSpec, launchTestQemu, openRegistry, qemuIsInstalled, type Registry } from "@godwit/guest";
import { type Failure, OFFER_VERSION, type Offer, type OwnershipRecord } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as References from "effect/References";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { makeDestination } from "./decisions/index.ts";
import { type Session, startSession } from "./session.ts";

const fabric = {
  maxPayloadBytes: 1024 ** 2,
  publish: () => true,
  subscribe: () => Effect.succeed({ takeAll: Effect.never, dropped: () => 0 }),
} as unknown as Fabric["Service"];

const full = (): never => {
  throw Object.assign(new Error("no space left on device, write"), { code: "ENOSPC" });
};

let runtime: string;
beforeEach(() => {
  runtime = mkdtempSync("/dev/shm/godwit-session-");
});
afterEach(() => rmSync(runtime, { recursive: true, force: true }));

const qemuOffer: Offer = {
  version: OFFER_VERSION,
  driver: "qemu",
  machine: "m",
  hypervisor: "h",
  running: true,
  blocks: [],
};
const builtinOffer: Offer = {
  ...qemuOffer,
  driver: "builtin",
  blocks: [{ name: "ram0", "length-bytes": 2 ** 20, "page-size": 4096 }],
};

const withSession = (
  registry: Partial<Registry>,
  offer: Offer,
  use: (session: Session, written: ReadonlyArray<OwnershipRecord>) => Promise<void>,
): Promise<void> => {
  const written: OwnershipRecord[] = [];
  const register: OwnershipRegister = {
    read: () => Effect.succeed("Unknown"),
    write: (_guest, record) => Effect.sync(() => ({ revision: written.push(record) })),
  };
  const destination = makeDestination({
    migration: "0123456789abcdef",
    guest: "vm1",
    node: "b",
    source: "a",
    incarnation: "b".repeat(16),
    epoch: 5,
    authority: { term: 1, coordinator: null },
    offer,
    now: Date.now(),
  });
  // A migration that goes by NATS has no use for it.
  const direct = {} as DirectDestination;
  const settings = { node: "b", runtimeDirectory: runtime, guestDirectory: runtime } as Settings;
  return startSession(destination, { settings, register, registry: registry as Registry, direct }).pipe(
    Effect.flatMap((session) => Effect.promise(() => use(session, written))),
    Effect.scoped,
    Effect.provideService(Fabric, fabric),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.runPromise,
  );
};

describe("a session", () => {
  it("whose step throws fails with that: nobody waits for an answer that never comes", () => {
    const breaking = {
      name: "vm1",
      qmp: "/none",
      get driver(): "qemu" {
        return full();
      },
    } satisfies GuestSpec;
    return withSession({ find: () => breaking }, qemuOffer, async ({ destination }) => {
      await vi.waitFor(() => expect(destination.phase._tag).toBe("Failed"));
      expect(destination.failure).toMatchObject({ code: "no-space", side: "destination", step: "prepare" });
    });
  });

  it("closes the record of a guest that it has started, also when the registry cannot be written", () =>
    withSession({ find: () => null, settle: full }, qemuOffer, async ({ destination, dispatch }, written) => {
      await vi.waitFor(() => expect(destination.phase._tag).toBe("Failed"));
      destination.phase = { _tag: "Starting" };
      destination.failure = null;
      dispatch({ _tag: "Resumed" });
      await vi.waitFor(() => expect(destination.phase._tag).toBe("Running"));
      expect(written).toMatchObject([{ state: "destination", open: false }]);
    }));

  describe("whose guest was started for it and cannot be prepared", () => {
    const failsToPrepare = async (registry: Registry, offer: Offer): Promise<Failure | null> => {
      let failure: Failure | null = null;
      await withSession(registry, offer, async ({ destination }) => {
        await vi.waitFor(() => expect(destination.phase._tag).toBe("Failed"), 20_000);
        failure = destination.failure;
      });
      return failure;
    };
    const watched = (): { readonly registry: Registry; readonly pids: number[] } => {
      const real = openRegistry(runtime);
      const pids: number[] = [];
      const put = (spec: GuestSpec): void => {
        if (spec.driver === "builtin") pids.push(spec.pid);
        real.put(spec);
      };
      return { registry: { ...real, put }, pids };
    };
    const isGone = (pid: number): boolean => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    };

    it("leaves no process of it when both sides differ", async () => {
      const { registry, pids } = watched();
      expect(await failsToPrepare(registry, builtinOffer)).toMatchObject({ code: "incompatible" });
      expect(pids.length).toBeGreaterThan(0);
      await vi.waitFor(() => expect(pids.every(isGone)).toBe(true));
      expect(registry.list()).toEqual([]);
    });

    it("leaves no process of it when the session's file cannot be made", async () => {
      const { registry, pids } = watched();
      writeFileSync(join(runtime, "incoming"), "in the way");
      expect(await failsToPrepare(registry, { ...builtinOffer, machine: "builtin-1" })).toMatchObject({
        code: "internal",
        step: "open the guest's memory",
      });
      await vi.waitFor(() => expect(pids.every(isGone)).toBe(true));
      expect(registry.list()).toEqual([]);
    });

    it("leaves no process of it when it cannot be noted", async () => {
      const { registry, pids } = watched();
      const note = registry.put;
      const put = (spec: GuestSpec): void => {
        note(spec);
        throw new Error("the registry is read-only");
      };
      expect(await failsToPrepare({ ...registry, put }, builtinOffer)).toMatchObject({ reason: /read-only/ });
      await vi.waitFor(() => expect(pids.every(isGone)).toBe(true));
      expect(registry.list()).toEqual([]);
    });

    it.skipIf(!qemuIsInstalled())("has a QEMU quit that godwit has launched", async () => {
      const registry = openRegistry(runtime);
      const launched = Effect.gen(function* () {
        const { spec } = yield* launchTestQemu({
          ...{ name: "vm1", directory: runtime, ramDirectory: runtime, memoryBytes: 2 ** 22 },
          ...{ role: "destination", start: "later", memoryOptions: ["-machine", "pc"] },
        });
        registry.put(spec);
        const failure = yield* Effect.promise(() => failsToPrepare(registry, qemuOffer));
        expect(failure).toMatchObject({ code: "guest-not-movable" });
        expect(existsSync(spec.qmp)).toBe(false);
        expect(registry.find("vm1")).toEqual(spec);
      });
      await Effect.runPromise(Effect.scoped(launched));
    });
  });
});
