import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { trackerCases } from "../testing/tracker-cases.ts";

const root = process.getuid!() === 0;
const NOBODY = 65_534;
const title = root
  ? "trackers of a plain user, on a guest of the same user"
  : "trackers of a plain user (skipped: these tests do not run as root, so all others are about that)";

describe.skipIf(!root)(title, () => {
  it("keep every statement of the conformance suite", async () => {
    const program = fileURLToPath(new URL("../testing/plain-user.ts", import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [program], { uid: NOBODY, gid: NOBODY });
    const verdicts = JSON.parse(stdout) as ReadonlyArray<{ readonly failure: string | null }>;
    expect(verdicts).toHaveLength(2 * trackerCases.length);
    expect(verdicts.filter(({ failure }) => failure !== null)).toEqual([]);
  });
});
