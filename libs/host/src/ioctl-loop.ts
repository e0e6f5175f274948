/** The thread of `openIoctlThread`: makes each call that arrives, and tells what came of it. */
import { parentPort } from "node:worker_threads";
import { HostError } from "./host-error.ts";
import { ioctl } from "./ioctl.ts";
import type { NumberedAnswer, NumberedCall } from "./ioctl-thread.ts";

const make = (call: NumberedCall): NumberedAnswer => {
  try {
    const result = ioctl(call);
    const argument = call.argument instanceof Uint8Array ? call.argument : new Uint8Array();
    const pointees = (call.pointees ?? []).map(({ memory }) => memory);
    return { id: call.id, _tag: "Answered", answer: { result, argument, pointees } };
  } catch (error) {
    // Anything else is a mistake in this program, and ends the thread with its stack trace.
    if (!(error instanceof HostError)) throw error;
    return { id: call.id, _tag: "Failed", operation: error.operation, errno: error.errno };
  }
};

parentPort!.on("message", (call: NumberedCall) => parentPort!.postMessage(make(call)));
