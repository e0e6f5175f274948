import { startPostcopy } from "../client.ts";
import { sayAndFollow } from "./say-and-follow.ts";

export const startPostcopyCommand = sayAndFollow(
  startPostcopy,
  "Needs the capability postcopy-ram. The guest is stopped in the middle of its pass and runs at the\ndestination at once; from then on nothing can be undone, and either host is needed until all pages are there. Follows it to its end.\n",
);
