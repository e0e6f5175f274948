/** How a judge looks at a simulated device in its process. */
import { connect } from "node:net";
import { errnoOf } from "@godwit/host";
import * as Effect from "effect/Effect";
import { DeviceError } from "../device.ts";
import { decodeHeader, FRAME_BYTES_MAX, HEADER_BYTES } from "../vfio-user/header.ts";
import { decodeDiagnosis, encodeDiagnosisRequest } from "./diagnosis.ts";
import { DeviceFailure } from "./failure.ts";
import type { SimulatedDiagnosis } from "./model.ts";

/** It answers between two steps of its own, ms. */
const ANSWER_TIMEOUT_MS = 5_000;

/** Asks a device how it stands, also while it works for an agent. It takes the device from nobody. */
export const diagnose = (device: {
  readonly name: string;
  readonly socket: string;
}): Effect.Effect<SimulatedDiagnosis, DeviceError> =>
  ask(device.socket).pipe(
    Effect.timeoutOrElse({
      duration: ANSWER_TIMEOUT_MS,
      orElse: () => Effect.fail(new DeviceFailure("ETIMEDOUT", `no answer within ${ANSWER_TIMEOUT_MS} ms`)),
    }),
    Effect.mapError(
      ({ errno, message }) => new DeviceError({ device: device.name, operation: "diagnosis", errno, reason: message }),
    ),
  );

/** One frame out, one frame back. */
const ask = (path: string): Effect.Effect<SimulatedDiagnosis, DeviceFailure> =>
  Effect.callback((resume) => {
    const socket = connect(path);
    let bytes = Buffer.alloc(0);
    const settle = (outcome: Effect.Effect<SimulatedDiagnosis, DeviceFailure>): void => {
      socket.removeAllListeners("close");
      socket.destroy();
      resume(outcome);
    };
    const refuse = (errno: string, reason: string): void => settle(Effect.fail(new DeviceFailure(errno, reason)));
    socket.on("connect", () => socket.write(encodeDiagnosisRequest(1)));
    socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      if (bytes.length < HEADER_BYTES) return;
      const header = decodeHeader(bytes);
      if ("kind" in header) refuse("EPROTO", header.reason);
      else if (header.errno !== 0) refuse("EPROTO", "not a simulated device");
      else if (bytes.length > FRAME_BYTES_MAX) refuse("EPROTO", "too long an answer");
      else if (bytes.length >= header.frameBytes) {
        settle(Effect.sync(() => decodeDiagnosis(bytes.subarray(HEADER_BYTES, header.frameBytes))));
      }
    });
    socket.on("error", (cause) => refuse(errnoOf(cause), cause.message));
    socket.on("close", () => refuse("EPIPE", "it broke off"));
    return Effect.sync(() => socket.destroy());
  });
