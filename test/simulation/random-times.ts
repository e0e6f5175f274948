import type { SimNetwork } from "@godwit/fabric/simulation";

/** A duration drawn evenly, ms. */
export const between = (network: SimNetwork, min: number, max: number): number => min + network.random() * (max - min);
