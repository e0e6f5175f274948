/** Saves and restores of a world: asked for, and followed to their end. */
import { randomId } from "@godwit/actor";
import type { BuiltinSpec } from "@godwit/guest";
import {
  type CheckpointInfo,
  type GodwitError,
  isCheckpointOver,
  type RestoreRequest,
  type SaveRequest,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import * as Schedule from "effect/Schedule";
import { queryRestore, querySave, restore, save } from "../../services/cli/src/client.ts";
import { eventually, type World } from "./world.ts";

/** A sender that was killed is asked again until it is back: the id says that it is the same save. */
const UNTIL_IT_IS_BACK = {
  schedule: Schedule.spaced("100 millis"),
  while: ({ code }: GodwitError) => code === "nats-unreachable",
};
const BACK_WITHIN = "120 seconds";

/** Asks a node for a save of a guest that runs on; returns its id. */
export const beginSave = async (
  world: World,
  node: string,
  guest: string,
  uri: string,
  more: Partial<SaveRequest> = {},
): Promise<SaveRequest["id"]> => {
  const id = randomId() as SaveRequest["id"];
  const request = { id, guest, uri, parameters: {}, capabilities: {}, stop: false, checksums: false, ...more };
  await world.run(Effect.retry(save(node, request), UNTIL_IT_IS_BACK).pipe(Effect.timeout(BACK_WITHIN)));
  return id;
};

/** Asks a node for a restore, whole before the guest runs; returns its id. */
export const beginRestore = async (
  world: World,
  node: string,
  guest: string,
  uri: string,
  more: Partial<RestoreRequest> = {},
): Promise<RestoreRequest["id"]> => {
  const id = randomId() as RestoreRequest["id"];
  const flags = { stop: false, lazy: false, takeOver: false };
  await world.run(restore(node, { id, guest, uri, parameters: {}, capabilities: {}, ...flags, ...more }));
  return id;
};

const over = async (what: string, ask: () => Promise<CheckpointInfo>): Promise<CheckpointInfo> => {
  let info = await ask();
  await eventually(`${what} ends`, async () => {
    info = await ask();
    return isCheckpointOver(info);
  });
  return info;
};

export const endOfSave = (world: World, node: string, id: SaveRequest["id"]): Promise<CheckpointInfo> =>
  over(`save ${id}`, () => world.run(querySave(node, { id })));

export const saved = async (...[world, node, ...asked]: Parameters<typeof beginSave>): Promise<CheckpointInfo> =>
  endOfSave(world, node, await beginSave(world, node, ...asked));

export const restored = async (
  ...[world, node, ...asked]: Parameters<typeof beginRestore>
): Promise<CheckpointInfo> => {
  const id = await beginRestore(world, node, ...asked);
  return over(`restore ${id}`, () => world.run(queryRestore(node, { id })));
};

/** As when a host loses its power. */
export const endGuest = async (world: World, spec: BuiltinSpec): Promise<void> => {
  process.kill(spec.pid, "SIGKILL");
  await eventually("the guest's process is gone", () => world.processesOf(spec.name).length === 0);
};
