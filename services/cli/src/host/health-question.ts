/** Asks an actor of this host how it is, on its health socket. */
import { connect } from "node:net";
import type { HealthReport } from "@godwit/protocol/health";

/** How long an answer may take, ms: an actor looks at what it needs for up to 3 s. */
const ANSWER_MS = 5_000;
/** The longest answer, characters: a dozen findings with a sentence each. */
const ANSWER_LENGTH_MAX = 65_536;

/** Rejects with an Error whose message says why there is no answer. */
export const askHealth = (path: string): Promise<HealthReport> =>
  new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = "";
    socket.setEncoding("utf8");
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error(`no answer within ${ANSWER_MS} ms`)));
    socket.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > ANSWER_LENGTH_MAX) socket.destroy(new Error("its answer has no end"));
    });
    socket.on("error", reject);
    socket.on("close", () => {
      // Half an answer is none (R8).
      if (!text.endsWith("\n")) return reject(new Error("it broke off"));
      try {
        resolve(JSON.parse(text));
      } catch {
        reject(new Error(`it answered ${JSON.stringify(text.slice(0, 80))}`));
      }
    });
  });
