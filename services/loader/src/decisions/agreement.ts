/** R9: what both sides must agree on before a byte moves, as a list of everything that differs. */
import { type Difference, type Offer, PROTOCOL_VERSION } from "@godwit/protocol";

/** Differences that one report shows: more do not help an operator, and a control message has its limit. */
const DIFFERENCES_MAX = 100;

/** This side, as far as it is compared. */
export interface Present {
  readonly driver: string;
  readonly machine: string;
  readonly blocks: ReadonlyArray<{
    readonly name: string;
    readonly lengthBytes: number;
    readonly hostPageBytes: number;
  }>;
  readonly devices: ReadonlyArray<{ readonly name: string; readonly provider: string }>;
}

/** The protocol version is compared alone: of another version nothing else can be trusted to mean the same. */
export const differences = (offer: Offer, mine: Present): ReadonlyArray<Difference> => {
  if (offer.version !== PROTOCOL_VERSION) {
    return [{ what: "protocol version", mine: String(PROTOCOL_VERSION), yours: String(offer.version) }];
  }
  const found: Difference[] = [];
  const compare = (what: string, ours: string | number, theirs: string | number): void => {
    if (ours !== theirs) found.push({ what, mine: String(ours), yours: String(theirs) });
  };
  compare("driver", mine.driver, offer.driver);
  compare("machine type", mine.machine, offer.machine);
  const here = new Map(mine.blocks.map((block) => [block.name, block]));
  for (const block of offer.blocks) {
    const match = here.get(block.name);
    if (match === undefined) {
      found.push({ what: `RAMBlock ${block.name}`, mine: "absent", yours: `${block["length-bytes"]} bytes` });
      continue;
    }
    compare(`length of RAMBlock ${block.name}`, match.lengthBytes, block["length-bytes"]);
    compare(`page size of RAMBlock ${block.name}`, match.hostPageBytes, block["page-size"]);
  }
  const offered = new Set<string>();
  for (const { name } of offer.blocks) {
    // A packet names a block by its place in the offer: two places for one memory are nobody's intention.
    if (offered.has(name)) found.push({ what: `RAMBlock ${name}`, mine: "once", yours: "twice or more" });
    offered.add(name);
  }
  for (const block of mine.blocks) {
    if (!offered.has(block.name))
      found.push({ what: `RAMBlock ${block.name}`, mine: `${block.lengthBytes} bytes`, yours: "absent" });
  }
  found.push(...differentDevices(offer, mine));
  if (found.length <= DIFFERENCES_MAX) return found;
  const further = { what: `${found.length - DIFFERENCES_MAX} further differences`, mine: "", yours: "" };
  return [...found.slice(0, DIFFERENCES_MAX), further];
};

/** A device is known by its name, and its state means something only to its like. */
const differentDevices = (offer: Offer, mine: Present): ReadonlyArray<Difference> => {
  const found: Difference[] = [];
  const offered = offer.devices ?? [];
  for (const { device, provider } of offered) {
    const match = mine.devices.find(({ name }) => name === device);
    if (match?.provider !== provider)
      found.push({ what: `VFIO device ${device}`, mine: match?.provider ?? "absent", yours: provider });
  }
  for (const { name, provider } of mine.devices)
    if (!offered.some(({ device }) => device === name))
      found.push({ what: `VFIO device ${name}`, mine: provider, yours: "absent" });
  return found;
};
