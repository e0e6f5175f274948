/**
 * The messages of vfio-user that a migration needs, both directions. Bodies behind the header, little-endian; "as in the kernel" are
 * the structs of include/uapi/linux/vfio.h, argsz included.
 *
 *     request          body                                                        reply's body
 *     version          u16 major, u16 minor, JSON with NUL (may be missing)        the same (capabilities.ts)
 *     dma-map          u32 argsz, flags, u64 offset in fd, iova, bytes             none
 *     dma-unmap        u32 argsz, flags, u64 iova, bytes                           the request
 *     device-info      u32 argsz, flags, regions, irqs (zeros)                     the same, filled in
 *     region-info      as in the kernel, 32 bytes                                  the same, capabilities behind it
 *     region-read      u64 offset, u32 region, count                               the same, data
 *     region-write     u64 offset, u32 region, count, data                         the first 16 bytes
 *     reset            none                                                        none
 *     feature          u32 argsz, flags (index, GET 1<<16, SET 1<<17, PROBE 1<<18), data (feature.ts)
 *     mig-data-read    u32 argsz, size                                             u32 argsz, size, data
 *     mig-data-write   u32 argsz, size, data                                       none
 *     precopy-info     none                                                        u64 initial bytes, u64 dirty bytes
 *
 * `precopy-info` is ours: vfio-user has nothing for VFIO_MIG_GET_PRECOPY_INFO. A server has it or refuses it with EINVAL, as every
 * unknown command; one that has it announces it in its VERSION (capabilities.ts), or answers zeros outside PRE_COPY, so that a client
 * can find out at once.
 *
 * request.ts and reply.ts read and write them.
 */

/** A request or a reply of VERSION: `text` is JSON, empty when there is none. */
export interface VersionMessage {
  readonly kind: "version";
  readonly major: number;
  readonly minor: number;
  readonly text: string;
}
/** Takes back a mapping; its reply is the same again. */
export interface DmaUnmapMessage {
  readonly kind: "dma-unmap";
  readonly flags: number;
  readonly iova: number;
  readonly bytes: number;
}
/** DMA_MAP_READ and DMA_MAP_WRITE in `flags` say what the device may do; a descriptor would travel beside the message. */
export interface DmaMapMessage {
  readonly kind: "dma-map";
  readonly flags: number;
  readonly fdOffset: number;
  readonly iova: number;
  readonly bytes: number;
}
export const DMA_MAP_READ = 1;
export const DMA_MAP_WRITE = 2;

/** `operations` are the bits FEATURE_GET, FEATURE_SET, FEATURE_PROBE; other bits above the index stay as they came, for a server to refuse. */
export interface FeatureRequest {
  readonly kind: "feature";
  readonly index: number;
  readonly operations: number;
  /** Room for the answer, bytes, its own 8 included. */
  readonly argsz: number;
  readonly data: Uint8Array;
}
export const FEATURE_GET = 1 << 16;
export const FEATURE_SET = 1 << 17;
export const FEATURE_PROBE = 1 << 18;

export type Request =
  | VersionMessage
  | DmaMapMessage
  | DmaUnmapMessage
  | { readonly kind: "device-info" }
  | { readonly kind: "region-info"; readonly region: number }
  | { readonly kind: "region-read"; readonly region: number; readonly offset: number; readonly count: number }
  | { readonly kind: "region-write"; readonly region: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: "reset" }
  | FeatureRequest
  | { readonly kind: "mig-data-read"; readonly size: number }
  | { readonly kind: "mig-data-write"; readonly data: Uint8Array }
  | { readonly kind: "precopy-info" };

/** Of DEVICE_GET_INFO's flags. */
export const DEVICE_FLAGS_RESET = 1;
export const DEVICE_FLAGS_PCI = 2;
/** Of a region's flags. */
export const REGION_FLAG_READ = 1;
export const REGION_FLAG_WRITE = 2;
/** VFIO_PCI_CONFIG_REGION_INDEX. */
export const CONFIG_REGION = 7;

export type Reply =
  | VersionMessage
  | { readonly kind: "dma-map" }
  | DmaUnmapMessage
  | { readonly kind: "device-info"; readonly flags: number; readonly regions: number; readonly irqs: number }
  | {
      readonly kind: "region-info";
      readonly flags: number;
      readonly region: number;
      readonly bytes: number;
      readonly fdOffset: number;
    }
  | { readonly kind: "region-read"; readonly region: number; readonly offset: number; readonly data: Uint8Array }
  | { readonly kind: "region-write"; readonly region: number; readonly offset: number; readonly count: number }
  | { readonly kind: "reset" }
  | { readonly kind: "feature"; readonly index: number; readonly operations: number; readonly data: Uint8Array }
  | { readonly kind: "mig-data-read"; readonly data: Uint8Array }
  | { readonly kind: "mig-data-write" }
  | { readonly kind: "precopy-info"; readonly initialBytes: number; readonly dirtyBytes: number }
  /** The refusal of any command. */
  | { readonly kind: "error"; readonly command: number; readonly errno: number };
