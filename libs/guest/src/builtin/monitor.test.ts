import { mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, assert, beforeEach, describe, it } from "vitest";
import { CLIENTS_MAX, type MonitorHandler, REQUEST_BYTES_MAX, serveMonitor } from "./monitor.ts";
import { Refusal } from "./refusal.ts";

let directory: string;
let path: string;
let server: Server;
let clients: Array<Socket>;
/** Lets `wait` answer. */
let release: PromiseWithResolvers<string>;
/** Settles when a client that waits has gone. */
let clientGone: PromiseWithResolvers<void>;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "godwit-monitor-"));
  path = join(directory, "monitor.sock");
  clients = [];
  release = Promise.withResolvers();
  clientGone = Promise.withResolvers();
  const handlers = new Map<string, MonitorHandler>([
    ["echo", (args) => args],
    ["nothing", () => undefined],
    ["refuse", () => Promise.reject(new Refusal("wrong-state", "not now"))],
    ["fail", () => JSON.parse("{")],
    ["large", () => "x".repeat(200_000)],
    [
      "wait",
      (_args, signal) => {
        signal.addEventListener("abort", () => clientGone.resolve());
        return release.promise;
      },
    ],
  ]);
  server = await serveMonitor(path, handlers);
});

afterEach(() => {
  for (const client of clients) client.destroy();
  server.close();
  rmSync(directory, { recursive: true });
});

interface Client {
  readonly socket: Socket;
  readonly send: (text: string | Buffer) => void;
  /** The next answer; undefined once the guest has closed the connection. */
  readonly answer: () => Promise<Record<string, unknown> | undefined>;
}

const open = (): Client => {
  const socket = connect(path);
  clients.push(socket);
  socket.on("error", () => undefined);
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const answer = async () => {
    // A connection that breaks is as closed as one that ends.
    const { value, done } = await lines.next().catch(() => ({ value: undefined, done: true as const }));
    return done === true ? undefined : JSON.parse(value);
  };
  return { socket, send: (text) => void socket.write(text), answer };
};

const errorOf = (answer: Record<string, unknown> | undefined) => answer?.["error"] as { code: string; reason: string };

describe("a guest's monitor", () => {
  it("answers each request in order, with its id, however the bytes are cut", async () => {
    const client = open();
    client.send('{"execute":"echo","argum');
    client.send('ents":{"a":"ü"},"id":1}\n{"execute":"nothing","id":[2]}\n\n{"execute":"echo"}\n');
    assert.deepStrictEqual(await client.answer(), { return: { a: "ü" }, id: 1 });
    assert.deepStrictEqual(await client.answer(), { return: null, id: [2] });
    assert.deepStrictEqual(await client.answer(), { return: {} });
  });

  it("answers what is no request with an error, and goes on", async () => {
    const client = open();
    const rubbish = [
      "rubbish",
      "null",
      "[]",
      "7",
      "{}",
      '{"execute":7}',
      '{"execute":"constructor"}',
      "{",
      "\u0000\u0000",
    ];
    for (const line of [...rubbish, '{"execute":"echo","arguments":[]}', `{"execute":"${"x".repeat(500)}"}`]) {
      client.send(`${line}\n`);
      const error = errorOf(await client.answer());
      assert.strictEqual(error.code, "invalid-request", line);
      assert.isBelow(error.reason.length, 300);
    }
    client.send(Buffer.from([0xff, 0xfe, 0x0a]));
    assert.strictEqual(errorOf(await client.answer()).code, "invalid-request");
    client.send('{"execute":"echo","id":3}\n');
    assert.deepStrictEqual(await client.answer(), { return: {}, id: 3 });
  });

  it("answers a refusal with its code, and anything else that is thrown as guest-failed", async () => {
    const client = open();
    client.send('{"execute":"refuse","id":1}\n{"execute":"fail","id":2}\n');
    assert.deepStrictEqual(await client.answer(), { error: { code: "wrong-state", reason: "not now" }, id: 1 });
    assert.strictEqual(errorOf(await client.answer()).code, "guest-failed");
  });

  it("refuses a request that is meant for another process", async () => {
    const client = open();
    client.send(`{"execute":"echo","pid":${process.pid + 1}}\n{"execute":"echo","pid":${process.pid}}\n`);
    assert.strictEqual(errorOf(await client.answer()).code, "no-such-guest");
    assert.deepStrictEqual(await client.answer(), { return: {} });
  });

  it("answers a request that is too long with an error and ends the connection", async () => {
    const endless = open();
    endless.send(Buffer.alloc(REQUEST_BYTES_MAX + 1, "x"));
    assert.match(errorOf(await endless.answer()).reason, /more than 65536 bytes/);
    assert.isUndefined(await endless.answer());

    const line = open();
    line.send(`{"execute":"echo","arguments":{"x":"${"x".repeat(REQUEST_BYTES_MAX)}"}}\n`);
    assert.strictEqual(errorOf(await line.answer()).code, "invalid-request");
    assert.isUndefined(await line.answer());
  });

  it("serves one client while another waits", async () => {
    const [patient, brisk] = [open(), open()];
    patient.send('{"execute":"wait","id":"p"}\n');
    brisk.send('{"execute":"echo","id":"b"}\n');
    assert.deepStrictEqual(await brisk.answer(), { return: {}, id: "b" });
    release.resolve("at last");
    assert.deepStrictEqual(await patient.answer(), { return: "at last", id: "p" });
  });

  it("still answers a client that has closed its side", async () => {
    const client = open();
    client.socket.end('{"execute":"wait","id":1}\n');
    const other = open();
    other.send('{"execute":"echo"}\n');
    await other.answer();
    release.resolve("late");
    assert.deepStrictEqual(await client.answer(), { return: "late", id: 1 });
    assert.isUndefined(await client.answer());
  });

  it("survives clients that break off, in the middle of a request and of an answer", async () => {
    const half = open();
    half.send('{"execute":"ec');
    half.socket.destroySoon();
    const greedy = open();
    greedy.send('{"execute":"large"}\n'.repeat(20));
    greedy.socket.once("data", () => greedy.socket.destroy());
    await new Promise((resolve) => greedy.socket.once("close", resolve));
    const waiting = open();
    waiting.send('{"execute":"echo"}\n');
    await waiting.answer();
    waiting.send('{"execute":"wait"}\n');
    waiting.socket.destroySoon();
    await clientGone.promise;
    release.resolve("to nobody");
    const client = open();
    client.send('{"execute":"echo"}\n');
    assert.deepStrictEqual(await client.answer(), { return: {} });
  });

  it("turns further clients away when there are too many, and takes them when others have gone", async () => {
    const many = Array.from({ length: CLIENTS_MAX }, open);
    for (const client of many) {
      client.send('{"execute":"echo"}\n');
      await client.answer();
    }
    const surplus = open();
    surplus.send('{"execute":"echo"}\n');
    assert.isUndefined(await surplus.answer());
    many[0]!.socket.end();
    assert.isUndefined(await many[0]!.answer());
    const next = open();
    next.send('{"execute":"echo"}\n');
    assert.deepStrictEqual(await next.answer(), { return: {} });
  });

  it("is for its own user alone", () => {
    assert.strictEqual(statSync(path).mode & 0o077, 0);
  });

  it("is refused a path that is taken", async () => {
    const outcome = await serveMonitor(path, new Map()).catch((cause) => cause.code);
    assert.strictEqual(outcome, "EADDRINUSE");
  });
});
