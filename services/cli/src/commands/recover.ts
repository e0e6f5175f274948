import { recoverPostcopy } from "../client.ts";
import { sayAndFollow } from "./say-and-follow.ts";

export const recoverCommand = sayAndFollow(
  recoverPostcopy,
  "For one that was paused, or was cut off with auto-recover off. Follows it to its end.\n",
);
