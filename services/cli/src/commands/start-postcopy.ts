import { startPostcopy } from "../client.ts";
import { sayAndFollow } from "./say-and-follow.ts";

export const startPostcopyCommand = sayAndFollow(
  startPostcopy,
  "Needs the capability postcopy-ram. The guest is stopped at the next pass and runs at the destination at\nonce; from then on nothing can be undone, and either host is needed until all pages are there. Follows it to its end.\n",
);
