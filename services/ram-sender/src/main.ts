import { runActor } from "@godwit/actor";
import { runSender } from "./service.ts";

runActor("ram-sender", "0", runSender);
