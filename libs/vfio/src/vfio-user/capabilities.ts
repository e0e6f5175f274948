/**
 * The JSON in VERSION: what the two sides can do. All of it is optional; libvfio-user answers
 *
 *     {"capabilities": {"max_msg_fds": 8, "max_data_xfer_size": 1048576, "migration": {"pgsize": 4096}}}
 *
 * and ends the connection of a client whose pgsize is not its own, so a client leaves that out. Servers of ours add
 *
 *     "godwit": {"whole_frames": true, "precopy_info": true}
 *
 * `whole_frames`: the server reads a frame to its end however the socket cuts it. libvfio-user does not (see device.ts), so a server that
 * says nothing gets small writes. `precopy_info`: it answers `precopy-info`.
 */
import { type Malformed, malformed, TRANSFER_BYTES_MAX } from "./header.ts";

/** The protocol's version. libvfio-user takes no other major, and answers the lower of the two minors. */
export const VERSION_MAJOR = 0;
export const VERSION_MINOR = 2;

export interface Capabilities {
  /** Bytes of stream or region in one message, at most. */
  readonly transferBytesMax: number;
  readonly wholeFrames: boolean;
  readonly precopyInfo: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

/** The least that is worth talking to, bytes: below it a device of a MiB would take a thousand round trips. */
const TRANSFER_BYTES_MIN = 1024;

/** The text of a client. Descriptors cannot be received from Node, but libvfio-user is not sure of itself with `max_msg_fds` 0. */
export const clientCapabilities = (): string =>
  JSON.stringify({ capabilities: { max_msg_fds: 1, max_data_xfer_size: TRANSFER_BYTES_MAX } });

/** The text of a server of ours. */
export const serverCapabilities = ({ transferBytesMax, wholeFrames, precopyInfo }: Capabilities): string =>
  JSON.stringify({
    capabilities: {
      max_msg_fds: 1,
      max_data_xfer_size: transferBytesMax,
      migration: { pgsize: 4096 },
      godwit: { whole_frames: wholeFrames, precopy_info: precopyInfo },
    },
  });

/** Reads the text of either side. What is missing is as vfio-user says: 1 MiB, and none of our extensions. */
export const decodeCapabilities = (text: string): Capabilities | Malformed => {
  let json: unknown;
  try {
    json = text === "" ? {} : JSON.parse(text);
  } catch (error) {
    return malformed(`no JSON in a version: ${(error as Error).message}`);
  }
  if (!isFields(json)) return malformed("the JSON in a version is no object");
  const capabilities = json["capabilities"] ?? {};
  if (!isFields(capabilities)) return malformed("capabilities are no object");
  const bytes = capabilities["max_data_xfer_size"] ?? TRANSFER_BYTES_MAX;
  if (typeof bytes !== "number" || !Number.isInteger(bytes) || bytes < TRANSFER_BYTES_MIN)
    return malformed(`max_data_xfer_size is ${JSON.stringify(bytes)}`);
  const ours = capabilities["godwit"];
  return {
    // Frames have a limit of their own, whatever the other side would take.
    transferBytesMax: Math.min(bytes, TRANSFER_BYTES_MAX),
    wholeFrames: isFields(ours) && ours["whole_frames"] === true,
    precopyInfo: isFields(ours) && ours["precopy_info"] === true,
  };
};

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);
