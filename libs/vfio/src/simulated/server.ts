/**
 * The simulated device on a unix socket, in vfio-user. It belongs to the client that agreed on a version last: whoever had it before is
 * cut off, and the device stays as it is, as the kernel's mtty does between two who open it.
 */
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { constants } from "node:os";
import {
  type Capabilities,
  decodeCapabilities,
  serverCapabilities,
  VERSION_MAJOR,
  VERSION_MINOR,
} from "../vfio-user/capabilities.ts";
import { decodeHeader, encodeError, type Header, TRANSFER_BYTES_MAX } from "../vfio-user/header.ts";
import type { Reply, Request } from "../vfio-user/message.ts";
import { encodeReadHead, encodeReply } from "../vfio-user/reply.ts";
import { decodeRequest } from "../vfio-user/request.ts";
import { carryOut } from "./commands.ts";
import { type Connection, type FrameHandler, makeConnection } from "./connection.ts";
import { DIAGNOSIS_COMMAND, encodeDiagnosis } from "./diagnosis.ts";
import { DeviceFailure } from "./failure.ts";
import { NEVER, type Operation, type SimulatedModel } from "./model.ts";

/** Connections at one time: a client, its successor, and some judges. */
const CONNECTIONS_MAX = 16;

type Log = (text: string) => void;
/** Sends the reply to one request, if the client wants one. */
type Answer = (reply: Reply | DeviceFailure) => void;

/** Listens at `path`, which must not exist, for this user alone. */
export const serveSimulated = async (path: string, model: SimulatedModel, log: Log): Promise<Server> => {
  const device = new ServedDevice(model, log);
  const server = createServer((socket) => makeConnection(socket, (connection) => device.accept(connection)));
  server.maxConnections = CONNECTIONS_MAX;
  // bind takes the mode from the umask.
  const umask = process.umask(0o077);
  try {
    server.listen(path);
    await once(server, "listening");
  } finally {
    process.umask(umask);
  }
  return server;
};

class ServedDevice {
  readonly #model: SimulatedModel;
  readonly #log: Log;
  #holder: Connection | null = null;
  /** An operation waits: the device answers nothing else. */
  #busy = false;

  constructor(model: SimulatedModel, log: Log) {
    this.#model = model;
    this.#log = log;
  }

  accept(connection: Connection): FrameHandler {
    /** What the client can do; null until it has said so. */
    let client: Capabilities | null = null;
    return {
      carryOut: (frame) => {
        const header = decodeHeader(frame) as Header;
        // The device asks its clients nothing.
        if (header.type === "reply") return true;
        if (header.command === DIAGNOSIS_COMMAND) {
          connection.send(encodeDiagnosis(header.id, this.#model.diagnosis()));
          return true;
        }
        const answer = (reply: Reply | DeviceFailure): void => {
          if (header.noReply) return;
          if ("kind" in reply && reply.kind === "mig-data-read")
            connection.send(encodeReadHead(header.id, reply.data.length), reply.data);
          else connection.send(encodeAnswer(header, reply));
        };
        if (client === null) {
          client = this.#agree(connection, frame, answer);
          return true;
        }
        if (this.#busy) return false;
        const request = decodeRequest(frame);
        if (request.kind === "malformed") answer(new DeviceFailure("EINVAL", request.reason));
        else this.#start(carryOut(this.#model, request, client), answer);
        return true;
      },
      closed: (reason) => {
        if (reason !== null) this.#log(`a client is cut off: ${reason}`);
        if (this.#holder === connection) this.#holder = null;
      },
    };
  }

  /** The first message must be a VERSION that fits. */
  #agree(connection: Connection, frame: Uint8Array, answer: Answer): Capabilities | null {
    const request = decodeRequest(frame);
    const client = request.kind === "version" ? capabilitiesOf(request) : null;
    if (client === null || request.kind !== "version") {
      answer(new DeviceFailure("EINVAL", "the first message must agree on a version"));
      connection.end();
      return null;
    }
    this.#holder?.cut("another client has taken the device");
    this.#holder = connection;
    const text = serverCapabilities({ transferBytesMax: TRANSFER_BYTES_MAX, wholeFrames: true, precopyInfo: true });
    answer({ kind: "version", major: VERSION_MAJOR, minor: Math.min(request.minor, VERSION_MINOR), text });
    return client;
  }

  /** Carries an operation on until it waits or ends. */
  #start(operation: Operation<Reply>, answer: Answer): void {
    this.#busy = false;
    try {
      const step = operation.next();
      if (step.done === true) answer(step.value);
      else if (step.value !== NEVER) {
        this.#busy = true;
        setTimeout(() => {
          this.#start(operation, answer);
          this.#holder?.work();
        }, step.value);
      }
    } catch (cause) {
      answer(cause instanceof DeviceFailure ? cause : this.#defect(cause));
    }
  }

  /** A mistake of ours must not take the device from its guest. */
  #defect(cause: unknown): DeviceFailure {
    this.#log(`a request failed unforeseen: ${cause instanceof Error ? cause.stack : String(cause)}`);
    return new DeviceFailure("EIO", "the device has failed");
  }
}

const capabilitiesOf = (request: Extract<Request, { readonly kind: "version" }>): Capabilities | null => {
  const capabilities = decodeCapabilities(request.text);
  return request.major !== VERSION_MAJOR || "kind" in capabilities ? null : capabilities;
};

const encodeAnswer = (header: Header, reply: Reply | DeviceFailure): Uint8Array =>
  reply instanceof DeviceFailure ? encodeError(header, errnoNumber(reply.errno)) : encodeReply(header.id, reply);

const errnoNumber = (name: string): number =>
  (constants.errno as Readonly<Record<string, number>>)[name] ?? constants.errno.EIO;
