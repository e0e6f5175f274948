/** What the RAM sender says to the VFIO agent of its host, and asks of it. */
import { Fabric } from "@godwit/fabric";
import {
  type Epoch,
  GodwitError,
  json,
  type MigrationId,
  type OfferedDevice,
  type SaveStage,
  subjects,
  VfioAnswer,
  VfioCommand,
  VfioQuestion,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import type { Source } from "./decisions/index.ts";

const commands = json(VfioCommand);
const questions = json(VfioQuestion);
const answers = json(VfioAnswer);

/** A question that is not answered by then is asked again, ms: the agent may be busy with an ioctl of a slow device. */
const ANSWER_MS = 2000;
/** So often: a supervisor needs a second to start an agent again. */
const AGAIN = { schedule: Schedule.spaced("200 millis"), times: 5 };

/** The answer to a question; fails with `vfio-agent-lost` when nobody answers, and with what the agent refuses with. */
const ask = Effect.fnUntraced(function* (node: string, question: VfioQuestion) {
  const fabric = yield* Fabric;
  const data = yield* fabric
    .request(subjects.vfioQuestion(node), questions.encode(question), { timeoutMs: ANSWER_MS })
    .pipe(
      Effect.retry({ ...AGAIN, while: (error) => error._tag !== "GodwitError" }),
      Effect.mapError((error) => (error._tag === "GodwitError" ? error : silent(node, error.message))),
    );
  return yield* answers.decodeEffect(data, "ram-sender");
});

const silent = (node: string, reason: string): GodwitError =>
  new GodwitError({
    code: "vfio-agent-lost",
    actor: "ram-sender",
    side: "source",
    step: "ask the VFIO agent",
    reason: `the VFIO agent of node ${node} does not answer: ${reason}`,
  });

/** The guest's devices, as they are offered to the destination. `x-allow-pre-copy: off` hides PRE_COPY. */
export const describeDevices = Effect.fnUntraced(function* (source: Source) {
  const answer = yield* ask(source.node, { _tag: "Describe", guest: source.guest });
  if (answer._tag !== "Devices") return [];
  const allowed = source.parameters["x-allow-pre-copy"] === "on";
  return answer.devices.map((device): OfferedDevice => ({ ...device, "pre-copy": device["pre-copy"] && allowed }));
});

/** Calls `found` for every run of pages that devices wrote since the sync before; how many pages. */
export const syncDirtyPages = Effect.fnUntraced(function* (
  source: Source,
  sync: number,
  found: (block: number, firstPage: number, pages: number) => void,
) {
  let pages = 0;
  for (let from: number | null = 0; from !== null; ) {
    const answer: VfioAnswer = yield* ask(source.node, {
      _tag: "DirtyPages",
      migration: source.migration as MigrationId,
      epoch: source.epoch as Epoch,
      sync,
      from,
    });
    if (answer._tag !== "DirtyPages") break;
    const { runs } = answer;
    for (let r = 0; r + 2 < runs.length; r += 3) {
      // Beyond the memory that was offered there is nothing to send.
      if (runs[r + 1]! + runs[r + 2]! > (source.blockPages[runs[r]!] ?? 0)) continue;
      found(runs[r]!, runs[r + 1]!, runs[r + 2]!);
      pages += runs[r + 2]!;
    }
    from = answer.next;
  }
  return pages;
});

/** Says to which stage the devices shall be brought; what it comes to is reported. Never fails: it is said again. */
export const tellAgent = Effect.fnUntraced(function* (source: Source, stage: SaveStage) {
  const fabric = yield* Fabric;
  const agent = source.devices?.agent ?? null;
  const command = commands.encode({
    _tag: "Save",
    migration: source.migration as MigrationId,
    epoch: source.epoch as Epoch,
    guest: source.guest,
    peer: source.route.destination,
    stage,
    parameters: source.parameters,
    "parameters-revision": source.parametersRevision,
    "block-bytes": source.offer?.blocks.map((block) => block["length-bytes"]) ?? [],
    "packet-pages-max": source.itemPagesMax,
    ...(agent === null ? {} : { agent: agent as NonNullable<VfioCommand["agent"]> }),
  });
  yield* fabric.request(subjects.vfio(source.node), command, { timeoutMs: ANSWER_MS }).pipe(
    Effect.catchTag("GodwitError", (error) => Effect.logError(`the VFIO agent refuses: ${error.message}`)),
    Effect.ignore,
  );
});
