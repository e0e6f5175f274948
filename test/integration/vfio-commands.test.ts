import { Fabric } from "@godwit/fabric";
import {
  type Epoch,
  json,
  type MigrationId,
  PARAMETER_DEFAULTS,
  type SaveStage,
  subjects,
  VfioAnswer,
  VfioCommand,
  VfioQuestion,
} from "@godwit/protocol";
import * as Effect from "effect/Effect";
import { afterAll, beforeAll, expect, it } from "vitest";
import { device, devicesOf, expectDevicesAt } from "./vfio-devices.ts";
import { eventually, MIB, openWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const MIGRATION = "0123456789abcdef" as MigrationId;

const save = (guest: string, stage: SaveStage): Promise<unknown> => {
  const command = json(VfioCommand).encode({
    _tag: "Save",
    migration: MIGRATION,
    epoch: 1 as Epoch,
    guest: guest as VfioCommand["guest"],
    peer: "b",
    stage,
    parameters: PARAMETER_DEFAULTS,
    "parameters-revision": 0,
    "block-bytes": [8 * MIB],
  });
  return world.run(
    Effect.flatMap(Fabric, (fabric) => fabric.request(subjects.vfio("a"), command, { timeoutMs: 10_000 })),
  );
};

it("a command that comes many times at once begins one session, which has the devices for itself", async () => {
  const spec = await world.startGuest({ name: "told", memoryBytes: 8 * MIB, devices: [device("nic0")] });
  await Promise.all(Array.from({ length: 10 }, () => save(spec.name, "precopy")));
  await eventually("the device is in PRE_COPY", async () =>
    (await devicesOf(world, spec.name)).every(({ diagnosis }) => diagnosis?.state === "PRE_COPY"),
  );
  const begun = world.log().match(new RegExp(`"migration":"${MIGRATION}".*saving the guest's devices`, "g")) ?? [];
  expect(begun).toHaveLength(1);
  await save(spec.name, "resumed");
  await expectDevicesAt(world, spec, "a");
});

it("a question about devices that comes many times at once has one answer, and nobody cuts another off", async () => {
  const spec = await world.startGuest({
    name: "asked",
    memoryBytes: 8 * MIB,
    devices: [device("nic0"), device("nic1")],
  });
  const question = json(VfioQuestion).encode({ _tag: "Describe", guest: spec.name as VfioCommand["guest"] });
  const answers = await Promise.all(
    Array.from({ length: 10 }, () =>
      world.run(
        Effect.flatMap(Fabric, (fabric) => fabric.request(subjects.vfioQuestion("a"), question, { timeoutMs: 30_000 })),
      ),
    ),
  );
  for (const bytes of answers) {
    const answer = json(VfioAnswer).decode(bytes);
    expect(answer).toMatchObject({ _tag: "Devices", devices: [{ device: "nic0" }, { device: "nic1" }] });
    expect(answer).toEqual(json(VfioAnswer).decode(answers[0]!));
  }
});
