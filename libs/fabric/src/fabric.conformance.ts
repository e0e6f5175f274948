import type * as Context from "effect/Context";
import type * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { afterAll, beforeAll, describe } from "vitest";
import { bucketConformance } from "./conformance/bucket.ts";
import { messageConformance } from "./conformance/messages.ts";
import { presenceConformance } from "./conformance/presence.ts";
import { requestConformance } from "./conformance/requests.ts";
import type { FabricError } from "./errors.ts";
import type { Fabric, Member } from "./fabric.ts";

export type FabricShape = Context.Service.Shape<typeof Fabric>;

/** A process of its own that has announced a member. */
export interface OtherProcess {
  /** Dies without a goodbye. */
  readonly crash: Effect.Effect<void>;
  /** Stands still, and keeps its memory. */
  readonly pause: Effect.Effect<void>;
  readonly resume: Effect.Effect<void>;
}

/** One network, and a way to run programs in its time. */
export interface FabricWorld {
  readonly run: <A, E>(program: Effect.Effect<A, E, Scope.Scope>) => Promise<A>;
  /** Another actor joins, until the scope ends. */
  readonly join: (actor: string) => Effect.Effect<FabricShape, FabricError, Scope.Scope>;
  readonly announceElsewhere: (member: Member) => Effect.Effect<OtherProcess, FabricError, Scope.Scope>;
  /** What its clock may add to a promised time, ms: nothing when it is virtual. */
  readonly slackMs: number;
  readonly close: () => Promise<void>;
}

/** The world of the test that runs now. */
export type CurrentWorld = () => FabricWorld;

/** What every `Fabric` does, whatever carries its messages. */
export function fabricConformance(name: string, open: () => Promise<FabricWorld>): void {
  describe(`Fabric on ${name}`, () => {
    let world: FabricWorld | undefined;
    beforeAll(async () => {
      world = await open();
    });
    afterAll(() => world?.close());
    const current: CurrentWorld = () => {
      if (world === undefined) throw new Error("the world is not open");
      return world;
    };
    messageConformance(current);
    requestConformance(current);
    bucketConformance(current);
    presenceConformance(current);
  });
}
