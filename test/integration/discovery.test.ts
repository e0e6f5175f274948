import { ANY_ROUTE, subjects } from "@godwit/protocol";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, openWorld, type World } from "./world.ts";

let world: World;
let nc: NatsConnection;
beforeAll(async () => {
  world = await openWorld();
  nc = await connect({ servers: world.cluster.url, name: "nats micro" });
  // A world is there when guests can be moved in it; agents of devices may still be on their way.
  await eventually("all services answer", async () => (await askAll("PING")).length === SERVICES);
});
afterAll(async () => {
  await nc?.close();
  await world?.close();
});

interface Info {
  readonly type: string;
  readonly name: string;
  readonly id: string;
  readonly version: string;
  readonly endpoints: ReadonlyArray<{ readonly name: string; readonly subject: string }>;
}

/** One coordinator, and of each of the two nodes a supervisor, a RAM sender, a loader and a VFIO agent. */
const SERVICES = 9;

/** What `nats micro` does: one request, and as many answers as there are services. */
const askAll = async (verb: "PING" | "INFO" | "STATS"): Promise<ReadonlyArray<Info>> => {
  const answers = await nc.requestMany(`$SRV.${verb}`, new Uint8Array(0), {
    strategy: "count",
    maxMessages: SERVICES,
    maxWait: 2000,
  });
  const found: Info[] = [];
  for await (const answer of answers) found.push(answer.json<Info>());
  return found;
};

const OF_NODE = ["godwit-loader", "godwit-node", "godwit-ram-sender", "godwit-vfio-agent"];
const NAMES = ["godwit-coordinator", ...OF_NODE.flatMap((name) => [name, name])];

describe("nats micro", () => {
  it("finds every service", async () => {
    for (const verb of ["PING", "STATS"] as const) {
      const answers = await askAll(verb);
      expect(answers.map(({ name }) => name).sort()).toEqual(NAMES);
      for (const answer of answers) {
        expect(answer.type).toBe(`io.nats.micro.v1.${verb.toLowerCase()}_response`);
        expect(answer.version).toMatch(/^\d+\.\d+\.\d+$/);
      }
    }
  });

  it("shows every endpoint with the subject it is asked on", async () => {
    const endpoints = (await askAll("INFO")).flatMap((info) => info.endpoints.map(({ subject }) => subject)).sort();
    const verbs = ["migrate", "query-migrate", "list", "nodes", "checkpoints", "cancel", "continue", "set-parameters"];
    const ofPostcopy = ["start-postcopy", "pause", "recover", "give-up"];
    const ofNode = (node: string) => [
      subjects.node(node, "info"),
      ...["save", "restore"].flatMap((what) =>
        [what, `query-${what}`, `cancel-${what}`, `list-${what}s`].map((verb) => subjects.node(node, verb)),
      ),
      subjects.source(node),
      subjects.sourceQuery(node),
      subjects.missingPages(node, "*"),
      subjects.keyAgreement(node, "*"),
      subjects.destination(node),
      subjects.destinationQuery(node),
      subjects.vfio(node),
      subjects.vfioQuestion(node),
      subjects.directLane({ ...ANY_ROUTE, destination: node }),
      subjects.deviceDirectLane({ ...ANY_ROUTE, destination: node }),
    ];
    // One of the coordinator's is its own: replicas pass requests on to the owner of a migration there.
    const owner = endpoints.find((subject) => subject.startsWith(subjects.owner("")));
    expect(owner).toMatch(/[0-9a-f]{16}$/);
    const expected = [...[...verbs, ...ofPostcopy].map(subjects.coordinator), owner, ...ofNode("a"), ...ofNode("b")];
    expect(endpoints).toEqual(expected.sort());
  });

  it("every endpoint refuses what is no request with a typed error, and answers afterwards", async () => {
    const infos = await askAll("INFO");
    const needInput = infos.flatMap(({ endpoints }) => endpoints).filter(({ name }) => name !== "info");
    for (const { name, subject } of needInput.filter((endpoint) => !endpoint.subject.endsWith(".query"))) {
      const answer = await nc.request(subject, "no JSON at all", { timeout: 5000 });
      expect(answer.headers?.get("Nats-Service-Error-Code"), `${name} on ${subject}`).toBe("500");
      expect(answer.json()).toMatchObject({ code: "invalid-request", reason: expect.stringMatching(/JSON/) });
    }
    expect(await askAll("PING")).toHaveLength(SERVICES);
  });
});
