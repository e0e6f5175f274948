import { resumePaused } from "../client.ts";
import { sayAndFollow } from "./say-and-follow.ts";

export const continueCommand = sayAndFollow(
  resumePaused,
  "With the capability pause-before-switchover a migration waits in pre-switchover, the guest\nstopped, for this. Follows it to its end.\n",
);
