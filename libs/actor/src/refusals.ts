/** Commands that do not count, since they are not this migration's own coordinator's: told to who said them, and once to the log. */
import { GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";

/** A coordinator that woke up late says its command again and again: the log shows each reason when it is another than the last. */
export const makeRefusals = (actor: string): ((reason: string) => Effect.Effect<never, GodwitError>) => {
  let told = "";
  return (reason) =>
    Effect.suspend(() => {
      const isNews = reason !== told;
      told = reason;
      const refusal = Effect.fail(new GodwitError({ code: "fenced", actor, step: "take a command", reason }));
      return isNews ? Effect.andThen(Effect.logWarning(`a command was refused: ${reason}`), refusal) : refusal;
    });
};
