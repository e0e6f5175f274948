import { runActor } from "@godwit/actor";
import { runVfioAgent } from "./service.ts";

runActor("vfio-agent", "0", runVfioAgent);
