/** A device of a test server, opened. */
import * as Effect from "effect/Effect";
import { serverCapabilities } from "../capabilities.ts";
import { openVfioUser, type VfioUserOptions } from "../device.ts";
import { type TestServer, type TestServerOptions, testServer } from "./server.ts";

/** What a server of ours says. */
export const OURS = serverCapabilities({ transferBytesMax: 1024 * 1024, wholeFrames: true, precopyInfo: true });

export const open = (options: TestServerOptions = {}, timeouts: VfioUserOptions = {}) =>
  Effect.gen(function* () {
    const server = yield* testServer(options);
    const device = yield* openVfioUser({ name: "nic0", provider: "vfio-user", socket: server.socketPath }, timeouts);
    return { server, device };
  });

/** Requests of one kind so far. */
export const countOf = (server: TestServer, kind: string): number =>
  server.requests.filter((request) => request.kind === kind).length;
