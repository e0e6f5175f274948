/** Which files a checkpoint may be: those directly or deeper in one folder of the host, and none that a link leads out of it. */
import { lstatSync, mkdirSync, realpathSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { asidePath } from "./aside.ts";

/** `file:PATH[,offset=BYTES]`, as QEMU writes it. */
export interface FilePlace {
  readonly kind: "file";
  readonly path: string;
  readonly start: number;
}
/** `nats-object:BUCKET/NAME`: an object in a JetStream object store. */
export interface ObjectPlace {
  readonly kind: "object";
  readonly bucket: string;
  readonly name: string;
}
export type Place = FilePlace | ObjectPlace;

const OFFSET = /^(.*),offset=(0x[0-9a-fA-F]{1,13}|[0-9]{1,15})$/;
const BUCKET = /^[A-Za-z0-9_-]{1,64}$/;
const OBJECT = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** What was asked for, or why it is no place of a checkpoint. */
export const parsePlace = (uri: string): Place | { readonly wrong: string } => {
  if (uri.startsWith("file:")) {
    const rest = uri.slice("file:".length);
    const found = OFFSET.exec(rest);
    const path = found === null ? rest : found[1]!;
    const start = found === null ? 0 : Number(found[2]);
    if (path === "" || path.includes("\0")) return { wrong: `${JSON.stringify(uri)} names no file` };
    if (rest.includes(",offset=") && found === null) return { wrong: `file URI has a bad offset: ${uri}` };
    return { kind: "file", path, start };
  }
  if (uri.startsWith("nats-object:")) {
    const [bucket = "", name = "", ...more] = uri.slice("nats-object:".length).split("/");
    if (more.length > 0 || !BUCKET.test(bucket) || !OBJECT.test(name))
      return {
        wrong: `${JSON.stringify(uri)} is not nats-object:BUCKET/NAME with letters, digits, dashes, underscores and, in the name, dots`,
      };
    return { kind: "object", bucket, name };
  }
  return { wrong: `Migration requires seekable transport (e.g. file): ${JSON.stringify(uri)}` };
};

/**
 * The absolute path of a file in `folder`, which must exist; a relative path counts from it. Whatever leads out of it, dots, an absolute
 * path or a symbolic link, is refused with the reason.
 */
export const confine = (folder: string, path: string): { readonly path: string } | { readonly wrong: string } => {
  const outside = { wrong: `${path} is not within the checkpoint folder ${folder}` };
  try {
    const root = realpathSync(folder);
    const wanted = isAbsolute(path) ? resolve(path) : resolve(root, path);
    const name = basename(wanted);
    if (name === "" || name.startsWith(".")) return { wrong: `${path} is no name for a checkpoint` };
    const directory = realpathSync(dirname(wanted));
    if (directory !== root && !directory.startsWith(root + sep)) return outside;
    const inside = join(directory, name);
    if (relative(root, inside).startsWith("..")) return outside;
    const found = lstatSync(inside, { throwIfNoEntry: false });
    if (found !== undefined && !found.isFile()) return { wrong: `${inside} is no regular file` };
    return { path: inside };
  } catch (error) {
    return { wrong: `${path}: ${error instanceof Error ? error.message : String(error)}` };
  }
};

/** Where a checkpoint lies on this host, and the object that it comes from, or becomes in the end. */
export interface HostPlace extends FilePlace {
  readonly object: ObjectPlace | null;
}

/**
 * Where the checkpoint of `uri` lies within `folder`, which is made when it is not there. One of an object store lies there meanwhile,
 * under a name of this save or restore: pages are written at their places, and again, which no object store lets anybody do.
 */
export const placeOnHost = (uri: string, id: string, folder: string): HostPlace | { readonly wrong: string } => {
  const place = parsePlace(uri);
  if ("wrong" in place) return place;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (place.kind === "object")
    return { kind: "file", path: asidePath(folder, place.name, id), start: 0, object: place };
  const inside = confine(folder, place.path);
  return "wrong" in inside ? inside : { ...place, path: inside.path, object: null };
};
