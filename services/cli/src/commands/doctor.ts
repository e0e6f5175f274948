import { readBuckets } from "@godwit/fabric";
import { BUCKETS, GodwitError } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, NO_OPERANDS } from "../arguments/command.ts";
import { connectionOf, fromFabric, monitorOption, natsOptions } from "../connection.ts";
import type { Finding } from "../doctor/finding.ts";
import { hostFindings } from "../doctor/host-findings.ts";
import { natsFindings } from "../doctor/nats-findings.ts";
import { monitorsOf } from "../doctor/nats-monitor.ts";
import { natsServerFinding, qemuFinding } from "../doctor/program-findings.ts";
import { vfioFindings } from "../doctor/vfio-findings.ts";
import { failureDocument } from "../reporting/failure.ts";
import { table } from "../terminal/table.ts";

const MARKS = { works: "ok", absent: "-", missing: "MISSING" } as const;

export const doctor = command({
  operands: NO_OPERANDS,
  options: { ...natsOptions, "nats-monitor": monitorOption },
  notes: () => "Exit code 0 when godwit can work on this host. What is marked with a dash can be done without.\n",
  run: ({ values }) => {
    return Effect.gen(function* () {
      const found: ReadonlyArray<Finding> = [
        ...hostFindings(),
        yield* Effect.promise(natsServerFinding),
        ...(yield* natsFindings({
          servers: values.nats,
          jsDomain: values["js-domain"],
          named: values.nats !== natsOptions.nats.shownDefault,
          buckets: Effect.mapError(readBuckets(connectionOf(values, "godwit doctor"), BUCKETS), fromFabric),
          monitors: monitorsOf(values),
        })),
        qemuFinding(),
        ...(yield* vfioFindings),
      ];
      const obstacles = found.filter(({ state }) => state === "missing");
      const rows = found.map(({ what, state, detail }) => [MARKS[state], what, detail]);
      const text = table([{ title: "" }, { title: "" }, { title: "" }], rows).replace(/^\n/, "");
      if (obstacles.length === 0)
        return { document: { works: true, findings: found }, text: `${text}\ngodwit can work here\n` };
      const failure = new GodwitError({
        code: "not-supported",
        actor: "cli",
        step: "examine this host",
        reason: obstacles.map(({ what, detail }) => `${what}: ${detail}`).join("\n  "),
      });
      return { document: { works: false, findings: found, error: failureDocument(failure) }, text, failure };
    });
  },
});
