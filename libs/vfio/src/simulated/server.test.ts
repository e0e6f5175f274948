import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { Server } from "node:net";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import type { DeviceState } from "../state-machine.ts";
import { clientCapabilities } from "../vfio-user/capabilities.ts";
import { decodeDeviceState, deviceStateData, FEATURES, getFeature, setFeature } from "../vfio-user/feature.ts";
import { HEADER_BYTES } from "../vfio-user/header.ts";
import type { Reply, Request } from "../vfio-user/message.ts";
import { decodeReply } from "../vfio-user/reply.ts";
import { encodeRequest } from "../vfio-user/request.ts";
import { decodeDiagnosis, encodeDiagnosisRequest } from "./diagnosis.ts";
import { SimulatedModel } from "./model.ts";
import { serveSimulated } from "./server.ts";
import type { SimulatedSpec } from "./spec.ts";

const MiB = 2 ** 20;
const SPEC: SimulatedSpec = {
  name: "nic",
  role: "boot",
  stateBytes: 100_000,
  initialBytes: 10_000,
  preCopy: true,
  preCopyData: "all",
  p2p: true,
  dirtyBytesPerSecond: 0,
  readBytesPerSecond: 0,
  arcLatencyMs: {},
  allocationMs: 0,
  seed: 7,
  faults: [],
  dma: null,
};
const VERSION: Request = { kind: "version", major: 0, minor: 1, text: clientCapabilities() };

/** A client that sends what it likes, and sees what comes back, frame by frame. */
class RawClient {
  readonly socket: Socket;
  readonly closed: Promise<unknown>;
  #bytes = Buffer.alloc(0);
  #frames: Array<Buffer> = [];
  #arrival = Promise.withResolvers<void>();

  constructor(path: string) {
    this.socket = connect(path);
    this.closed = once(this.socket, "close");
    this.socket.on("error", () => undefined);
    this.socket.on("data", (chunk: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk]);
      while (this.#bytes.length >= HEADER_BYTES && this.#bytes.length >= this.#bytes.readUInt32LE(4)) {
        const length = this.#bytes.readUInt32LE(4);
        this.#frames.push(this.#bytes.subarray(0, length));
        this.#bytes = this.#bytes.subarray(length);
      }
      this.#arrival.resolve();
      this.#arrival = Promise.withResolvers<void>();
    });
  }
  send(id: number, request: Request): void {
    this.socket.write(encodeRequest(id, request));
  }
  async frame(): Promise<Buffer> {
    while (this.#frames.length === 0) await this.#arrival.promise;
    return this.#frames.shift()!;
  }
  /** The id of the next reply, and the reply. */
  async reply(): Promise<readonly [number, Reply]> {
    const frame = await this.frame();
    const reply = decodeReply(frame);
    if (reply.kind === "malformed") throw new Error(reply.reason);
    return [frame.readUInt16LE(0), reply];
  }
  async ask(request: Request): Promise<Reply> {
    this.send(77, request);
    const [id, reply] = await this.reply();
    assert.strictEqual(id, 77);
    return reply;
  }
  async setState(state: DeviceState): Promise<void> {
    const reply = await this.ask(setFeature(FEATURES.deviceState, deviceStateData(state)));
    assert.strictEqual(reply.kind, "feature", JSON.stringify(reply));
  }
  async state(): Promise<DeviceState> {
    const reply = await this.ask(getFeature(FEATURES.deviceState, 8));
    const decoded = reply.kind === "feature" ? decodeDeviceState(reply.data) : null;
    if (decoded === null || "kind" in decoded) throw new Error(JSON.stringify(reply));
    return decoded.state;
  }
}

