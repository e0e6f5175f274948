import type { Failure } from "@godwit/protocol";
import { beforeEach, describe, expect, it } from "vitest";
import * as AgentLink from "./agent-link.ts";

type Stage = "precopy" | "stopped" | "resumed" | "discarded";
interface Report {
  readonly stage: Stage | "unknown" | "opening" | "stopping";
  readonly incarnation: string;
  readonly failure?: Failure;
}
const FAILURE: Failure = { code: "device-failed", actor: "vfio-agent", step: "set STOP_COPY", reason: "EIO" };
const ENDINGS = ["resumed", "discarded"] as const;

let link: AgentLink.AgentLink<Stage, Report>;
beforeEach(() => {
  link = AgentLink.make<Stage, Report>("source");
});
const lead = (stage: Stage, now: number): void => AgentLink.lead(link, stage, now);
const report = (stage: Report["stage"], now: number, change: Partial<Report> = {}): Failure | null =>
  AgentLink.reported(link, { stage, incarnation: "first", ...change }, ENDINGS, now);

describe("an agent", () => {
  it("is told nothing before something is wanted of it", () => {
    expect(AgentLink.tellDue(link, 1e6)).toBeNull();
    expect(AgentLink.nextTellAt(link)).toBeNull();
  });

  it("that says something before anything was asked of it has answered nothing", () => {
    expect(report("resumed", 1, { failure: FAILURE })).toBeNull();
    lead("resumed", 2);
    expect(AgentLink.isAt(link, "resumed")).toBe(false);
  });

  it("is told every 100 ms until it reports the stage, whatever lies in between", () => {
    lead("precopy", 0);
    expect(AgentLink.tellDue(link, 99)).toBeNull();
    expect(AgentLink.nextTellAt(link)).toBe(100);
    expect(AgentLink.tellDue(link, 100)).toBe("precopy");
    expect(AgentLink.tellDue(link, 150)).toBeNull();
    report("opening", 160);
    expect(AgentLink.tellDue(link, 200)).toBe("precopy");
    report("precopy", 210);
    expect(AgentLink.isAt(link, "precopy")).toBe(true);
    expect(AgentLink.tellDue(link, 310)).toBeNull();
  });

  it("that is where it should be is told again when it was not heard for a second: a new one knows nothing, and says so", () => {
    lead("precopy", 0);
    report("precopy", 500);
    expect(AgentLink.nextTellAt(link)).toBe(1500);
    expect(AgentLink.tellDue(link, 1499)).toBeNull();
    expect(AgentLink.tellDue(link, 1500)).toBe("precopy");
    report("precopy", 1501);
    expect(AgentLink.tellDue(link, 2500)).toBeNull();
  });

  it("that knows nothing of what was begun is lost", () => {
    lead("precopy", 0);
    expect(report("unknown", 1)).toBeNull();
    report("precopy", 2);
    const lost = { code: "vfio-agent-lost", side: "source", reason: expect.stringMatching(/was restarted/) };
    expect(report("unknown", 3)).toMatchObject(lost);
    expect(report("unknown", 4, { incarnation: "second" })).toMatchObject(lost);
    // What it had before is not forgotten for it.
    expect(AgentLink.isAt(link, "precopy")).toBe(true);
  });

  it("of another process is lost in the middle, and welcome to end it", () => {
    lead("precopy", 0);
    report("precopy", 1);
    lead("stopped", 2);
    expect(report("opening", 3, { incarnation: "second" })).toMatchObject({ code: "vfio-agent-lost" });
    lead("resumed", 4);
    expect(report("resumed", 5, { incarnation: "second" })).toBeNull();
    expect(AgentLink.isAt(link, "resumed")).toBe(true);
  });

  it("tells what failed with each report, until somebody acts on it", () => {
    lead("precopy", 0);
    expect(report("precopy", 1, { failure: FAILURE })).toBe(FAILURE);
    expect(report("precopy", 2, { failure: FAILURE })).toBe(FAILURE);
  });

  it("that was silent for too long is lost; each report, and each new word to it, is a new beginning", () => {
    lead("precopy", 0);
    expect(AgentLink.silence(link, 3000, 2999)).toBeNull();
    expect(AgentLink.silence(link, 3000, 3000)).toMatchObject({ code: "vfio-agent-lost" });
    expect(AgentLink.silence(link, 3000, 3000)?.reason).toMatch(/silent for 3000 ms/);
    report("precopy", 3000);
    expect(AgentLink.silence(link, 3000, 5999)).toBeNull();
    lead("stopped", 6000);
    expect(AgentLink.silence(link, 3000, 8999)).toBeNull();
  });
});
