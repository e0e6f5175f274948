/** `--guest vm1=qemu:/run/vm1.qmp` and `--guest vm2=builtin:memory=512MiB,dirty-rate=10MiB/s`. */
import { resolve } from "node:path";
import type { BuiltinOptions, GuestSpec } from "@godwit/guest";
import { isSafeName } from "@godwit/protocol";
import { parseSize } from "../terminal/size.ts";
import { list } from "./option.ts";
import { UsageError } from "./usage-error.ts";
import { readSimulated } from "./vfio-argument.ts";

export type GuestArgument =
  | {
      readonly driver: "qemu";
      readonly name: string;
      readonly qmp: string;
      readonly devices?: NonNullable<GuestSpec["devices"]>;
    }
  | { readonly driver: "builtin"; readonly name: string; readonly options: Omit<BuiltinOptions, "directory"> };

/** Memory of a builtin guest unless told otherwise, bytes. */
const MEMORY_BYTES_DEFAULT = 256 * 1024 ** 2;

export const guestOption = list("NAME=DRIVER:...", "a guest of this node, may be repeated; see below");

export const GUEST_HELP = `Guests:
  NAME=qemu:SOCKET        a QEMU by its monitor (-qmp unix:SOCKET,server=on,wait=off). One that runs can be moved away,
                          one that waits with -incoming defer receives. It is left alone when this command ends.
  NAME=builtin:SETTINGS   a process of our own that writes its memory and checks it, for trying things out. It ends with
                          this command. SETTINGS are separated by commas, and each has a default:
                          memory=256MiB, dirty-rate=8MiB/s, working-set=SIZE, vcpus=2, seed=1,
                          vfio=2x300MB (two simulated VFIO devices with so much state each; default none)
`;

/** Throws a UsageError that shows the word. */
export const readGuest = (word: string): GuestArgument => {
  const [, name = "", driver, rest = ""] = /^([^=]*)=(qemu|builtin)(?::(.*))?$/.exec(word) ?? [];
  if (driver === undefined) {
    throw new UsageError(
      `guest ${JSON.stringify(word)} is not NAME=qemu:SOCKET or NAME=builtin:SETTINGS`,
      "write for example vm1=qemu:/run/vm1.qmp or vm2=builtin:memory=512MiB,dirty-rate=10MiB/s",
    );
  }
  if (!isSafeName(name)) {
    throw new UsageError(`guest name ${JSON.stringify(name)} is not 1 to 64 letters, digits, dashes or underscores`);
  }
  if (driver === "builtin") return { driver, name, options: readSettings(name, rest) };
  if (rest === "") throw new UsageError(`guest ${JSON.stringify(word)} names no monitor socket`);
  return { driver: "qemu", name, qmp: resolve(rest) };
};

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const readSettings = (name: string, text: string): Omit<BuiltinOptions, "directory"> => {
  const options: Mutable<Omit<BuiltinOptions, "directory">> = { name, memoryBytes: MEMORY_BYTES_DEFAULT };
  const devices: string[] = [];
  for (const setting of text === "" ? [] : text.split(",")) {
    const [key = "", value = ""] = setting.split("=");
    switch (key) {
      case "memory":
        options.memoryBytes = number(setting, value);
        break;
      case "dirty-rate":
        options.dirtyRateBytesPerSecond = number(setting, value);
        break;
      case "working-set":
        options.workingSetBytes = number(setting, value);
        break;
      case "vcpus":
        options.vcpus = number(setting, value);
        break;
      case "seed":
        options.seed = number(setting, value);
        break;
      case "vfio":
        devices.push(value);
        break;
      default:
        throw new UsageError(
          `guest ${name}: ${JSON.stringify(setting)} is none of memory=, dirty-rate=, working-set=, vcpus=, seed=, vfio=`,
        );
    }
  }
  return devices.length === 0 ? options : { ...options, devices: readSimulated(devices, `guest ${name}: vfio`) };
};

const number = (setting: string, value: string): number => {
  const size = parseSize(value);
  if (size._tag === "Size") return size.bytes;
  throw new UsageError(`${setting}: ${size.reason}`);
};
