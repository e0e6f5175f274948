import * as Effect from "effect/Effect";
import { deviceConformance } from "../device.conformance.ts";
import type { VfioDevice } from "../device.ts";
import { plugSimulated, type SimulatedDevice } from "./in-process.ts";
import { parseSimulatedSpec, type SimulatedOptions } from "./spec.ts";

const pairOf = (options: Partial<SimulatedOptions>) =>
  Effect.gen(function* () {
    const plug = (role: "boot" | "incoming") =>
      Effect.flatMap(
        parseSimulatedSpec({ name: role, role, stateBytes: 50_000, initialBytes: 3000, seed: role.length, ...options }),
        plugSimulated,
      );
    const source = yield* plug("boot");
    const destination = yield* plug("incoming");
    const digests = (device: VfioDevice) => (device as SimulatedDevice).diagnosis;
    return {
      source: source.open,
      destination: destination.open,
      isEqual: (from: VfioDevice, to: VfioDevice) =>
        Effect.map(
          Effect.all([digests(from), digests(to)]),
          ([saved, loaded]) => saved.saved?.digest === loaded.loaded?.digest,
        ),
    };
  });

for (const p2p of [false, true]) {
  for (const preCopy of [false, true]) {
    const facts = {
      features: { stopCopy: true, p2p, preCopy },
      config: true,
      dirtyLogging: false,
      precopyInfo: true,
      stopCopyBytes: true,
      loads: true,
    };
    deviceConformance(`simulated, P2P ${p2p}, PRE_COPY ${preCopy}`, facts, pairOf({ p2p, preCopy }));
  }
}
