/** What runs on the kernel that has VFIO devices: the contract of every provider, kept by its own mtty, however it is opened, and by the tests' notebook. */
import { type KernelDevice, openKernelDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import type { ConformanceCase, DevicePair } from "../../../libs/vfio/src/conformance/facts.ts";
import { type Lender, startLender } from "./lender.ts";
import { type Mediated, type MediatedKind, makeMediated } from "./mediated-devices.ts";
import { type Cargo, migrate } from "./migration.ts";
import { MTTY_CASES, UARTS } from "./mtty.ts";
import { fillNotebook, inNotebooks, isBelievedToLog, isKnownToBeMute, largeCargo, NOTEBOOK_CASES } from "./notebook.ts";

type PathOf = (device: Mediated) => Effect.Effect<string, unknown, Scope.Scope>;

/** What a test's name must have in it; empty: every test. */
const ONLY = process.env["ONLY"] ?? "";

/** Taken away with the scope. */
const make = (kind: MediatedKind) =>
  Effect.acquireRelease(
    Effect.sync(() => makeMediated(kind)),
    ({ remove }) => Effect.sync(remove),
  );

/** Two that can be opened again and again; `fill` writes into the first what is worth moving. */
const pairOf = (kind: MediatedKind, pathOf: PathOf, fill: (device: KernelDevice) => void = () => {}) =>
  Effect.gen(function* () {
    const openable = Effect.fnUntraced(function* (name: string) {
      const device = yield* pathOf(yield* make(kind));
      return openKernelDevice({ name, device });
    });
    const source = yield* openable("source");
    yield* Effect.scoped(Effect.map(source, fill));
    return { source, destination: yield* openable("destination") } satisfies DevicePair;
  });

const byCharacter: PathOf = ({ character }) => Effect.succeed(character);
const byGroup: PathOf = ({ group }) => Effect.succeed(group);
const borrowedFrom =
  ({ lend }: Lender): PathOf =>
  ({ character }) =>
    lend(character);

const move = (kind: MediatedKind, from: PathOf, to: PathOf, cargo: Cargo): Promise<void> =>
  Effect.gen(function* () {
    const [here, there] = [yield* from(yield* make(kind)), yield* to(yield* make(kind))];
    yield* Effect.promise(() => migrate(here, there, cargo));
  }).pipe(Effect.scoped, Effect.runPromise);

const counts = { passed: 0, failed: 0 };
const test = async (name: string, run: () => Promise<unknown>): Promise<void> => {
  if (!name.includes(ONLY)) return;
  const startedAt = performance.now();
  const error = await run().then(
    () => null,
    (cause) => cause ?? new Error("failed without a reason"),
  );
  counts[error === null ? "passed" : "failed"]++;
  const word = error === null ? "ok" : "not ok";
  process.stdout.write(`${word} - ${name} (${Math.round(performance.now() - startedAt)} ms)\n`);
  if (error === null) return;
  const text = String(error.stack ?? error).slice(0, 1500);
  process.stdout.write(`    ${text.replaceAll("\n", "\n    ")}\n`);
};

const testCases = async (
  device: string,
  pair: Effect.Effect<DevicePair, unknown, Scope.Scope>,
  cases: ReadonlyArray<ConformanceCase>,
): Promise<void> => {
  for (const { name, run } of cases)
    await test(`${device}: ${name}`, () => Effect.runPromise(Effect.scoped(Effect.flatMap(pair, run))));
};

const lender = startLender();
const borrowed = borrowedFrom(lender);

await test("an mtty moves from one VFIO agent to another, over NATS", () =>
  move("mtty/mtty-2", byCharacter, byGroup, UARTS));
await test("an mtty that other processes hold moves from one VFIO agent to another", () =>
  move("mtty/mtty-2", borrowed, borrowed, UARTS));
await test("a large notebook that other processes hold, and write to, moves from one VFIO agent to another", () =>
  move("notebook/notebook-large", borrowed, borrowed, largeCargo()));

await testCases("mtty, opened by its character device", pairOf("mtty/mtty-2", byCharacter), MTTY_CASES);
await testCases("mtty, opened by its group", pairOf("mtty/mtty-2", byGroup), MTTY_CASES);
await testCases("mtty, borrowed from a process", pairOf("mtty/mtty-2", borrowed), MTTY_CASES);

const notebooks = pairOf("notebook/notebook-small", byCharacter, ({ descriptor }) => fillNotebook(descriptor));
await testCases(
  "notebook",
  Effect.map(notebooks, (pair) => ({ ...pair, ...inNotebooks })),
  NOTEBOOK_CASES,
);
await testCases("mute notebook", pairOf("notebook/notebook-mute", byCharacter), [isKnownToBeMute]);
await testCases("mute notebook, borrowed from a process", pairOf("notebook/notebook-mute", borrowed), [
  isBelievedToLog,
]);

lender.stop();
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed\n`);
// None at all is a mistyped word, not a success.
process.exit(counts.failed === 0 && counts.passed > 0 ? 0 : 1);
