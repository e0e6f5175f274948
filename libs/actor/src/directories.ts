/** Where actors keep their files unless told otherwise. Only Node's own modules are imported here: health checks must start quickly. */
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";

/** The user's runtime directory, which is private and in memory. */
export const defaultRuntimeDirectory = (node: string): string =>
  join(process.env["XDG_RUNTIME_DIR"] ?? join(tmpdir(), `godwit-${process.getuid?.() ?? 0}`), "godwit", node);

/** RAM files of builtin guests: shared memory. */
export const defaultGuestDirectory = (node: string): string => `/dev/shm/godwit-${process.getuid?.() ?? 0}/${node}`;

/** Checkpoints: the user's folder of what programs keep, on disk. */
export const defaultCheckpointDirectory = (): string =>
  join(process.env["XDG_STATE_HOME"] ?? join(homedir(), ".local", "state"), "godwit", "checkpoints");
