/**
 * The folder of all credentials, which stays with whoever administers godwit; each part of it goes to where it is used:
 *
 *     private-keys/                    stays here: with them anybody can make users and certificates
 *     server/                          to every NATS server: godwit-auth.conf, server.pem, server-key.pem
 *     nodes/<node>/                    to that host: <role>.creds, ca.pem
 *     coordinator/                     to where coordinators run: coordinator.creds, ca.pem
 *     operator.creds, observer.creds   to those who use the command line: all of it, or only to look
 *     admin.creds                      for `godwit setup-nats`
 *     ca.pem                           the authority of the servers' certificate, public
 *
 * Every file is readable by its owner alone. No credentials that are there are overwritten.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { CENTRAL_ROLES, type CentralRole, GodwitError, NODE_ROLES } from "@godwit/protocol";
import { issueUser, makeSeeds, type Revocations, type Seeds, trustOf, userKeyOf, vouch } from "./authority.ts";
import { makeCertificateAuthority, makeServerCertificate } from "./certificates.ts";
import {
  CERTIFICATE_AUTHORITY,
  INCLUDED_FILE,
  SERVER_CERTIFICATE_FILE,
  SERVER_KEY_FILE,
  serverConfigurationOf,
} from "./server-configuration.ts";

const PRIVATE = "private-keys";
const PRIVATE_README = `These are the private keys behind every NATS user of godwit, and behind the certificate of its servers. No host needs them:
keep this folder where only its administrator reads it, best not on a machine that is online, and keep a copy. Who has it can
make a user that may do everything. It is needed to add a node, to revoke one, and to renew the servers' certificate.
`;
const SEED_FILES = { operator: "operator.seed", account: "account.seed", system: "system-account.seed" } as const;
const VOUCHERS = { operatorJwt: "operator.jwt", systemJwt: "system-account.jwt" } as const;
const REVOCATIONS = "revocations.json";
const CA_KEY = "ca-key.pem";

export interface Servers {
  /** Names and addresses of the NATS servers. */
  readonly hosts: ReadonlyArray<string>;
  /** Where `server/` will lie on the servers; null: where it is made. */
  readonly serverDirectory: string | null;
}

const failed = (code: "credentials-exist" | "no-credentials", step: string, reason: string): GodwitError =>
  new GodwitError({ code, actor: "cli", step, reason });

const refuseIfThere = (path: string): void => {
  if (existsSync(path)) throw failed("credentials-exist", "make credentials", `${path} is there already`);
};

export const isCentralRole = (name: string): name is CentralRole =>
  (CENTRAL_ROLES as ReadonlyArray<string>).includes(name);

const privatePath = (folder: string, name: string): string => join(folder, PRIVATE, name);

/** Whole or not at all, and only for its owner's eyes. */
const write = (path: string, content: string | Uint8Array): void => {
  writeFileSync(`${path}.new`, content, { mode: 0o600 });
  renameSync(`${path}.new`, path);
};
const directory = (...parts: ReadonlyArray<string>): string => {
  const path = join(...parts);
  mkdirSync(path, { recursive: true, mode: 0o700 });
  return path;
};

const readSeeds = (folder: string): Seeds => {
  if (!existsSync(privatePath(folder, SEED_FILES.account)))
    throw failed("no-credentials", "read the private keys", `${join(folder, PRIVATE)} does not hold them`);
  const read = (name: string): string => readFileSync(privatePath(folder, name), "utf8").trim();
  return { operator: read(SEED_FILES.operator), account: read(SEED_FILES.account), system: read(SEED_FILES.system) };
};
const readRevocations = (folder: string): Revocations =>
  existsSync(privatePath(folder, REVOCATIONS))
    ? JSON.parse(readFileSync(privatePath(folder, REVOCATIONS), "utf8"))
    : {};

const writeServerFiles = async (folder: string, serverDirectory: string | null): Promise<void> => {
  const target = directory(folder, "server");
  const place = join(folder, PRIVATE, "server-directory");
  // Where it lies is said once, and holds for every file that is made anew.
  if (serverDirectory !== null || !existsSync(place)) write(place, serverDirectory ?? resolve(target));
  const read = (name: string): string => readFileSync(privatePath(folder, name), "utf8");
  const vouchers = { operatorJwt: read(VOUCHERS.operatorJwt), systemJwt: read(VOUCHERS.systemJwt) };
  const trust = await trustOf(readSeeds(folder), vouchers, readRevocations(folder));
  write(join(target, INCLUDED_FILE), serverConfigurationOf(trust, readFileSync(place, "utf8")));
};

