/** `--set name=value` and `--capability name[=on|off]`: settings of a migration by QEMU's names. */
import { PARAMETERS, type ParameterName, parseParameter } from "@godwit/protocol";
import { parseSize } from "../terminal/size.ts";
import { parseDuration } from "./duration.ts";
import { list } from "./option.ts";
import { UsageError } from "./usage-error.ts";

/** The options of every command that starts a migration. */
export const migrationOptions = {
  set: list("NAME=VALUE", "sets a migration parameter, may be repeated; names and ranges are listed below"),
  capability: list("NAME[=on|off]", "switches a capability, may be repeated; the names are listed below"),
} as const;

/** The value of a parameter. Sizes and times may carry a unit; what cannot be read is left to the coordinator, which knows the range. */
const readParameter = (name: string, text: string): unknown => {
  const unit = Object.hasOwn(PARAMETERS, name) ? PARAMETERS[name as ParameterName].unit : "";
  if (unit === "bytes/s") {
    const size = parseSize(text);
    if (size._tag === "Size") return size.bytes;
  }
  if (unit === "ms") return parseDuration(text) ?? parseParameter(name, text);
  return parseParameter(name, text);
};

/** `["downtime-limit=300ms"]` as a record. Whether names and values are right is for the coordinator to say. */
export const readParameters = (settings: ReadonlyArray<string>): Record<string, unknown> =>
  Object.fromEntries(
    settings.map((setting) => {
      const [, name, value] = /^([^=]+)=(.*)$/.exec(setting) ?? [];
      if (name === undefined || value === undefined) {
        throw new UsageError(`${JSON.stringify(setting)} is not NAME=VALUE, for example downtime-limit=100`);
      }
      return [name, readParameter(name, value)];
    }),
  );

const SWITCH = new Map([
  ["on", true],
  ["true", true],
  ["off", false],
  ["false", false],
]);

/** `["pause-before-switchover", "events=off"]` as a record. */
export const readCapabilities = (settings: ReadonlyArray<string>): Record<string, boolean> =>
  Object.fromEntries(
    settings.map((setting) => {
      const [name = "", value = "on"] = setting.split("=");
      const on = SWITCH.get(value);
      if (name === "" || on === undefined) {
        throw new UsageError(`capability ${JSON.stringify(setting)} is not NAME, NAME=on or NAME=off`);
      }
      return [name, on];
    }),
  );
