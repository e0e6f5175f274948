// Lists the tests that a run has skipped, from vitest's JSON report: a test's name says why it was skipped.
//   node scripts/skipped-tests.mjs REPORT.json
import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";

const [report] = process.argv.slice(2);
if (report === undefined || !existsSync(report)) {
  console.log(`no report of the tests (${report}): they did not come to their end`);
} else {
  const { testResults } = JSON.parse(readFileSync(report, "utf8"));
  const skipped = testResults.flatMap(({ name, assertionResults }) =>
    assertionResults
      .filter(({ status }) => status !== "passed" && status !== "failed")
      .map(({ fullName }) => `${relative("", name)}: ${fullName}`),
  );
  for (const line of skipped) console.log(line);
  console.log(`${skipped.length} tests skipped`);
}
