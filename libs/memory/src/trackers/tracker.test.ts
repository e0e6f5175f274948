import { probeSoftDirty, probeUserfaultfd } from "@godwit/host";
import { openContentTracker } from "./content.ts";
import { openSoftDirtyTracker } from "./soft-dirty.ts";
import { trackerConformance } from "./tracker.conformance.ts";
import { openUserfaultfdTracker } from "./userfaultfd.ts";

const userfaultfd = probeUserfaultfd();
const softDirty = probeSoftDirty();
const why = (ability: { readonly _tag: string; readonly reason?: string }) =>
  ability._tag === "Works" ? null : ability.reason!;

trackerConformance("userfaultfd", openUserfaultfdTracker, why(userfaultfd));
trackerConformance("soft-dirty", openSoftDirtyTracker, why(softDirty));
trackerConformance("content", (process, directory) => openContentTracker(process.blocks, directory));
