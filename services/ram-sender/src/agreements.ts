/** The keys that this RAM sender has agreed on with the loaders of its guests' destinations (capability `encryption`). */
import { identityOf, type Settings } from "@godwit/actor";
import {
  answerKey,
  isNotIdentified,
  removeSourceSealings,
  type Sealing,
  sourceSealing,
  UNSEALED,
  writeSealing,
} from "@godwit/encryption";
import { GodwitError, type KeyAnswer, type KeyRequest } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Source } from "./decisions/index.ts";

interface Agreed {
  readonly publicKey: string;
  readonly answer: KeyAnswer;
  readonly key: Uint8Array;
}

export interface Agreements {
  /**
   * Fails where something is to be sealed and there are no credentials to agree with, and where nothing is and this host lets no guest
   * leave so: that word is the host's own, so nobody can change it on its way.
   */
  readonly mayLeave: (source: Source) => Effect.Effect<void, GodwitError>;
  /** Answers the loader of the node that the guest shall go to, which must be identified as that. */
  readonly answer: (source: Source | undefined, request: KeyRequest) => Effect.Effect<KeyAnswer, GodwitError>;
  /** Tells the workers of this host how the attempt's packets are sealed: from here on they may send. Throws when no key was agreed on, and what the file system throws. */
  readonly tellWorkers: (source: Source) => void;
  /** The attempt is over. */
  readonly forget: (source: Source) => void;
}

const failure = (code: "wrong-state" | "not-identified" | "encryption-required", reason: string): GodwitError =>
  new GodwitError({ code, actor: "ram-sender", side: "source", step: "agree on a key", reason });

const isSealed = ({ capabilities }: Source): boolean => capabilities.encryption;

export const makeAgreements = (settings: Settings): Agreements => {
  /** They go with the attempt. */
  const agreements = new WeakMap<Source, Agreed>();
  const me = identityOf(settings, "ram-sender", "source");
  const pathOf = ({ migration, epoch }: Source): string => sourceSealing(settings.runtimeDirectory, migration, epoch);

  const answer: Agreements["answer"] = Effect.fnUntraced(function* (source, request) {
    const { migration, epoch, destination } = request;
    if (source === undefined || source.epoch !== epoch || !isSealed(source))
      return yield* failure(
        "wrong-state",
        `migration ${migration}, epoch ${epoch}, is none that seals its packets here`,
      );
    if (destination !== source.route.destination)
      return yield* failure(
        "not-identified",
        `migration ${migration} does not go to node ${destination}, which asks for its key`,
      );
    const identity = yield* me;
    const agreed = agreements.get(source);
    // Its answer was lost.
    if (agreed?.publicKey === request["public-key"]) return agreed.answer;
    // A loader that was restarted may ask with another key, but not once packets travel under the first.
    if (source.phase._tag !== "Claimed")
      return yield* failure(
        "wrong-state",
        `migration ${migration}, epoch ${epoch}, is under way: its key is agreed on`,
      );
    const made = answerKey({ ...source.route, epoch }, request, identity, Date.now());
    if (isNotIdentified(made)) {
      const reason = `who asks for a key for the loader of node ${destination} is not that: ${made.notIdentified}`;
      return yield* failure("not-identified", reason);
    }
    agreements.set(source, { publicKey: request["public-key"], ...made });
    return made.answer;
  });

  const sealingOf = (source: Source): Sealing => {
    if (!isSealed(source)) return UNSEALED;
    const agreed = agreements.get(source);
    if (agreed !== undefined) return { cipher: "aes-256-gcm", key: agreed.key };
    throw failure("not-identified", `the loader of node ${source.route.destination} has agreed on no key`);
  };

  return {
    mayLeave: (source) => {
      if (isSealed(source)) return Effect.asVoid(me);
      if (settings.requireEncryption !== true) return Effect.void;
      const reason = `node ${settings.node} lets no guest leave without capability encryption`;
      return Effect.fail(failure("encryption-required", reason));
    },
    answer,
    tellWorkers: (source) => writeSealing(pathOf(source), sealingOf(source)),
    forget: ({ migration, epoch }) => {
      try {
        removeSourceSealings(settings.runtimeDirectory, migration, epoch);
      } catch {
        // What stays is for this user's eyes only, and opens nothing that is still to come; the next life removes it.
      }
    },
  };
};
