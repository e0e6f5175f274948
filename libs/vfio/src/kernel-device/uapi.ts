/**
 * The Linux VFIO and iommufd interfaces as far as a migration needs them: numbers of requests, and their structures to and from bytes.
 * From include/uapi/linux/vfio.h and iommufd.h (Linux 6.12); everything is little endian, as x86-64 and arm64 are.
 *
 * VFIO's requests carry neither size nor direction in their number. Their structures begin with their own size instead, so that
 * a kernel of another age knows what it was given: `argsz`, u32.
 */

import type { IovaRange, PrecopyInfo } from "../device.ts";
import { DEVICE_STATES, type DeviceState, type MigrationFeatures } from "../state-machine.ts";

/** `_IO(';', 100 + n)`. */
export const VFIO = {
  GET_API_VERSION: 0x3b64,
  SET_IOMMU: 0x3b66,
  GROUP_GET_STATUS: 0x3b67,
  GROUP_SET_CONTAINER: 0x3b68,
  GROUP_GET_DEVICE_FD: 0x3b6a,
  DEVICE_GET_INFO: 0x3b6b,
  DEVICE_GET_REGION_INFO: 0x3b6c,
  DEVICE_RESET: 0x3b6f,
  DEVICE_FEATURE: 0x3b75,
  DEVICE_BIND_IOMMUFD: 0x3b76,
  MIG_GET_PRECOPY_INFO: 0x3b79,
} as const;

/** What VFIO_GET_API_VERSION answers, since ever. */
export const API_VERSION = 0;
/** VFIO_TYPE1v2_IOMMU, the argument of VFIO_SET_IOMMU. */
export const TYPE1_V2_IOMMU = 3n;
/** VFIO_GROUP_FLAGS_VIABLE: every device of the group is held by VFIO, or by no driver. */
const GROUP_FLAGS_VIABLE = 1;
/** VFIO_PCI_CONFIG_REGION_INDEX. */
export const CONFIG_REGION = 7;

/** Indices of VFIO_DEVICE_FEATURE. */
export const FEATURE = {
  MIGRATION: 1,
  MIG_DEVICE_STATE: 2,
  DMA_LOGGING_START: 6,
  DMA_LOGGING_STOP: 7,
  DMA_LOGGING_REPORT: 8,
  MIG_DATA_SIZE: 9,
} as const;

/** What is done with a feature; PROBE only asks whether the operations beside it would be possible. */
export const OPERATION = { GET: 1 << 16, SET: 1 << 17, PROBE: 1 << 18 } as const;

/** An empty structure of `bytes`, with its size in front where the request wants it so. */
const structure = (bytes: number): { readonly bytes: Uint8Array; readonly fields: DataView } => {
  const made = new Uint8Array(bytes);
  const fields = new DataView(made.buffer);
  fields.setUint32(0, bytes, true);
  return { bytes: made, fields };
};

const fieldsOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** The kernel counts bytes in u64. What godwit moves stays far below 2^53; a larger number is a broken device's. */
const bytesAt = (fields: DataView, at: number): number => Number(fields.getBigUint64(at, true));

/** struct vfio_device_feature { u32 argsz, u32 flags } and its data: where the data begins, bytes. */
export const FEATURE_HEAD_BYTES = 8;

/** Always with GET or SET: the kernel answers EINVAL to both, or to none. */
export const featureRequest = (feature: number, operation: number, dataBytes: number) => {
  const { bytes, fields } = structure(FEATURE_HEAD_BYTES + dataBytes);
  fields.setUint32(4, feature | operation, true);
  return { bytes, data: new DataView(bytes.buffer, FEATURE_HEAD_BYTES) };
};

const featureData = (answer: Uint8Array): DataView =>
  new DataView(answer.buffer, answer.byteOffset + FEATURE_HEAD_BYTES, answer.byteLength - FEATURE_HEAD_BYTES);

const get = (feature: number, dataBytes: number): Uint8Array => featureRequest(feature, OPERATION.GET, dataBytes).bytes;

/** Whether the device has the feature: the call succeeds, or fails with ENOTTY. */
export const probeOf = (feature: number, operation: number): Uint8Array =>
  featureRequest(feature, OPERATION.PROBE | operation, 0).bytes;

/** struct vfio_device_feature_migration { u64 flags }. */
export const getMigrationFeatures = (): Uint8Array => get(FEATURE.MIGRATION, 8);
export const migrationFeaturesOf = (answer: Uint8Array): MigrationFeatures => {
  const flags = featureData(answer).getUint32(0, true);
  return { stopCopy: (flags & 1) !== 0, p2p: (flags & 2) !== 0, preCopy: (flags & 4) !== 0 };
};

/** struct vfio_device_feature_mig_state { u32 device_state, s32 data_fd }. */
export const getDeviceState = (): Uint8Array => get(FEATURE.MIG_DEVICE_STATE, 8);
export const setDeviceState = (to: DeviceState): Uint8Array => {
  const { bytes, data } = featureRequest(FEATURE.MIG_DEVICE_STATE, OPERATION.SET, 8);
  data.setUint32(0, DEVICE_STATES.indexOf(to), true);
  data.setInt32(4, -1, true);
  return bytes;
};
/**
 * `state` is null for a number that the uAPI does not know; `dataFd` when no new stream began. Trap: a GET tells the state, and a SET that
 * succeeded; one that failed writes back what was asked for.
 */
