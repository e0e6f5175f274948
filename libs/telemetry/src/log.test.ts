import { spawnSync } from "node:child_process";
import { assert, describe, it } from "@effect/vitest";
import * as Effect from "effect/Effect";
import * as Schema from "effect/Schema";
import { logFailure, withChannel, withMigration } from "./annotations.ts";
import { type LogOptions, layer } from "./log.ts";

class Refused extends Schema.TaggedError<Refused>()("Refused", { offset: Schema.Int }) {
  override get message(): string {
    return `refused at ${this.offset}`;
  }
}

/** Runs a program with a log of its own and returns the lines it wrote. */
const linesOf = <E>(program: Effect.Effect<unknown, E>, options: Partial<LogOptions> = {}) =>
  Effect.gen(function* () {
    const lines: Array<string> = [];
    const destination = { write: (line: string): void => void lines.push(line) };
    const log = layer({ actor: "loader", node: "b", environment: {}, destination, ...options });
    yield* Effect.exit(Effect.provide(program, log));
    return lines;
  });
const recordsOf = <E>(program: Effect.Effect<unknown, E>, options: Partial<LogOptions> = {}) =>
  Effect.map(linesOf(program, options), (lines) => lines.map((line): Record<string, unknown> => JSON.parse(line)));

describe("the log", () => {
  it.effect("carries who speaks, the annotations in force and the fields of the message", () =>
    Effect.gen(function* () {
      const program = Effect.logInfo("round", "done", { round: 2, bytes: 12n }).pipe(
        withChannel(3),
        withMigration("m1"),
      );
      const [record] = yield* recordsOf(program);
      assert.deepStrictEqual(record, {
        level: "info",
        time: "1970-01-01T00:00:00.000Z",
        actor: "loader",
        node: "b",
        pid: process.pid,
        channel: 3,
        migration: "m1",
        round: 2,
        bytes: "12",
        msg: "round done",
      });
    }),
  );

  it.effect("is one line of valid JSON whatever is logged", () =>
    Effect.gen(function* () {
      const odd = [
        '\u0000\n\u2028"',
        1,
        null,
        undefined,
        [1, { a: 2 }],
        new Map([["k", 1]]),
        new Uint8Array(3),
        Symbol("s"),
      ];
      const lines = yield* linesOf(Effect.forEach(odd, (value) => Effect.logInfo(value)));
      assert.lengthOf(lines, odd.length);
      for (const line of lines) {
        assert.strictEqual(line.indexOf("\n"), line.length - 1);
        assert.isString(JSON.parse(line).msg);
      }
    }),
  );

  it.effect("tells a failure, a defect and both together from an interruption", () =>
    Effect.gen(function* () {
      const failed = Effect.fail(new Refused({ offset: 7 }));
      const [failure] = yield* recordsOf(logFailure(failed));
      assert.strictEqual(failure?.["level"], "fatal");
      assert.deepStrictEqual(failure?.["err"], { type: "Refused", message: "refused at 7", offset: 7 });

      const [defect] = yield* recordsOf(logFailure(Effect.die(new RangeError("off by one"))));
      assert.deepInclude(defect?.["err"], { type: "RangeError", message: "off by one" });

      const [both] = yield* recordsOf(logFailure(Effect.ensuring(failed, Effect.die("not even an error"))));
      assert.deepStrictEqual(both?.["causes"], [
        { type: "Refused", message: "refused at 7", offset: 7 },
        { type: "string", message: "not even an error" },
      ]);

      assert.isEmpty(yield* recordsOf(logFailure(Effect.interrupt)));
    }),
  );

  it.effect("keeps a program's own `level` and `time` fields apart from the line's", () =>
    Effect.gen(function* () {
      const [record] = yield* recordsOf(Effect.logInfo("x", { level: 9, actor: "worker" }));
      assert.deepInclude(record, { level: "info", level_: 9, actor: "worker" });
    }),
  );

  it.effect("takes its level from GODWIT_LOG_LEVEL before the actor's own choice", () =>
    Effect.gen(function* () {
      const program = Effect.andThen(Effect.logDebug("fine"), Effect.logWarning("coarse"));
      const levels = (options: Partial<LogOptions>) =>
        Effect.map(recordsOf(program, options), (records) => records.map((record) => record["level"]));
      assert.deepStrictEqual(yield* levels({}), ["warn"]);
      assert.deepStrictEqual(yield* levels({ level: "debug" }), ["debug", "warn"]);
      assert.deepStrictEqual(yield* levels({ level: "debug", environment: { GODWIT_LOG_LEVEL: "WARN" } }), ["warn"]);
      assert.deepStrictEqual(yield* levels({ environment: { GODWIT_LOG_LEVEL: "silent" } }), []);
    }),
  );

  it.effect("says that a level or format does not exist instead of guessing", () =>
    Effect.gen(function* () {
      const environment = { GODWIT_LOG_LEVEL: "loud", GODWIT_LOG_FORMAT: "xml" };
      const messages = (yield* recordsOf(Effect.void, { environment })).map((record) => record["msg"]);
      assert.lengthOf(messages, 2);
      assert.match(String(messages[0]), /GODWIT_LOG_LEVEL="loud" is none of trace, debug/);
      assert.match(String(messages[1]), /GODWIT_LOG_FORMAT="xml" is none of json, pretty/);
    }),
  );

  it.effect("writes for the eye when asked to", () =>
    Effect.gen(function* () {
      const lines = yield* linesOf(Effect.logInfo("up", { port: 4222 }), {
        environment: { GODWIT_LOG_FORMAT: "pretty" },
      });
      assert.deepStrictEqual(lines, ["00:00:00.000 info  loader[b] up port=4222\n"]);
    }),
  );

  it.effect("never shows a password in a URL", () =>
    Effect.gen(function* () {
      const program = Effect.logError("cannot reach nats://ada:secret@10.0.0.1:4222", {
        servers: ["tls://token@host"],
      });
      for (const format of ["json", "pretty"] as const) {
        const line = (yield* linesOf(program, { format })).join("");
        assert.include(line, "nats://***@10.0.0.1:4222");
        assert.notMatch(line, /ada|secret|token/);
      }
    }),
  );

  it("goes to stderr as JSON when that is no terminal, and is complete when the process ends", () => {
    const program = `
      import * as Effect from "effect/Effect";
      import { layer } from ${JSON.stringify(new URL("./log.ts", import.meta.url).href)};
      const many = Effect.forEach(Array.from({ length: 500 }, (_, i) => i), (i) => Effect.logInfo("line", { i }));
      await Effect.runPromise(Effect.provide(many, layer({ actor: "cli", node: "-" })));
      process.exit(0);`;
    const { GODWIT_LOG_LEVEL: _level, GODWIT_LOG_FORMAT: _format, ...env } = process.env;
    const { stdout, stderr, status } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      cwd: import.meta.dirname,
      encoding: "utf8",
      env,
    });
    assert.strictEqual(status, 0, stderr);
    assert.strictEqual(stdout, "");
    const lines = stderr.trimEnd().split("\n");
    assert.deepStrictEqual(
      lines.map((line) => JSON.parse(line).i),
      Array.from({ length: 500 }, (_, i) => i),
    );
  });
});
