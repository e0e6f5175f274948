/** `godwit credentials`: who may come in. Works on files alone; connects to nobody. */
import { GodwitError, isSafeName } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, type Outcome } from "../arguments/command.ts";
import { list, text } from "../arguments/option.ts";
import { UsageError } from "../arguments/usage-error.ts";
import { addNode, addRole, initialize, isCentralRole, renewServers, revoke } from "../credentials/folder.ts";
import { unforeseen } from "../reporting/failure.ts";

const ACTIONS = ["init", "node", "role", "server", "revoke"] as const;
type Action = (typeof ACTIONS)[number];
/** What is to be done with what was made. */
const NEXT: Readonly<Record<Action, string>> = {
  init: "copy server/ to every NATS server, include godwit-auth.conf there, and keep private-keys/ to yourself",
  node: "copy this folder to the host, and name it by `godwit node --creds`; servers need not be told",
  role: "put this file in the place of the old one; servers need not be told",
  server: "copy server/ to every NATS server, and let it read its configuration anew (`nats-server --signal reload`)",
  revoke: "copy this file to every NATS server, and let it read its configuration anew (`nats-server --signal reload`)",
};
/** Where a client reaches a server that runs beside it. */
const LOCAL_HOSTS = ["localhost", "127.0.0.1", "::1"];

export const credentials = command({
  operands: { usage: `${ACTIONS.join("|")} DIRECTORY [NAME]`, min: 2, max: 3 },
  options: {
    host: list("HOST", "name or address of a NATS server, for its certificate (default: this machine alone)"),
    "server-dir": text("DIRECTORY", "where server/ will lie on the NATS servers (default: where it is made)"),
    objects: list("BUCKET", "an object store in which the node may keep checkpoints"),
  },
  notes:
    () => `  init DIRECTORY          the keys, the servers' configuration and certificate, users of coordinators, operators and admins
  node DIRECTORY NAME     the users of a node's actors, one for each role; NATS servers need not be told
  role DIRECTORY ROLE     the user of coordinator, operator, observer or admin anew, after it was revoked
  server DIRECTORY        the servers' certificate anew, under the same authority
  revoke DIRECTORY NAME   what was given to this node, or role, counts no more

Nothing that is there is overwritten. Whoever has private-keys/ can make any user: no host needs it. docs/credentials.md goes through it.
`,
  run: ({ values, operands: [action = "", folder = "", name] }) => {
    if (!isAction(action)) throw new UsageError(`${JSON.stringify(action)} is none of ${ACTIONS.join(", ")}`);
    const servers = {
      hosts: values.host.length > 0 ? values.host : LOCAL_HOSTS,
      serverDirectory: values["server-dir"],
    };
    const work = workOf(action, folder, name, servers, values.objects);
    return Effect.map(
      Effect.tryPromise({
        try: work,
        catch: (cause) => (cause instanceof GodwitError ? cause : unforeseen(cause)),
      }),
      (made): Outcome => ({
        document: { made, next: NEXT[action] },
        text: [...made.map((path) => `made ${path}`), NEXT[action], ""].join("\n"),
      }),
    );
  },
});

const isAction = (word: string): word is Action => (ACTIONS as ReadonlyArray<string>).includes(word);

/** Throws a UsageError before anything is begun. */
const workOf = (
  action: Action,
  folder: string,
  name: string | undefined,
  servers: Parameters<typeof initialize>[1],
  objectStores: ReadonlyArray<string>,
): (() => Promise<ReadonlyArray<string>>) => {
  const unwanted = objectStores.find((store) => !isSafeName(store));
  if (unwanted !== undefined) throw new UsageError(`${JSON.stringify(unwanted)} is not the name of an object store`);
  if (action === "init" || action === "server") {
    if (name !== undefined)
      throw new UsageError(`${JSON.stringify(name)} is too much: \`${action}\` takes a folder alone`);
    return () => (action === "init" ? initialize(folder, servers) : renewServers(folder, servers));
  }
  if (name === undefined || !isSafeName(name))
    throw new UsageError(`NAME is ${JSON.stringify(name ?? "")}, not 1 to 64 letters, digits, dashes or underscores`);
  if (action === "role") {
    if (!isCentralRole(name)) throw new UsageError(`${JSON.stringify(name)} is no role that belongs to no node`);
    return () => addRole(folder, name);
  }
  if (action === "revoke") return () => revoke(folder, name);
  if (isCentralRole(name)) throw new UsageError(`a node cannot be called ${JSON.stringify(name)}, which is a role`);
  return () => addNode(folder, name, objectStores);
};
