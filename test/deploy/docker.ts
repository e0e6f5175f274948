/** What of Docker this machine has: tests of containers run only with it, and say in their names what was missing. */
import { spawnSync } from "node:child_process";

/** How long a program that only asks the engine may take, ms: one that hangs counts as absent. */
const ASK_MS = 10_000;

const answers = (program: string, ...args: ReadonlyArray<string>): boolean =>
  spawnSync(program, args, { stdio: "ignore", timeout: ASK_MS }).status === 0;

const present = (image: string): boolean => answers("docker", "image", "inspect", image);

export const engineAnswers = (): boolean => answers("docker", "info");

/** A NATS server's image: the one that GODWIT_TEST_NATS_IMAGE names, or else one that is on this machine. Nothing is fetched. */
export const natsImage = (): { readonly image: string } | { readonly missing: string } => {
  if (!engineAnswers()) return { missing: "no Docker engine answers" };
  const wanted = process.env["GODWIT_TEST_NATS_IMAGE"];
  const candidates = wanted === undefined ? ["nats:2.12.15", "godwit-stand-in/nats"] : [wanted];
  const image = candidates.find(present);
  if (image !== undefined) return { image };
  return { missing: `of the images ${candidates.join(", ")} none is here; deploy/docker/stand-in-images.sh makes one` };
};

/** What a build of godwit's image begins with, as GODWIT_BASE_IMAGE names it or as it is on this machine. */
export const baseImage = (): string | undefined => {
  const wanted = process.env["GODWIT_BASE_IMAGE"];
  return (wanted === undefined ? ["node:24.21.0-bookworm-slim", "godwit-stand-in/base"] : [wanted]).find(present);
};

/** docker-compose, the older program, or Docker's own command; undefined: neither. */
export const composeCommand = (): ReadonlyArray<string> | undefined => {
  if (answers("docker", "compose", "version")) return ["docker", "compose"];
  return answers("docker-compose", "version") ? ["docker-compose"] : undefined;
};
