/** Holds devices open as a VMM does; their descriptors are borrowed by who started it. Asked and answered over Node's own channel to its parent. */
import { openKernelDevice } from "@godwit/vfio";
import * as Effect from "effect/Effect";
import * as Exit from "effect/Exit";
import * as Scope from "effect/Scope";
import type { LendingAnswer, LendingRequest } from "./lender.ts";

const held = new Map<number, Scope.Closeable>();

const open = async (device: string): Promise<number> => {
  const scope = Scope.makeUnsafe();
  const { descriptor } = await Effect.runPromise(Scope.provide(openKernelDevice({ name: "held", device }), scope));
  held.set(descriptor, scope);
  return descriptor;
};
const close = async (descriptor: number): Promise<number> => {
  const scope = held.get(descriptor);
  if (scope !== undefined) await Effect.runPromise(Scope.close(scope, Exit.void));
  held.delete(descriptor);
  return descriptor;
};

process.on("message", (request: LendingRequest) => {
  const answered = request._tag === "Open" ? open(request.device) : close(request.descriptor);
  answered.then(
    (descriptor) => process.send!({ _tag: "Done", descriptor } satisfies LendingAnswer),
    (cause) => process.send!({ _tag: "Failed", reason: String(cause) } satisfies LendingAnswer),
  );
});
// Nobody is left to borrow anything.
process.on("disconnect", () => process.exit(0));
