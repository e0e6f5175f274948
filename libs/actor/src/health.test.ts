import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Fabric, FabricError } from "@godwit/fabric";
import { type HealthReport, healthSocket } from "@godwit/protocol/health";
import * as Effect from "effect/Effect";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Need, serveHealth } from "./health.ts";
import { folderNeed, natsNeeds } from "./needs.ts";

const MEMBER = { role: "loader", node: "a", id: "0", incarnation: "00112233445566aa" };

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "godwit-health-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

const cut = new FabricError({ code: "nats-unreachable", operation: "ask", reason: "no link", retryable: true });

/** Runs `work` while the actor answers; `link` says how NATS is. */
const answering = <A>(
  needs: ReadonlyArray<Need>,
  work: () => Promise<A>,
  link: Effect.Effect<void, FabricError> = Effect.void,
): Promise<A> =>
  Effect.runPromise(
    Effect.gen(function* () {
      yield* serveHealth(directory, MEMBER, [...(yield* natsNeeds), ...needs]);
      return yield* Effect.promise(work);
    }).pipe(Effect.scoped, Effect.provideService(Fabric, { roundTrip: () => link } as unknown as Fabric["Service"])),
  );

const ask = (): Promise<HealthReport> =>
  new Promise((resolve, reject) => {
    const socket = connect(healthSocket(directory, "loader", "0"));
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(JSON.parse(text)));
  });

const reasons = ({ findings }: HealthReport) => findings.flatMap(({ reason }) => (reason === null ? [] : [reason]));

describe("an actor that is asked how it is", () => {
  it("is healthy when it has all that it needs, and says who it is", async () => {
    const report = await answering([folderNeed(join(directory, "guests"))], ask);
    expect(report).toMatchObject({ ...MEMBER, healthy: true });
    expect(report.findings).toHaveLength(3);
    expect(reasons(report)).toEqual([]);
    expect(existsSync(healthSocket(directory, "loader", "0"))).toBe(false);
  });

  it("is not, and says why, when NATS does not answer or something of its own is gone", async () => {
    const gone: Need = { what: "bucket records", look: Effect.fail(new Error("there is no stream")) };
    const notAFolder = folderNeed(join(healthSocket(directory, "loader", "0"), "below a socket"));
    const report = await answering([gone, notAFolder], ask, Effect.fail(cut));
    expect(report.healthy).toBe(false);
    expect(reasons(report).slice(0, 3)).toEqual(["ask: no link", "ask: no link", "there is no stream"]);
    expect(reasons(report)[3]).toMatch(/ENOTDIR/);
  });

  it("is looked at anew each time", async () => {
    let there = true;
    const need: Need = {
      what: "it",
      look: Effect.suspend(() => (there ? Effect.void : Effect.fail(new Error("it has gone")))),
    };
    await answering([need], async () => {
      expect((await ask()).healthy).toBe(true);
      there = false;
      expect(reasons(await ask())).toEqual(["it has gone"]);
    });
  });

  it("takes over the socket of a life that was killed", async () => {
    await answering([], () => answering([], async () => expect((await ask()).healthy).toBe(true)));
  });

  it("does its job all the same where there can be no socket", async () => {
    rmSync(directory, { recursive: true });
    directory = join(directory, "x".repeat(200));
    expect(await answering([], async () => "it works")).toBe("it works");
  });
});
