/**
 * How a side of a migration leads the VFIO agent of its host: it says to which stage the devices shall be brought, again and again until
 * the agent reports it. Pure; owned by the decisions of the side, which change it in place.
 */
import type { Failure } from "@godwit/protocol";

interface Report<Stage extends string> {
  readonly stage: Stage | "unknown";
  readonly incarnation: string;
  readonly failure?: Failure;
}

/** `Wanted`: stages that can be asked for; `R`: the agent's reports, whose stages are these and some in between. */
export interface AgentLink<Wanted extends string, R> {
  readonly side: "source" | "destination";
  /** null before the attempt has begun with the devices. */
  want: Wanted | null;
  wantedSince: number;
  report: R | null;
  /** The agent's process that has the devices of this attempt. */
  agent: string | null;
  heardAt: number;
  nextTellAt: number;
}

/** The agent is told again until it reports the stage, ms. */
const TELL_MS = 100;

export const make = <Wanted extends string, R>(side: "source" | "destination"): AgentLink<Wanted, R> => ({
  side,
  want: null,
  wantedSince: 0,
  report: null,
  agent: null,
  heardAt: 0,
  nextTellAt: 0,
});

/** The caller says it once, now. */
export const lead = <Wanted extends string, R>(link: AgentLink<Wanted, R>, stage: Wanted, now: number): void => {
  link.want = stage;
  link.wantedSince = now;
  link.heardAt = now;
  link.nextTellAt = now + TELL_MS;
};

/** Takes a report in. What has failed, or null. `endings`: stages to which any process of the agent can lead, whatever it knows. */
export const reported = <Wanted extends string, R extends Report<string>>(
  link: AgentLink<Wanted, R>,
  report: R,
  endings: ReadonlyArray<Wanted>,
  now: number,
): Failure | null => {
  // Said before anything was asked, it is of no attempt of ours, and must not be taken for its answer later.
  if (link.want === null) return null;
  const isAnother = link.agent !== null && report.incarnation !== link.agent;
  if (isAnother && !endings.includes(link.want)) return lost(link, "was restarted");
  if (report.stage === "unknown") return link.agent === null || isAnother ? null : lost(link, "was restarted");
  if (!isAnother) link.agent = report.incarnation;
  link.report = report;
  link.heardAt = now;
  return report.failure ?? null;
};

export const isAt = <Wanted extends string, R extends Report<string>>(
  link: AgentLink<Wanted, R>,
  stage: R["stage"],
): boolean => link.report?.stage === stage;

/** An agent that reports nothing for so long is told again, ms: one that was started anew says then that it knows nothing. */
const ASK_AFTER_MS = 1000;

/** When the command must be said again, ms. `hasNews`: there is something besides that the agent does not know yet. */
export const nextTellAt = <Wanted extends string, R extends Report<string>>(
  link: AgentLink<Wanted, R>,
  hasNews = false,
): number | null => {
  if (link.want === null) return null;
  const isFollowed = link.report?.stage === link.want && !hasNews;
  return isFollowed ? Math.max(link.nextTellAt, link.heardAt + ASK_AFTER_MS) : link.nextTellAt;
};

/** Whether the command must be said again now; the next time is set. */
export const tellDue = <Wanted extends string, R extends Report<string>>(
  link: AgentLink<Wanted, R>,
  now: number,
  hasNews = false,
): Wanted | null => {
  const at = nextTellAt(link, hasNews);
  if (at === null || now < at) return null;
  link.nextTellAt = now + TELL_MS;
  return link.want;
};

/** An agent that says nothing for so long is lost, ms: it reports every 100 ms. */
export const silence = <Wanted extends string, R>(
  link: AgentLink<Wanted, R>,
  silentMsMax: number,
  now: number,
): Failure | null => {
  const silentMs = now - link.heardAt;
  return silentMs >= silentMsMax ? lost(link, `was silent for ${silentMs} ms`) : null;
};

const lost = ({ side }: { readonly side: "source" | "destination" }, why: string): Failure => ({
  code: "vfio-agent-lost",
  actor: side === "source" ? "ram-sender" : "loader",
  side,
  step: "move the devices",
  reason: `the VFIO agent of the ${side} ${why}`,
});
