import { runActor } from "@godwit/actor";
import { runCoordinator } from "./service.ts";

runActor("coordinator", "0", runCoordinator);