export const deviceStateOf = (
  answer: Uint8Array,
): { readonly number: number; readonly state: DeviceState | null; readonly dataFd: number | null } => {
  const data = featureData(answer);
  const number = data.getUint32(0, true);
  const fd = data.getInt32(4, true);
  return { number, state: DEVICE_STATES[number] ?? null, dataFd: fd < 0 ? null : fd };
};

/** struct vfio_device_feature_mig_data_size { u64 stop_copy_length }, bytes. */
export const getDataSize = (): Uint8Array => get(FEATURE.MIG_DATA_SIZE, 8);
export const dataSizeOf = (answer: Uint8Array): number => bytesAt(featureData(answer), 0);

/** struct vfio_precopy_info { u32 argsz, u32 flags, u64 initial_bytes, u64 dirty_bytes }, asked of the data_fd. */
export const getPrecopyInfo = (): Uint8Array => structure(24).bytes;
export const precopyInfoOf = (answer: Uint8Array): PrecopyInfo => ({
  initialBytes: bytesAt(fieldsOf(answer), 8),
  dirtyBytes: bytesAt(fieldsOf(answer), 16),
});

/** struct vfio_device_feature_dma_logging_control { u64 page_size, u32 num_ranges, u32 0, u64 pointer to ranges }. */
export const startDmaLogging = (pageBytes: number, ranges: ReadonlyArray<IovaRange>) => {
  const { bytes, data } = featureRequest(FEATURE.DMA_LOGGING_START, OPERATION.SET, 24);
  data.setBigUint64(0, BigInt(pageBytes), true);
  data.setUint32(8, ranges.length, true);
  // struct vfio_device_feature_dma_logging_range { u64 iova, u64 length }
  const list = new BigUint64Array(ranges.flatMap(({ iova, length }) => [BigInt(iova), BigInt(length)]));
  return { bytes, pointee: { at: FEATURE_HEAD_BYTES + 16, memory: new Uint8Array(list.buffer) } };
};

export const stopDmaLogging = (): Uint8Array => featureRequest(FEATURE.DMA_LOGGING_STOP, OPERATION.SET, 0).bytes;

/** The kernel takes the bitmap as an array of u64, bytes. */
const BITMAP_WORD_BYTES = 8;

/**
 * struct vfio_device_feature_dma_logging_report { u64 iova, u64 length, u64 page_size, u64 pointer to bitmap }. The kernel only sets
 * bits, so the bitmap starts as zeros.
 */
export const reportDmaLogging = ({ iova, length }: IovaRange, pageBytes: number) => {
  const { bytes, data } = featureRequest(FEATURE.DMA_LOGGING_REPORT, OPERATION.GET, 32);
  [iova, length, pageBytes].forEach((field, index) => {
    data.setBigUint64(index * 8, BigInt(field), true);
  });
  const words = Math.ceil(length / pageBytes / 8 / BITMAP_WORD_BYTES);
  return {
    bytes,
    pointee: { at: FEATURE_HEAD_BYTES + 24, memory: new Uint8Array(words * BITMAP_WORD_BYTES) },
  };
};

/** struct vfio_region_info { u32 argsz, flags, index, cap_offset, u64 size, u64 offset }. */
export const getRegionInfo = (index: number): Uint8Array => {
  const { bytes, fields } = structure(32);
  fields.setUint32(8, index, true);
  return bytes;
};
/** `offset` is where the region begins in the device's file, bytes; the kernel's are below 2^44, since the index is in bits 40 to 43. */
export const regionInfoOf = (answer: Uint8Array): { readonly size: number; readonly offset: number } => ({
  size: bytesAt(fieldsOf(answer), 16),
  offset: bytesAt(fieldsOf(answer), 24),
});

/** struct vfio_device_info { u32 argsz, flags, num_regions, num_irqs }; longer ones are for capabilities, which nobody reads here. */
export const getDeviceInfo = (): Uint8Array => structure(16).bytes;
export const regionCountOf = (answer: Uint8Array): number => fieldsOf(answer).getUint32(8, true);

/** struct vfio_group_status { u32 argsz, u32 flags }. */
export const getGroupStatus = (): Uint8Array => structure(8).bytes;
export const isViable = (answer: Uint8Array): boolean =>
  (fieldsOf(answer).getUint32(4, true) & GROUP_FLAGS_VIABLE) !== 0;

/** struct vfio_device_bind_iommufd { u32 argsz, u32 flags, s32 iommufd, u32 out_devid }. */
export const bindIommufd = (iommufd: number): Uint8Array => {
  const { bytes, fields } = structure(16);
  fields.setInt32(8, iommufd, true);
  return bytes;
};

/** The argument of VFIO_GROUP_SET_CONTAINER: a pointer to the descriptor. */
export const descriptorArgument = (fd: number): Uint8Array => new Uint8Array(new Int32Array([fd]).buffer);

/** The argument of VFIO_GROUP_GET_DEVICE_FD: the device's name as C has it. */
export const nameArgument = (name: string): Uint8Array => new Uint8Array(Buffer.from(`${name}\0`, "utf8"));
