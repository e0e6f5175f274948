/** Credentials for the actors of two hosts, as one NATS account issues them. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { makeAccount } from "../../libs/encryption/src/testing/account.ts";

const ROLES = ["ram-sender", "loader", "multifd-worker", "vfio-agent"];

/** Writes `<directory>/<node>/<role>.creds`; returns where those of a node are. */
export const issueCredentials = (directory: string, nodes: ReadonlyArray<string>): ((node: string) => string) => {
  const account = makeAccount();
  for (const node of nodes) {
    mkdirSync(join(directory, node), { recursive: true });
    for (const role of ROLES)
      writeFileSync(join(directory, node, `${role}.creds`), account.credentials(`${role}.${node}`), { mode: 0o600 });
  }
  return (node) => join(directory, node);
};
