import { assert, it } from "vitest";
import { makeLatencies, STOPPING_ARCS } from "./latencies.ts";

it("what a device took is not held against another guest's device of that name", () => {
  const latenciesOf = makeLatencies();
  latenciesOf("vm1").measured("nic0", "PRE_COPY_P2P", "STOP_COPY", 1500);
  assert.strictEqual(latenciesOf("vm1").of("nic0", STOPPING_ARCS), 1500);
  assert.strictEqual(latenciesOf("vm2").of("nic0", STOPPING_ARCS), 0);
});
