import type { Fabric } from "@godwit/fabric";
import type { CheckpointList, MigrationId, MigrationInfo } from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { command, ONE_MIGRATION, type Outcome } from "../arguments/command.ts";
import { readMigration } from "../arguments/migration-operand.ts";
import { flag } from "../arguments/option.ts";
import { checkpointDocument } from "../checkpoint-journey.ts";
import { findMigration, listCheckpoints, listMigrations } from "../client.ts";
import { natsOptions, onNats } from "../connection.ts";
import { migrationDocument } from "../reporting/ending.ts";
import { checkpointsTable, fieldsText, migrationsTable } from "../reporting/status-text.ts";

export const status = command({
  operands: ONE_MIGRATION,
  options: { all: flag("list all migrations that are known, oldest first"), ...natsOptions },
  notes: () =>
    "Without MIGRATION: the newest, and the saves and restores that are under way (`checkpoints` in JSON; with --all behind the migrations).\nNames and units are those of QEMU's query-migrate: ms, bytes, megabits/s. A save or a restore can be named as well.\n",
  run: ({ values, operands: [operand] }, report) => {
    const wanted = readMigration(operand);
    // A coordinator of an older build does not know the question.
    const checkpoints = listCheckpoints({}).pipe(
      Effect.catch((error) => {
        report.note(`saves and restores cannot be shown: ${error.message}`);
        return Effect.succeed<CheckpointList>([]);
      }),
    );
    return onNats(values, values.all ? all(checkpoints) : wanted === undefined ? newest(checkpoints) : one(wanted));
  },
});

type Checkpoints = Effect.Effect<CheckpointList, never, Fabric>;

/** Texts one below the other, those that say something. */
const paragraphs = (...texts: ReadonlyArray<string>): string => texts.filter((text) => text !== "").join("\n");

const outcomeOf = (migration: MigrationInfo | null, checkpoints: CheckpointList): Outcome => ({
  document: {
    ...(migration === null ? {} : migrationDocument(migration)),
    ...(checkpoints.length === 0 ? {} : { checkpoints: checkpoints.map(checkpointDocument) }),
  },
  text: paragraphs(migration === null ? "" : fieldsText(migration), checkpointsTable(checkpoints)),
});

const all = (checkpoints: Checkpoints) =>
  Effect.map(
    Effect.all([listMigrations({}), checkpoints], { concurrency: "unbounded" }),
    ([migrations, underWay]): Outcome => ({
      document: [...migrations.map(migrationDocument), ...underWay.map(checkpointDocument)],
      text: paragraphs(migrationsTable(migrations), checkpointsTable(underWay)),
    }),
  );

const newest = Effect.fnUntraced(function* (checkpoints: Checkpoints) {
  const both = [Effect.result(findMigration(undefined)), checkpoints] as const;
  const [found, underWay] = yield* Effect.all(both, { concurrency: "unbounded" });
  if (found._tag === "Success") return outcomeOf(found.success, underWay);
  // Without a migration a save is something to show all the same.
  if (found.failure.code === "no-such-migration" && underWay.length > 0) return outcomeOf(null, underWay);
  return yield* found.failure;
});

/** A migration, or a save or restore that is under way. */
const one = (id: MigrationId) =>
  findMigration(id).pipe(
    Effect.map((info) => outcomeOf(info, [])),
    Effect.catchIf(
      ({ code }) => code === "no-such-migration",
      (error) =>
        Effect.flatMap(listCheckpoints({}), (underWay) => {
          const found = underWay.find((info) => info.id === id);
          return found === undefined
            ? Effect.fail(error)
            : Effect.succeed<Outcome>({ document: checkpointDocument(found), text: checkpointsTable([found]) });
        }),
    ),
  );
