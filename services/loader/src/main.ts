import { runActor } from "@godwit/actor";
import { runLoader } from "./service.ts";

runActor("loader", "0", runLoader);
