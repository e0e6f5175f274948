import { mkdtempSync, rmSync } from "node:fs";
import type { OwnershipRegister, Settings } from "@godwit/actor";
import { Fabric } from "@godwit/fabric";
import type { GuestSpec, Registry } from "@godwit/guest";
import * as Effect from "effect/Effect";
import * as References from "effect/References";
import { expect, it, vi } from "vitest";
import { makeAgreements } from "./agreements.ts";
import { make } from "./decisions/source-watch.conformance.ts";
import { startSession } from "./session.ts";

const fabric = {
  publish: () => true,
  subscribe: () => Effect.succeed({ takeAll: Effect.never, dropped: () => 0 }),
} as unknown as Fabric["Service"];
const register = { read: () => Effect.succeed("Unknown") } as unknown as OwnershipRegister;
const breaking = {
  name: "vm1",
  qmp: "/none",
  get driver(): "qemu" {
    throw Object.assign(new Error("no space left on device, write"), { code: "ENOSPC" });
  },
} satisfies GuestSpec;

it("a session whose step throws fails with that: nobody waits for an answer that never comes", () => {
  const runtimeDirectory = mkdtempSync("/dev/shm/godwit-session-");
  const settings = { node: "a", runtimeDirectory } as Settings;
  const tools = {
    settings,
    agreements: makeAgreements(settings),
    register,
    registry: { find: () => breaking } as unknown as Registry,
  };
  return startSession(make(), tools).pipe(
    Effect.flatMap(({ source }) =>
      Effect.promise(async () => {
        await vi.waitFor(() => expect(source.phase._tag).toBe("Ended"));
        expect(source.failure).toMatchObject({ code: "no-space", side: "source", step: "describe" });
      }),
    ),
    Effect.scoped,
    Effect.provideService(Fabric, fabric),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.ensuring(Effect.sync(() => rmSync(runtimeDirectory, { recursive: true }))),
    Effect.runPromise,
  );
});
