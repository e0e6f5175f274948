import { mkdtempSync, rmSync } from "node:fs";
import { Fabric, NatsFabric, setUpBuckets } from "@godwit/fabric";
import { type LocalNats, startNats } from "@godwit/fabric/local-nats";
import { SimFabric, simulate } from "@godwit/fabric/simulated";
import { QUIET, SimNetwork, STORMY } from "@godwit/fabric/simulation";
import { BUCKETS, OWNERSHIP_BUCKET, type OwnershipRecord, type SettlementNext, settle } from "@godwit/protocol";
import * as Cause from "effect/Cause";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as References from "effect/References";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type OwnershipRegister, openOwnershipRegister } from "./ownership-register.ts";

const SEEDS = 150;
const WRITERS = ["w0", "w1", "w2"];

const record = (op: string, epoch = 1): OwnershipRecord =>
  ({
    state: "source",
    epoch,
    op,
    migration: "0".repeat(16),
    node: "a",
    open: true,
    wasRunning: true,
  }) as OwnershipRecord;
const quietly = <A, E>(program: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.provideService(program, References.MinimumLogLevel, "None");

describe("the ownership register on a real server", () => {
  let server: LocalNats;
  let directory: string;
  beforeAll(async () => {
    directory = mkdtempSync("/tmp/godwit-register-");
    server = await startNats({ storeDir: directory });
    await Effect.runPromise(setUpBuckets({ servers: server.url, name: "register test" }, BUCKETS));
  });
  afterAll(async () => {
    await server.stop();
    rmSync(directory, { recursive: true, force: true });
  });
  const onNats = <A, E>(program: Effect.Effect<A, E, Fabric>): Promise<A> =>
    Effect.runPromise(
      quietly(program.pipe(Effect.provide(NatsFabric.layer({ servers: server.url, name: "register test" })))),
    );

  it("gives back what was written, with the revision to go on from, and knows nothing of a guest that was never claimed", () =>
    onNats(
      Effect.gen(function* () {
        const register = yield* openOwnershipRegister;
        expect(yield* register.read("nobody")).toBeNull();
        const first = yield* register.write("vm1", record("one"), 0);
        if (typeof first === "string") return expect.unreachable(first);
        expect(yield* register.read("vm1")).toEqual({ record: record("one"), revision: first.revision });
        const second = yield* register.write("vm1", record("two", 2), first.revision);
        expect(second).toMatchObject({ revision: expect.any(Number) });
        expect(yield* register.read("vm2")).toBeNull();
      }),
    ));

  it("refuses a write that names another revision than the last, or creates what is there", () =>
    onNats(
      Effect.gen(function* () {
        const register = yield* openOwnershipRegister;
        const first = yield* register.write("vm3", record("one"), 0);
        if (typeof first === "string") return expect.unreachable(first);
        expect(yield* register.write("vm3", record("again"), 0)).toBe("Lost");
        const second = yield* register.write("vm3", record("two", 2), first.revision);
        if (typeof second === "string") return expect.unreachable(second);
        expect(yield* register.write("vm3", record("late", 3), first.revision)).toBe("Lost");
        expect(yield* register.read("vm3")).toEqual({ record: record("two", 2), revision: second.revision });
      }),
    ));

  it("does not know what a malformed record says: nobody may act on it", () =>
    onNats(
      Effect.gen(function* () {
        const bucket = yield* (yield* Fabric).bucket(OWNERSHIP_BUCKET);
        const register = yield* openOwnershipRegister;
        const { epoch: _, ...without } = record("one");
        for (const [index, text] of ["", "{}", "null", JSON.stringify(without), '{"state":"gone"}'].entries()) {
          yield* bucket.compareAndSet(`odd${index}`, new TextEncoder().encode(text), 0);
          expect(yield* register.read(`odd${index}`), text).toBe("Unknown");
        }
      }),
    ));
});

/** Writes until it is known whether it was won, as an actor does. */
const settled = Effect.fnUntraced(function* (
  register: OwnershipRegister,
  guest: string,
  mine: OwnershipRecord,
  revision: number,
) {
  let next: SettlementNext = { _tag: "Write", after: "at once" };
  while (next._tag === "Write" || next._tag === "Read") {
    if (next.after === "a pause") yield* Effect.sleep(50);
    const { op } = mine;
    next =
      next._tag === "Write"
        ? settle(
            { record: mine, revision },
            { _tag: "Written", op, outcome: yield* register.write(guest, mine, revision) },
          )
        : settle({ record: mine, revision }, { _tag: "Read", op, entry: yield* register.read(guest) });
  }
  return next;
});

describe("the ownership register while answers are lost, writes land late and reads are stale", () => {
  it(`lets exactly one of ${WRITERS.length} writers win each revision, who knows it, in ${SEEDS} seeds`, () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const network = new SimNetwork({ seed });
      network.faults = {
        ...QUIET,
        register: { ...STORMY.register, lostAnswerRate: 0.3, lateWriteRate: 0.3, staleReadRate: 0.3 },
      };
      const race = (writer: string) =>
        Effect.gen(function* () {
          const register = yield* openOwnershipRegister;
          return yield* settled(register, "vm1", record(writer), 0);
        }).pipe(Effect.provide(SimFabric.layer(network, writer)));
      const exit = simulate(network, quietly(Effect.all(WRITERS.map(race), { concurrency: "unbounded" })));
      if (Exit.isFailure(exit)) throw Cause.squash(exit.cause);
      const winners = WRITERS.filter((_, index) => exit.value[index]?._tag === "Won");
      const truth = network.register(OWNERSHIP_BUCKET).truth("vm1");
      const kept = JSON.parse(new TextDecoder().decode(truth?.value as Uint8Array)) as OwnershipRecord;
      expect(winners, `seed ${seed}`).toEqual([kept.op]);
      for (const [index, outcome] of exit.value.entries())
        if (outcome._tag === "Lost") expect(outcome.to.record.op, `seed ${seed}, ${WRITERS[index]}`).toBe(kept.op);
    }
  });
});
