/** A vfio-user server that behaves as libvfio-user does, or as badly as a test wants. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as Effect from "effect/Effect";
import type { DeviceState } from "../../state-machine.ts";
import { decodeDeviceState, deviceStateData, FEATURES, migrationFeaturesData } from "../feature.ts";
import { makeFrameReader } from "../frame-reader.ts";
import { decodeHeader, encodeError, type Header } from "../header.ts";
import { FEATURE_GET, FEATURE_SET, type Reply, type Request } from "../message.ts";
import { encodeReply } from "../reply.ts";
import { decodeRequest } from "../request.ts";

export const EINVAL = 22;

/** One request as it came, and the ways to answer it. */
export interface Asked {
  readonly header: Header;
  readonly socket: Socket;
  readonly reply: (reply: Reply) => void;
  readonly refuse: (errno?: number) => void;
}

export interface TestServer {
  readonly socketPath: string;
  /** Every request so far. */
  readonly requests: ReadonlyArray<Request>;
  /** Lengths of the chunks in which they came. */
  readonly chunkBytes: ReadonlyArray<number>;
  /** Replies of the client to what the server asked. */
  readonly replies: ReadonlyArray<Header>;
  /** Connections that have not ended. */
  readonly connectionCount: () => number;
  state: DeviceState;
}

export interface TestServerOptions {
  /** JSON of VERSION. */
  readonly capabilities?: string;
  /** Answers a request itself; false leaves it to the server. */
  readonly answer?: (request: Request, asked: Asked, server: TestServer) => boolean;
}

/** As libvfio-user: flags 5, features 1 and 2, a configuration space of 256 bytes, which is refused in STOP_COPY. */
const answerAsUsual = (request: Request, { reply, refuse }: Asked, server: TestServer, capabilities: string): void => {
  const stopped = server.state === "STOP" || server.state === "STOP_COPY";
  switch (request.kind) {
    case "version":
      return reply({ kind: "version", major: 0, minor: 2, text: capabilities });
    case "device-info":
      return stopped ? refuse() : reply({ kind: "device-info", flags: 3, regions: 9, irqs: 5 });
    case "region-info":
      return stopped
        ? refuse()
        : reply({ kind: "region-info", flags: 3, region: request.region, bytes: 256, fdOffset: 0 });
    case "region-read":
      return server.state === "STOP_COPY"
        ? refuse()
        : reply({ ...request, kind: "region-read", data: new Uint8Array(request.count).fill(0xc0) });
    case "region-write":
      return reply({ ...request, kind: "region-write", count: request.data.length });
    case "reset":
      return stopped ? refuse() : reply({ kind: "reset" });
    case "mig-data-write":
      return reply({ kind: "mig-data-write" });
    case "feature": {
      const { index, operations, data } = request;
      if (index === FEATURES.migration && operations === FEATURE_GET)
        return reply({
          ...request,
          data: migrationFeaturesData({ stopCopy: true, p2p: false, preCopy: true }),
        });
      if (index !== FEATURES.deviceState) return refuse();
      if (operations === FEATURE_GET) return reply({ ...request, data: deviceStateData(server.state) });
      const asked = decodeDeviceState(data);
      if (operations !== FEATURE_SET || "kind" in asked) return refuse();
      server.state = asked.state;
      return reply({ ...request });
    }
    default:
      return refuse();
  }
};

/** Listens until the scope ends. */
export const testServer = ({ capabilities = "", answer = () => false }: TestServerOptions = {}) =>
  Effect.acquireRelease(
    Effect.callback<{ server: TestServer; close: () => void }>((resume) => {
      const directory = mkdtempSync(join(tmpdir(), "godwit-vfio-user-"));
      const sockets = new Set<Socket>();
      const requests: Request[] = [];
      const chunkBytes: number[] = [];
      const replies: Header[] = [];
      const server: TestServer = {
        socketPath: join(directory, "device"),
        requests,
        chunkBytes,
        replies,
        connectionCount: () => sockets.size,
        state: "RUNNING",
      };
      const listener = createServer((socket) => {
        sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => sockets.delete(socket));
        const reader = makeFrameReader();
        socket.on("data", (chunk: Buffer) => {
          chunkBytes.push(chunk.length);
          const wrong = reader.push(chunk, (header, frame) => {
            if (header.type === "reply") {
              replies.push(header);
              return;
            }
            const request = decodeRequest(frame);
            const refuse = (errno = EINVAL) => socket.write(encodeError(header, errno));
            if (request.kind === "malformed") return refuse();
            requests.push(request);
            const reply = (value: Reply) => socket.write(encodeReply(header.id, value));
            const asked = { header, socket, reply, refuse };
            if (!answer(request, asked, server)) answerAsUsual(request, asked, server, capabilities);
          });
          if (wrong !== null) socket.destroy();
        });
      });
      const close = () => {
        for (const socket of sockets) socket.destroy();
        listener.close();
        rmSync(directory, { recursive: true });
      };
      listener.listen(server.socketPath, () => resume(Effect.succeed({ server, close })));
    }),
    ({ close }) => Effect.sync(close),
  ).pipe(Effect.map(({ server }) => server));

/** A command of the server to its client, of 16 bytes that say nothing. */
export const serverCommand = (id: number, command: number, noReply: boolean): Uint8Array => {
  const frame = encodeError({ id, command }, EINVAL);
  const view = new DataView(frame.buffer);
  view.setUint32(8, noReply ? 0x10 : 0, true);
  view.setUint32(12, 0, true);
  const header = decodeHeader(frame);
  if ("kind" in header || header.type !== "command") throw new Error("not a command");
  return frame;
};
