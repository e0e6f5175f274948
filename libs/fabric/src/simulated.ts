export { SimFabric } from "./sim-fabric.ts";
export { simulate } from "./simulate.ts";
