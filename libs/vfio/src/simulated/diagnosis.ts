/**
 * The one command that only the simulated device has: how it stands. Whoever asks needs no VERSION and takes the device from nobody, so
 * that a judge can look on while an agent works with it.
 *
 *     request   a header                     reply   a header, then the diagnosis as JSON
 */
import { allocateFrame } from "../vfio-user/header.ts";
import type { SimulatedDiagnosis } from "./model.ts";

/** Behind the extensions that vfio-user/header.ts has. */
export const DIAGNOSIS_COMMAND = 0x4758;

export const encodeDiagnosisRequest = (id: number): Uint8Array =>
  allocateFrame("command", id, DIAGNOSIS_COMMAND, 0).frame;

export const encodeDiagnosis = (id: number, diagnosis: SimulatedDiagnosis): Uint8Array => {
  const text = Buffer.from(JSON.stringify(diagnosis));
  const { frame, body } = allocateFrame("reply", id, DIAGNOSIS_COMMAND, text.length);
  body.set(text);
  return frame;
};

/** The body of its reply; it comes from a process of ours and is not checked. */
export const decodeDiagnosis = (body: Uint8Array): SimulatedDiagnosis => JSON.parse(Buffer.from(body).toString());
