import { openNatsWorld } from "../conformance/nats-world.ts";
import { fabricConformance } from "../fabric.conformance.ts";

fabricConformance("a real nats-server", openNatsWorld);
