import { readFile } from "node:fs/promises";
import { type Identity, isNotIdentified, parseIdentity } from "@godwit/encryption";
import { credentialsFile } from "@godwit/fabric";
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import type { Settings } from "./settings.ts";

/** Who this actor is, as its credentials file says now: they may have been renewed since it started. Fails with `no-identity`. */
export const identityOf = (
  { creds, node }: Pick<Settings, "creds" | "node">,
  role: string,
  side: "source" | "destination",
): Effect.Effect<Identity, GodwitError> => {
  const none = (reason: string): GodwitError =>
    new GodwitError({
      code: "no-identity",
      actor: role,
      side,
      step: "prove who this actor is",
      reason: `encryption needs an identity: ${reason}`,
    });
  if (creds === undefined)
    return Effect.fail(none(`the ${role} of node ${node} has no credentials, so nobody could tell it from a stranger`));
  const file = credentialsFile(creds, role);
  return Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) => none(`${file} cannot be read: ${cause instanceof Error ? cause.message : cause}`),
  }).pipe(
    Effect.flatMap((text) => {
      const found = parseIdentity(text, role, node, Date.now());
      return isNotIdentified(found) ? Effect.fail(none(`${file}: ${found.notIdentified}`)) : Effect.succeed(found);
    }),
  );
};
