/**
 * On the way to RUNNING devices look at each other: one that works may write into another (peer to peer), and that one must not stand
 * still. So all that have RUNNING_P2P, in which a device takes such writes and makes none, go there first.
 */
import { type DeviceState, isRunning, type MigrationFeatures } from "@godwit/vfio";

export interface Peer {
  /** null: not opened yet, so nobody knows where it is. */
  readonly features: MigrationFeatures | null;
  readonly state: DeviceState;
  readonly failures: number;
}

/** What a device goes to next, to get to RUNNING; null: it waits for others. Those that were given up are not waited for. */
export const towardsRunning = <P extends Peer>(
  device: P,
  devices: ReadonlyArray<P>,
  isGivenUp: (peer: P) => boolean,
): DeviceState | null => {
  if (device.features?.p2p === true && !isRunning(device.state)) return "RUNNING_P2P";
  const stands = ({ features, state }: P): boolean => features === null || (features.p2p && !isRunning(state));
  const mustWait = devices.some((peer) => peer !== device && stands(peer) && !isGivenUp(peer));
  return mustWait ? null : "RUNNING";
};