describe("the simulated device's server", () => {
  let directory = "";
  let server: Server | undefined;
  const clients: Array<RawClient> = [];
  const path = (): string => join(directory, "nic.sock");
  const serve = async (spec: Partial<SimulatedSpec> = {}): Promise<void> => {
    const model = new SimulatedModel({ ...SPEC, ...spec }, () => performance.now());
    server = await serveSimulated(path(), model, () => undefined);
  };
  const connected = (): RawClient => {
    const client = new RawClient(path());
    clients.push(client);
    return client;
  };
  const agreed = async (): Promise<RawClient> => {
    const client = connected();
    assert.strictEqual((await client.ask(VERSION)).kind, "version");
    return client;
  };
  const diagnosis = async () => {
    const judge = connected();
    judge.socket.write(encodeDiagnosisRequest(3));
    const answer = decodeDiagnosis((await judge.frame()).subarray(HEADER_BYTES));
    judge.socket.destroy();
    return answer;
  };

  beforeEach(() => {
    directory = mkdtempSync("/dev/shm/godwit-server-");
  });
  afterEach(async () => {
    for (const client of clients.splice(0)) client.socket.destroy();
    await new Promise((resolve) => server?.close(resolve));
    rmSync(directory, { recursive: true });
  });

  it.each<readonly [string, Request]>([
    ["something else", getFeature(FEATURES.deviceState, 8)],
    ["another major version", { ...VERSION, major: 1 } as Request],
    ["no JSON", { ...VERSION, text: "{" } as Request],
  ])("ends the connection of a client that begins with %s", async (_, request) => {
    await serve();
    const client = connected();
    assert.deepInclude(await client.ask(request), { kind: "error", errno: 22 });
    await client.closed;
    assert.strictEqual(await (await agreed()).state(), "RUNNING");
  });

  it("gives the device to a new client, in the state in which the old one left it", async () => {
    await serve();
    const old = await agreed();
    await old.setState("PRE_COPY");
    const client = await agreed();
    await old.closed;
    assert.strictEqual(await client.state(), "PRE_COPY");
  });

  it("answers a judge without taking the device from its client", async () => {
    await serve();
    const client = await agreed();
    await client.setState("STOP");
    assert.strictEqual((await diagnosis()).state, "STOP");
    assert.strictEqual(await client.state(), "STOP");
  });

  it("answers nothing else while it takes its time, and a judge at once", async () => {
    await serve({ arcLatencyMs: { "RUNNING_P2P->STOP": 50 } });
    const client = await agreed();
    client.send(1, setFeature(FEATURES.deviceState, deviceStateData("STOP")));
    client.send(2, getFeature(FEATURES.deviceState, 8));
    assert.strictEqual((await diagnosis()).state, "RUNNING_P2P");
    assert.strictEqual((await client.reply())[0], 1);
    const [id, reply] = await client.reply();
    assert.strictEqual(id, 2);
    assert.deepEqual(reply.kind === "feature" && decodeDeviceState(reply.data), { state: "STOP" });
  });

  it("lets a request that hangs hang, and answers the next", async () => {
    await serve({ faults: [{ at: "RUNNING_P2P->STOP", nth: 1, kind: "hang", times: 1 }] });
    const client = await agreed();
    client.send(1, setFeature(FEATURES.deviceState, deviceStateData("STOP")));
    assert.strictEqual(await client.state(), "RUNNING_P2P");
  });

  it("carries out what wants no reply, without one", async () => {
    await serve();
    const client = await agreed();
    const frame = Buffer.from(encodeRequest(5, setFeature(FEATURES.deviceState, deviceStateData("STOP"))));
    frame.writeUInt32LE(0x10, 8);
    client.socket.write(frame);
    assert.strictEqual(await client.state(), "STOP");
  });

  it("does no more for a client that reads no replies, and all of it once it reads", async () => {
    await serve({ stateBytes: 100 * MiB });
    const client = await agreed();
    await client.setState("STOP_COPY");
    client.socket.pause();
    const requests = Array.from({ length: 60 }, (_, id) => encodeRequest(id, { kind: "mig-data-read", size: MiB }));
    await new Promise((resolve) => client.socket.write(Buffer.concat(requests), resolve));
    // A judge's question comes in turn with what the server does, so that it has done what it will by then.
    let bytesRead = -1;
    for (let before = -2; before !== bytesRead; ) {
      before = bytesRead;
      bytesRead = (await diagnosis()).bytesRead;
    }
    assert.isAbove(bytesRead, 0);
    assert.isAtMost(bytesRead, 5 * MiB);
    client.socket.resume();
    for (let id = 0; id < requests.length; id++) assert.strictEqual((await client.reply())[0], id);
    assert.strictEqual((await diagnosis()).bytesRead, 60 * MiB);
  });

  it("survives whatever a client sends", async () => {
    await serve();
    const bytes = fc.uint8Array({ maxLength: 200 });
    const feature = fc.record({
      kind: fc.constant("feature" as const),
      index: fc.oneof(fc.nat(12), fc.nat(0xffff)),
      operations: fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 8).map((bits) => bits << 16),
      argsz: fc.oneof(fc.nat(64), fc.nat(0xffff_ffff)),
      data: fc.oneof(bytes, fc.constantFrom(deviceStateData("RESUMING"), deviceStateData("PRE_COPY"))),
    });
    const region = fc.oneof(fc.constant(7), fc.nat(10));
    const request: fc.Arbitrary<Request> = fc.oneof(
      feature,
      fc.record({ kind: fc.constant("region-read" as const), region, offset: fc.maxSafeNat(), count: fc.nat(MiB) }),
      fc.record({ kind: fc.constant("region-write" as const), region, offset: fc.nat(300), data: bytes }),
      fc.record({ kind: fc.constant("region-info" as const), region }),
      fc.record({ kind: fc.constant("mig-data-read" as const), size: fc.nat(2 * MiB) }),
      fc.record({ kind: fc.constant("mig-data-write" as const), data: bytes }),
      fc.constantFrom<Request>({ kind: "precopy-info" }, { kind: "reset" }, { kind: "device-info" }, VERSION),
    );
    const frame = request.map((each) => Buffer.from(encodeRequest(9, each)));
    const damaged = fc.tuple(frame, fc.nat(), fc.nat(255)).map(([good, place, value]) => {
      const copy = Buffer.from(good);
      copy[place % copy.length] = value;
      return copy;
    });
    const noise = fc.uint8Array({ minLength: 1, maxLength: 300 }).map((each) => Buffer.from(each));
    const session = fc.record({
      agrees: fc.boolean(),
      pieces: fc.array(fc.oneof({ weight: 4, arbitrary: frame }, damaged, noise), { maxLength: 30 }),
      cut: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(session, async ({ agrees, pieces, cut }) => {
        const client = agrees ? await agreed() : connected();
        const all = Buffer.concat(pieces);
        const at = cut % (all.length + 1);
        client.socket.write(all.subarray(0, at));
        client.socket.end(all.subarray(at));
        client.socket.resume();
        await client.closed;
        const next = await agreed();
        assert.deepInclude(await next.ask({ kind: "reset" }), { kind: "reset" });
        assert.strictEqual(await next.state(), "RUNNING");
        next.socket.destroy();
      }),
      { numRuns: 150 },
    );
  });
});
