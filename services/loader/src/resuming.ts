/** Which sessions of a former life of this loader can go on: those whose guest is still there and still takes what comes. */
import type { Settings } from "@godwit/actor";
import { type GuestSpec, openGuest, type Registry } from "@godwit/guest";
import * as Effect from "effect/Effect";
import { type Destination, makeDestination } from "./decisions/index.ts";
import { isSameMemory, memoryOf } from "./guest-memory.ts";
import { leftSessions, removeSession, type SessionFacts } from "./session-file.ts";

/** A guest that does not answer by then is no ground to go on, ms; meanwhile nobody else is served. */
const ANSWER_MS = 2000;
/** One that may run already, without all of its memory, has nobody else to bring it, ms: QEMU's main loop, too, may be waiting for a slow disk. */
const POSTCOPY_ANSWER_MS = 10_000;

/**
 * `arriving` and paused: its device state is loaded, and the commit is not known to have been won; running, it waits for pages. In
 * other memory nothing is where it was.
 */
const mayGoOn = (spec: GuestSpec | null, { memory, capabilities }: SessionFacts): Effect.Effect<boolean> =>
  spec === null || spec.moving !== "arriving"
    ? Effect.succeed(false)
    : Effect.scoped(Effect.flatMap(openGuest(spec), (guest) => guest.describe)).pipe(
        Effect.timeout(capabilities["postcopy-ram"] === true ? POSTCOPY_ANSWER_MS : ANSWER_MS),
        Effect.flatMap((found) =>
          Effect.try(
            () =>
              (found.runState === "incoming" ||
                found.runState === "paused" ||
                (found.runState === "running" && found.pagesMissing === true)) &&
              isSameMemory(memory, memoryOf(found)),
          ),
        ),
        Effect.catch(() => Effect.succeed(false)),
      );

const goOn = (settings: Settings, facts: SessionFacts): Destination =>
  makeDestination({
    migration: facts.migration,
    guest: facts.guest,
    node: settings.node,
    source: facts.source,
    incarnation: facts.incarnation,
    epoch: facts.epoch,
    authority: { term: facts.term, coordinator: null },
    offer: facts.offer,
    parameters: facts.parameters,
    capabilities: facts.capabilities,
    life: facts.life + 1,
    now: Date.now(),
  });

/** What no session goes on with is removed: an attempt that asks for it begins anew. */
export const resumable = Effect.fnUntraced(function* (settings: Settings, registry: Registry) {
  const destinations: Destination[] = [];
  for (const facts of leftSessions(settings.runtimeDirectory)) {
    if (yield* mayGoOn(registry.find(facts.guest), facts)) destinations.push(goOn(settings, facts));
    else {
      removeSession(settings.runtimeDirectory, facts);
      yield* Effect.logInfo(
        `migration ${facts.migration}, epoch ${facts.epoch}, cannot go on: its guest is gone, or another one`,
      );
    }
  }
  return destinations;
});
