/** The guests of one node: a JSON file for each in `<runtime directory>/guests/`, written whole, so that a reader never sees half of one. */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DEVICES_MAX, isSafeName } from "@godwit/protocol";
import { DeviceSpec } from "@godwit/vfio";
import * as Schema from "effect/Schema";
import type { GuestSpec, Moving } from "./guest.ts";

const moving = Schema.optionalKey(Schema.Literals(["arriving", "leaving", "saving"]));
const epoch = Schema.optionalKey(Schema.Natural);
const devices = Schema.optionalKey(Schema.Array(DeviceSpec).check(Schema.isMaxLength(DEVICES_MAX)));
const Spec = Schema.Union([
  Schema.Struct({
    driver: Schema.Literal("builtin"),
    name: Schema.String,
    socket: Schema.String,
    pid: Schema.Int,
    moving,
    epoch,
    devices,
  }),
  Schema.Struct({
    driver: Schema.Literal("qemu"),
    name: Schema.String,
    qmp: Schema.String,
    launch: Schema.optionalKey(Schema.Array(Schema.String)),
    moving,
    epoch,
    devices,
  }),
]);
const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Spec));

export interface Registry {
  readonly list: () => ReadonlyArray<GuestSpec>;
  readonly find: (name: string) => GuestSpec | null;
  readonly put: (spec: GuestSpec) => void;
  readonly remove: (name: string) => void;
  /** Notes that a migration has the guest in hand. Nothing happens to a guest that is not there. */
  readonly mark: (name: string, moving: Moving) => void;
  /** Takes that note away: the guest was handed over, waits anew, or goes on. Nothing happens to a guest that is not there. */
  readonly settle: (name: string) => void;
}

const SUFFIX = ".json";

/** Throws what the file system throws, and an Error that names the file for one that holds no guest of its name. */
export const openRegistry = (runtimeDirectory: string): Registry => {
  const directory = join(runtimeDirectory, "guests");
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const pathOf = (name: string): string => {
    if (!isSafeName(name))
      throw new Error(`guest name ${JSON.stringify(name)} is not 1 to 64 letters, digits, dashes or underscores`);
    return join(directory, name + SUFFIX);
  };
  const read = (name: string): GuestSpec | null => {
    const path = pathOf(name);
    try {
      const spec = decode(readFileSync(path, "utf8"));
      if (spec.name !== name) throw new Error(`it speaks of guest ${JSON.stringify(spec.name)}`);
      return spec;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
      const reason = error instanceof Error ? error.message : String(error);
      throw new Error(`${path} is no file of a guest: ${reason}`, { cause: error });
    }
  };
  const put = (spec: GuestSpec): void => {
    const path = pathOf(spec.name);
    writeFileSync(`${path}.${process.pid}`, JSON.stringify(spec), { mode: 0o600 });
    renameSync(`${path}.${process.pid}`, path);
  };
  return {
    list: () =>
      readdirSync(directory)
        .filter((file) => file.endsWith(SUFFIX))
        .map((file) => file.slice(0, -SUFFIX.length))
        // What cannot be a guest's name was put there by somebody else.
        .filter(isSafeName)
        .map(read)
        .filter((spec) => spec !== null),
    find: read,
    put,
    remove: (name) => rmSync(pathOf(name), { force: true }),
    mark: (name, moving) => {
      const spec = read(name);
      if (spec !== null) put({ ...spec, moving });
    },
    settle: (name) => {
      const spec = read(name);
      if (spec?.moving === undefined) return;
      const { moving: _moving, epoch: _epoch, ...settled } = spec;
      put(settled);
    },
  };
};
