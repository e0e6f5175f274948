// Moves a guest to and fro between the two hosts of docker-compose.yml while workers are killed, judges the guest after each migration,
// and prints the tally. Exit code 0 only when nothing happened that must never be.
//   GODWIT_CHAOS_RUNS (50), GODWIT_CHAOS_GUEST (vm1), GODWIT_NATS; the volumes of both hosts below /hosts
import { follow, migrate } from "@godwit/cli/client";
import { type Fabric, NatsFabric } from "@godwit/fabric";
import type { MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { complaintsOf, copiesOf, HOSTS, runningCopies, runtimeOf } from "./guest-copies.ts";
import { countKills, RENEW_MS, renewLease } from "./lease.ts";
import { type Trial, tallyOf, tallyText } from "./tally.ts";

const runs = Number(process.env["GODWIT_CHAOS_RUNS"] ?? 50);
const guest = process.env["GODWIT_CHAOS_GUEST"] ?? "vm1";
const servers = process.env["GODWIT_NATS"] ?? "nats://127.0.0.1:4222";

const CHANNELS = 4;
/** Slow enough for a few kills in each precopy, bytes/s. */
const BANDWIDTH = 64 * 2 ** 20;
/** A migration that has not ended by then is stuck, ms: undisturbed it takes 4 s, and some minutes on a machine with no time for it. */
const STUCK_MS = 300_000;
/** Between two looks whether the guest runs twice, ms. */
const LOOK_MS = 40;
/** How long a guest may take to be found running once after a migration, ms. */
const SETTLE_MS = 30_000;

const say = (text: string): void => void process.stdout.write(`${text}\n`);

/** Looks all the time whether the guest runs twice, not even for an instant may it; `found` gets what was seen. */
const watchTwice = (found: Set<string>): Effect.Effect<never> =>
  Effect.forever(
    Effect.delay(
      Effect.map(runningCopies(guest), (copies) => {
        if (copies.length > 1) found.add(`the guest runs twice: ${copies.map(({ host }) => host).join(" and ")}`);
      }),
      LOOK_MS,
    ),
  );

/** The one copy that runs, as soon as there is just one. */
const onlyCopy = Effect.repeat(Effect.delay(runningCopies(guest), LOOK_MS), {
  until: (copies) => copies.length === 1,
}).pipe(
  Effect.map((copies) => copies[0] ?? null),
  Effect.timeoutOrElse({ duration: SETTLE_MS, orElse: () => Effect.succeed(null) }),
);

const endOf = (info: MigrationInfo): Pick<Trial, "status" | "attempts" | "totalMs" | "downtimeMs" | "error"> => ({
  status: info.status === "completed" || info.status === "cancelled" ? info.status : "failed",
  attempts: info.attempts,
  totalMs: info["total-time"],
  downtimeMs: info.downtime ?? null,
  error: info.error === undefined ? null : `${info.error.code}: ${info.error.reason}`,
});

const unended = (status: "stuck" | "refused", error: string) => ({
  status,
  attempts: 0,
  totalMs: 0,
  downtimeMs: null,
  error,
});

const move = (destination: string) =>
  migrate({
    guest,
    destination,
    parameters: { "multifd-channels": CHANNELS, "max-bandwidth": BANDWIDTH },
    capabilities: {},
  }).pipe(
    Effect.flatMap(({ migration }) => follow(migration, () => {})),
    Effect.map(endOf),
    Effect.timeoutOrElse({
      duration: STUCK_MS,
      orElse: () => Effect.succeed(unended("stuck", `no end within ${STUCK_MS} ms`)),
    }),
    Effect.catch((error) => Effect.succeed(unended("refused", error.message))),
  );

const trial: Effect.Effect<Trial, Error, Fabric> = Effect.gen(function* () {
  const before = yield* onlyCopy;
  if (before === null) {
    const known = copiesOf(guest).map(({ host }) => host);
    return yield* Effect.fail(
      new Error(`guest ${guest} does not run just once; hosts that know it: ${known.join(", ") || "none"}`),
    );
  }
  const destination = HOSTS.find((host) => host !== before.host) ?? "b";
  const twice = new Set<string>();
  const end = yield* Effect.raceFirst(move(destination), watchTwice(twice));
  const after = yield* onlyCopy;
  const violations = [...twice];
  if (end.status === "stuck") violations.push(end.error ?? "stuck");
  if (after === null) violations.push(`the guest does not run just once within ${SETTLE_MS} ms after it`);
  else {
    const expected = end.status === "completed" ? destination : before.host;
    if (end.status !== "stuck" && after.host !== expected)
      violations.push(`it ended as ${end.status}, and the guest runs at host ${after.host}`);
    violations.push(...(yield* complaintsOf(after)));
  }
  return { ...end, violations };
});

const main = Effect.gen(function* () {
  const renewing = setInterval(() => {
    for (const host of HOSTS) renewLease(runtimeOf(host));
  }, RENEW_MS);
  yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(renewing)));
  const kills = (): number => HOSTS.reduce((sum, host) => sum + countKills(runtimeOf(host)), 0);
  const killsBefore = kills();
  const trials: Array<Trial> = [];
  const tallied = () => tallyOf(trials, kills() - killsBefore);
  // Who ends it early wants to know what it has found so far.
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      say(`\nended by ${signal}\n${tallyText(tallied())}`);
      process.exit(1);
    });
  }
  for (let run = 1; run <= runs; run++) {
    const done = yield* trial;
    trials.push(done);
    const how = done.error === null ? done.status : `${done.status} (${done.error})`;
    say(
      `${run}/${runs}: ${how}, ${Math.round(done.totalMs)} ms, downtime ${done.downtimeMs ?? "-"} ms, attempts ${done.attempts}`,
    );
    for (const violation of done.violations) say(`  VIOLATION ${violation}`);
    // It is still there: whatever is asked for next would be refused.
    if (done.status === "stuck") break;
  }
  const tally = tallied();
  say(`\n${tallyText(tally)}`);
  return tally.violations.length === 0 && tally.completed > 0 && tally["workers-killed"] > 0;
});

const passed = await Effect.runPromise(
  main.pipe(Effect.scoped, Effect.provide(NatsFabric.layer({ servers, name: "godwit chaos" }))),
);
process.exit(passed ? 0 : 1);
