/** The options that say which host an actor acts for, and where its files lie. Nothing heavy is imported: health checks use them. */
import { hostname } from "node:os";
import { flag, text } from "../arguments/option.ts";

export const hostOptions = {
  "runtime-dir": text("DIRECTORY", "sockets and the registry of guests; private (default in $XDG_RUNTIME_DIR or /tmp)"),
  "checkpoint-dir": text("DIRECTORY", "where checkpoints may lie (default in $XDG_STATE_HOME or ~/.local/state)"),
  "guest-dir": text("DIRECTORY", "memory of builtin guests; a tmpfs (default in /dev/shm)"),
  "require-encryption": flag("let no guest leave this host but with capability `encryption`"),
} as const;

/** This host's name as a node's name: what cannot stand in a subject is a dash. */
export const nodeOfHost = (): string =>
  hostname()
    .replaceAll(/[^A-Za-z0-9_-]/g, "-")
    .slice(0, 64) || "local";
