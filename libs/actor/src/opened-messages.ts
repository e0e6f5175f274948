import { isRefused, type Opener } from "@godwit/encryption";
import { letGo, type Message, ownMemory } from "@godwit/fabric";

export interface Opened {
  /** Those that could be opened, in order, each in memory of its own. */
  readonly messages: ReadonlyArray<Message>;
  /** How many could not. */
  readonly refused: number;
  /** Why, when it is news; for the log. */
  readonly complaint: string | null;
}

/** The first thing that happens to packets which arrive: where they must be sealed, nothing sees them that was not. Lets go of what was sealed. */
export const openMessages = (opener: Opener, arrived: ReadonlyArray<Message>): Opened => {
  if (!opener.isSealed) return { messages: arrived, refused: 0, complaint: null };
  const messages: Message[] = [];
  let complaint: string | null = null;
  for (const { subject, data } of arrived) {
    const packet = opener.open(data);
    letGo(data);
    if (isRefused(packet)) {
      if (packet.isNews) complaint = packet.reason;
      continue;
    }
    ownMemory(packet);
    messages.push({ subject, data: packet });
  }
  return { messages, refused: arrived.length - messages.length, complaint };
};