const writeCertificate = async (folder: string, hosts: ReadonlyArray<string>): Promise<void> => {
  const authority = {
    keyPem: readFileSync(privatePath(folder, CA_KEY), "utf8"),
    certificatePem: readFileSync(join(folder, CERTIFICATE_AUTHORITY), "utf8"),
  };
  const made = await makeServerCertificate(authority, hosts, Date.now());
  const target = directory(folder, "server");
  write(join(target, SERVER_KEY_FILE), made.keyPem);
  write(join(target, SERVER_CERTIFICATE_FILE), made.certificatePem);
};

/** Where the credentials of a role that belongs to no node lie. */
const centralPath = (folder: string, role: CentralRole): string =>
  role === "coordinator" ? join(directory(folder, "coordinator"), "coordinator.creds") : join(folder, `${role}.creds`);

/** Makes everything but the nodes' users; returns the files that go elsewhere. */
export const initialize = async (folder: string, servers: Servers): Promise<ReadonlyArray<string>> => {
  refuseIfThere(join(folder, PRIVATE));
  directory(folder, PRIVATE);
  const seeds = makeSeeds();
  write(privatePath(folder, "README.txt"), PRIVATE_README);
  for (const [name, file] of Object.entries(SEED_FILES)) write(privatePath(folder, file), seeds[name as keyof Seeds]);
  const vouchers = await vouch(seeds);
  for (const [name, file] of Object.entries(VOUCHERS))
    write(privatePath(folder, file), vouchers[name as keyof typeof VOUCHERS]);
  const authority = await makeCertificateAuthority(Date.now());
  write(privatePath(folder, CA_KEY), authority.keyPem);
  write(join(folder, CERTIFICATE_AUTHORITY), authority.certificatePem);
  await writeCertificate(folder, servers.hosts);
  await writeServerFiles(folder, servers.serverDirectory);
  const made = [join(folder, "server")];
  for (const role of CENTRAL_ROLES) {
    const path = centralPath(folder, role);
    write(path, await issueUser(seeds, { role }));
    made.push(path);
  }
  write(join(folder, "coordinator", CERTIFICATE_AUTHORITY), authority.certificatePem);
  return made;
};

/** Makes a node's users. */
export const addNode = async (
  folder: string,
  node: string,
  objectStores: ReadonlyArray<string>,
): Promise<ReadonlyArray<string>> => {
  const seeds = readSeeds(folder);
  const target = join(folder, "nodes", node);
  refuseIfThere(target);
  directory(target);
  for (const role of NODE_ROLES)
    write(join(target, `${role}.creds`), await issueUser(seeds, { role, node }, { objectStores }));
  write(join(target, CERTIFICATE_AUTHORITY), readFileSync(join(folder, CERTIFICATE_AUTHORITY)));
  return [target];
};

/** Makes the user of a role that belongs to no node, after it was revoked. */
export const addRole = async (folder: string, role: CentralRole): Promise<ReadonlyArray<string>> => {
  const seeds = readSeeds(folder);
  const path = centralPath(folder, role);
  refuseIfThere(path);
  write(path, await issueUser(seeds, { role }));
  return [path];
};

/** Renews the servers' certificate, under the same authority. */
export const renewServers = async (folder: string, servers: Servers): Promise<ReadonlyArray<string>> => {
  readSeeds(folder);
  await writeCertificate(folder, servers.hosts);
  await writeServerFiles(folder, servers.serverDirectory);
  return [join(folder, "server")];
};

/**
 * What was given to the node, or to the role that belongs to none, is no longer here, and counts no more once servers have read their
 * configuration anew.
 */
export const revoke = async (folder: string, name: string): Promise<ReadonlyArray<string>> => {
  readSeeds(folder);
  const ofNode = join(folder, "nodes", name);
  const target = existsSync(ofNode) || !isCentralRole(name) ? ofNode : centralPath(folder, name);
  if (!existsSync(target))
    throw failed("no-credentials", "revoke credentials", `${target} is not there; nothing was given to ${name}`);
  const files = target === ofNode ? readdirSync(target).map((file) => join(target, file)) : [target];
  const now = Math.floor(Date.now() / 1000);
  const revoked = files
    .filter((file) => file.endsWith(".creds"))
    .map((file) => [userKeyOf(readFileSync(file)), now] as const);
  write(
    privatePath(folder, REVOCATIONS),
    JSON.stringify({ ...readRevocations(folder), ...Object.fromEntries(revoked) }, null, 2),
  );
  await writeServerFiles(folder, null);
  rmSync(target, { recursive: true });
  return [join(folder, "server", INCLUDED_FILE)];
};
