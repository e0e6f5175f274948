export {
  type Announced,
  addressesFor,
  joinAddress,
  type ListenPlace,
  networkId,
  parseAnnounced,
  parseListen,
} from "./addresses.ts";
export {
  type DestinationOptions,
  type DirectDestination,
  type Landing,
  makeDirectDestination,
} from "./destination.ts";
export { type Outlet, type OutletEvents, openOutlet } from "./outlet.ts";
