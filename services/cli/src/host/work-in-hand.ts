/** What the actors of this host are in the middle of, as their files tell: it needs neither NATS nor credentials. */
import { openRegistry } from "@godwit/guest";
import { exportedIds } from "@godwit/memory";

const DOING = { arriving: "arrives", leaving: "leaves", saving: "is saved" } as const;

/** In words, one for each; empty when nothing would be interrupted. Throws what the file system throws. */
export const workInHand = (runtimeDirectory: string): ReadonlyArray<string> => [
  ...openRegistry(runtimeDirectory)
    .list()
    .flatMap(({ name, moving }) => (moving === undefined ? [] : [`guest ${name} ${DOING[moving]}`])),
  ...exportedIds(runtimeDirectory, "ram").map((id) => `memory is sent for ${id}`),
  ...exportedIds(runtimeDirectory, "fill").map((id) => `memory is filled for ${id}`),
];
