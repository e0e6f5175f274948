// What a run of the tests left out and what failed in it, from vitest's JSON report: a group's name says why it was skipped.
//   node scripts/test-outcome.mjs REPORT.json
// Failures come last, since whoever reads a long log reads its end.
import { existsSync, readFileSync } from "node:fs";
import { relative } from "node:path";

/** Lines of a failure's message that are shown: enough for the assertion and the first frames of its stack. */
const MESSAGE_LINES_MAX = 12;

const [report] = process.argv.slice(2);
if (report === undefined || !existsSync(report)) {
  console.log(`no report of the tests (${report}): they did not come to their end`);
} else {
  const { testResults } = JSON.parse(readFileSync(report, "utf8"));
  const tests = testResults.flatMap(({ name, assertionResults }) =>
    assertionResults.map((result) => ({ ...result, file: relative("", name) })),
  );
  const skipped = tests.filter(({ status }) => status !== "passed" && status !== "failed");
  const groups = new Map();
  for (const { file, ancestorTitles } of skipped) {
    const group = `${file}: ${ancestorTitles[0] ?? ""}`;
    groups.set(group, (groups.get(group) ?? 0) + 1);
  }
  for (const [group, count] of groups) console.log(`${group}: ${count} skipped`);
  console.log(`${skipped.length} tests skipped`);

  const first = (message) => message.split("\n").slice(0, MESSAGE_LINES_MAX).join("\n    ");
  for (const { file, fullName, failureMessages } of tests.filter(({ status }) => status === "failed"))
    console.log(`FAILED ${file}: ${fullName}\n    ${first(failureMessages.join("\n"))}`);
  // A file that could not be loaded, or whose set-up failed, has no tests of its own to fail.
  for (const { name, status, message } of testResults)
    if (status === "failed" && message) console.log(`FAILED ${relative("", name)}\n    ${first(message)}`);
}
