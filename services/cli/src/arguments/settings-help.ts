/** All migration parameters and capabilities, for the help of the commands that take them. */
import { CAPABILITIES, PARAMETERS } from "@godwit/protocol";
import { table } from "../terminal/table.ts";

const parameterRows = (only: "all" | "live") =>
  Object.entries(PARAMETERS)
    .filter(([, { live }]) => only === "all" || live)
    .map(([name, { what, expects, default: usual, live }]) => [
      `  ${name}`,
      String(usual),
      live ? "yes" : "",
      `${what} (${expects})`,
    ]);

export const parametersHelp = (only: "all" | "live"): string =>
  table([{ title: "Parameter" }, { title: "default" }, { title: "live" }, { title: "" }], parameterRows(only));

/** Parameters by QEMU's names; those that are live may change while a migration runs. */
export const settingsHelp = (): string => {
  const capabilities = Object.entries(CAPABILITIES).map(([name, { what, default: usual, supported, ...more }]) => [
    `  ${name}`,
    "defaultFor" in more ? `on for ${more.defaultFor.join(", ")}` : usual ? "on" : "off",
    `${what}${supported ? "" : " (not supported by this version)"}`,
  ]);
  return [
    parametersHelp("all"),
    table([{ title: "Capability" }, { title: "default" }, { title: "" }], capabilities),
    "Sizes may be written as 512MiB, rates as 50MiB/s, times as 300ms or 2s.",
    "",
  ].join("\n");
};
