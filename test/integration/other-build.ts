/** A build of godwit that speaks another version of the protocol: these very sources in a folder of their own, with other constants. */
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ProtocolVersion } from "@godwit/protocol";
import { ROOT } from "../cli/godwit-process.ts";

/** A field that no build of this version knows. */
const UNKNOWN_FIELD = `"from-another-version": [{ "unknown": true }]`;

/** Its root is `directory`, which must not be there yet; packages are those of this clone. */
export const makeBuild = (directory: string, { major, minor }: ProtocolVersion): string => {
  for (const folder of ["libs", "services", "scripts"])
    cpSync(join(ROOT, folder), join(directory, folder), {
      recursive: true,
      filter: (path) => !/\.test\.ts$/.test(path),
    });
  cpSync(join(ROOT, "package.json"), join(directory, "package.json"));
  const [packages, own] = [join(directory, "node_modules"), join(directory, "node_modules", "@godwit")];
  mkdirSync(own, { recursive: true });
  for (const name of readdirSync(join(ROOT, "node_modules")))
    if (name !== "@godwit" && !name.startsWith("."))
      symlinkSync(join(ROOT, "node_modules", name), join(packages, name));
  for (const folder of ["libs", "services"])
    for (const name of readdirSync(join(directory, folder)))
      symlinkSync(join(directory, folder, name), join(own, name));
  const protocol = join(directory, "libs", "protocol", "src");
  replace(join(protocol, "version.ts"), /\{ major: \d+, minor: \d+ \};/, `{ major: ${major}, minor: ${minor} };`);
  replace(join(protocol, "json.ts"), /const SPOKEN = \{/, `const SPOKEN = { ${UNKNOWN_FIELD},`);
  return directory;
};

const replace = (path: string, what: RegExp, by: string): void => {
  const text = readFileSync(path, "utf8");
  if (text.split(what).length !== 2) throw new Error(`${path} has not exactly one ${what}`);
  writeFileSync(path, text.replace(what, by));
};
