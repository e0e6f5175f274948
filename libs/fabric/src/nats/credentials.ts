/** The credentials by which NATS knows an actor: one file, or a folder with a file for each role. */
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { FabricError } from "../errors.ts";

export interface Credentials {
  readonly path: string;
  readonly content: Uint8Array;
  /** The user's name: `<role>.<node>`. */
  readonly user: string;
  /** Under which the user may have inboxes; undefined: under any. */
  readonly inboxPrefix?: string;
}

const JWT = /-----BEGIN NATS USER JWT-----\s*[^\s.]+\.([^\s.]+)\.[^\s.]+\s*---+END/;
/** What lets a user have inboxes of its own, where it may not have others. */
const OWN_INBOXES = /^(_INBOX\.[A-Za-z0-9_.-]+)\.>$/;

const refusal = (path: string, reason: string): FabricError =>
  new FabricError({ code: "nats-denied", operation: `read the credentials ${path}`, reason, retryable: false });

/** The file of this role: `path` itself, or `<role>.creds` in it where it is a folder. What is neither is for who reads it to complain of. */
export const credentialsFile = (path: string, role: string): string => {
  try {
    return statSync(path).isDirectory() ? join(path, `${role}.creds`) : path;
  } catch {
    return path;
  }
};

/** `path`: a file, or a folder that holds `<role>.creds`. Throws a `nats-denied` FabricError. */
export const readCredentials = (path: string, role: string | undefined): Credentials => {
  const file = role === undefined ? path : credentialsFile(path, role);
  try {
    const content = readFileSync(file);
    return { path: file, content, ...userOf(content.toString("utf8"), file) };
  } catch (error) {
    if (error instanceof FabricError) throw error;
    throw refusal(file, error instanceof Error ? error.message : String(error));
  }
};

/** Whether the words are true is for the server to say. */
const userOf = (text: string, path: string): Omit<Credentials, "path" | "content"> => {
  const claims = JWT.exec(text)?.[1];
  if (claims === undefined) throw refusal(path, "it holds no user JWT");
  const { name, nats } = JSON.parse(Buffer.from(claims, "base64url").toString("utf8"));
  const allowed: unknown = nats?.sub?.allow;
  const own = (Array.isArray(allowed) ? allowed : []).map((subject) => OWN_INBOXES.exec(String(subject))?.[1]);
  const inboxPrefix = own.find((prefix) => prefix !== undefined);
  return { user: String(name ?? ""), ...(inboxPrefix === undefined ? {} : { inboxPrefix }) };
};
