/** The options that say which host an actor acts for, and where its files lie. Nothing heavy is imported: health checks use them. */
import { hostname } from "node:os";
import { flag, text } from "../arguments/option.ts";

export const hostOptions = {
  "runtime-dir": text("DIRECTORY", "sockets and the registry of guests; private (default in $XDG_RUNTIME_DIR or /tmp)"),
  "checkpoint-dir": text("DIRECTORY", "where checkpoints may lie (default in $XDG_STATE_HOME or ~/.local/state)"),
  "guest-dir": text("DIRECTORY", "memory of builtin guests; a tmpfs (default in /dev/shm)"),
  "direct-listen": text(
    "HOST:PORTS",
    "where direct connections are taken, PORT or FIRST-LAST, while a migration with another `lane` than nats arrives; off: nowhere (default 0.0.0.0:0, any port)",
  ),
  "direct-address": text(
    "HOSTS",
    "what is offered to those who connect: HOST or HOST:PORT, separated by commas (default: this host's addresses)",
  ),
  "require-encryption": flag("let no guest leave this host but with capability `encryption`"),
} as const;

/** This host's name as a node's name: what cannot stand in a subject is a dash. */
export const nodeOfHost = (): string =>
  hostname()
    .replaceAll(/[^A-Za-z0-9_-]/g, "-")
    .slice(0, 64) || "local";
