/** `godwit health`. It may be run every few seconds for each actor, so what it imports is little: 0.1 s of CPU instead of 0.8. */
import { defaultRuntimeDirectory } from "@godwit/actor/directories";
import { type HealthReport, healthSocket } from "@godwit/protocol/health";
import { command } from "../arguments/command.ts";
import { text, textOr } from "../arguments/option.ts";
import { askHealth } from "../host/health-question.ts";
import { hostOptions, nodeOfHost } from "../host/host-options.ts";
import { readRole } from "../host/roles.ts";
import { errorText } from "../reporting/error-text.ts";
import type { Report } from "../reporting/report.ts";

export const health = command({
  operands: { usage: "ROLE", min: 1, max: 1 },
  options: {
    node: text("NAME", "the host that it acts for (default: this host's name)"),
    id: textOr("N", "0", "a multifd worker's number within its node's pool", { variable: "GODWIT_WORKER" }),
    "runtime-dir": hostOptions["runtime-dir"],
  },
  notes:
    () => `Exit code 0 only when this very actor answers, and says that it has a connection to NATS and all else that its job needs. The options
are those that the actor was started with. The actor asks NATS itself; this command needs neither NATS nor credentials.
`,
  run: ({ values, operands }, report) => {
    const role = readRole(operands[0]);
    const node = values.node ?? nodeOfHost();
    const who = `${role}${role === "multifd-worker" ? ` ${values.id}` : ""} of node ${node}`;
    const path = healthSocket(values["runtime-dir"] ?? defaultRuntimeDirectory(node), role, values.id);
    return askHealth(path).then(
      (answer) => tell(who, node, answer, report),
      (cause: Error) => refuse(`${who} does not answer on ${path}: ${cause.message}`, {}, report),
    );
  },
});

/** Shows what the actor has answered, and returns the exit code. */
const tell = (who: string, node: string, answer: HealthReport, report: Report): number => {
  if (answer.node !== node) return refuse(`it is node ${answer.node} that answers, not ${who}`, answer, report);
  if (answer.healthy) {
    report.answer(answer, `${who} is healthy\n`);
    return 0;
  }
  const wrong = answer.findings.flatMap(({ what, reason }) => (reason === null ? [] : [`${what}: ${reason}`]));
  return refuse(`${who} cannot do its job:\n  ${wrong.join("\n  ")}`, answer, report);
};

const refuse = (reason: string, answer: object, report: Report): number => {
  const remedy = "mend what is named here, and look at the actor's log";
  const code = "unhealthy";
  report.answer({ ...answer, error: { code, actor: "cli", step: "ask the actor", reason, remedy } }, "");
  report.note(errorText(code, reason, remedy));
  return 1;
};
