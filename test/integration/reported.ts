/** Acts in the very turn in which an actor reports a phase: where only one moment will do. */
import { DestinationReport, isMalformed, json, SourceReport } from "@godwit/protocol";
import type { Stranger } from "./stranger.ts";

const codecs = { source: json(SourceReport), destination: json(DestinationReport) };

/** What a stranger must listen to for it. */
export const REPORTS = "godwit.m.*.*.*.report.*";

/** Resolves, within the turn in which the report came, with the first one of the migration in this phase. */
export const reported = (
  stranger: Stranger,
  migration: string,
  [side, phase]: readonly [side: "source" | "destination", phase: string],
  act: () => void,
): Promise<void> =>
  new Promise((resolve) => {
    let done = false;
    stranger.onMessage(({ subject, data }) => {
      if (done || !subject.startsWith(`godwit.m.${migration}.`) || !subject.endsWith(`.report.${side}`)) return;
      const report = codecs[side].decode(data);
      if (isMalformed(report) || report.phase !== phase) return;
      done = true;
      act();
      resolve();
    });
  });
