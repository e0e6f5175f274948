/** What a NATS server says of itself before anybody has logged in: the INFO line that it greets every connection with. */
import { connect } from "node:net";

export interface NatsGreeting {
  readonly server: string;
  readonly version: string;
  readonly jetStream: boolean;
  readonly serverId: string;
  /** null: it is alone. */
  readonly cluster: string | null;
}

/** How long a server may take to greet, ms. */
const GREETING_MS = 2000;
/** The longest greeting that is read, characters; one with a cluster's addresses has about 1,000. */
const GREETING_LENGTH_MAX = 64 * 1024;
const PORT_DEFAULT = 4222;

/** Host and port of a server as `nats://user:password@host:port`, `host:port` or `host` names it. */
export const addressOf = (server: string): { readonly host: string; readonly port: number } => {
  const url = new URL(server.includes("://") ? server : `nats://${server}`);
  return { host: url.hostname.replace(/^\[(.*)\]$/, "$1"), port: Number(url.port || PORT_DEFAULT) };
};

/** Asks the servers in turn. Rejects with what stood in the way at the last one. */
export const greet = async (servers: string): Promise<NatsGreeting> => {
  let failure: unknown;
  for (const server of servers.split(",")) {
    try {
      return await greetOne(server.trim());
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
};

const greetOne = (server: string): Promise<NatsGreeting> => {
  const { promise, resolve, reject } = Promise.withResolvers<NatsGreeting>();
  const { host, port } = addressOf(server);
  const name = `${host}:${port}`;
  const socket = connect({ host, port });
  let text = "";
  socket.setEncoding("utf8");
  socket.setTimeout(GREETING_MS, () => socket.destroy(new Error(`${name} did not greet within ${GREETING_MS} ms`)));
  socket.on("error", reject);
  socket.on("close", () => reject(new Error(`${name} closed the connection without a greeting`)));
  socket.on("data", (chunk: string) => {
    text += chunk;
    if (!text.includes("\r\n") && text.length <= GREETING_LENGTH_MAX) return;
    try {
      resolve(parseGreeting(name, text));
    } catch (error) {
      reject(error);
    }
    socket.destroy();
  });
  return promise;
};

/** Throws when the line is not a NATS server's. */
export const parseGreeting = (server: string, text: string): NatsGreeting => {
  const json = /^INFO (\{.*\})/.exec(text)?.[1];
  const info: Readonly<Record<string, unknown>> = json === undefined ? {} : JSON.parse(json);
  const { version, jetstream, server_id: id, cluster } = info;
  if (typeof version !== "string") throw new Error(`what answers at ${server} is no NATS server`);
  return {
    server,
    version,
    jetStream: jetstream === true,
    serverId: typeof id === "string" ? id : "",
    cluster: typeof cluster === "string" ? cluster : null,
  };
};
