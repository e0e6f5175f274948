/** What the simulated device does when it is asked by vfio-user. */
import type { Capabilities } from "../vfio-user/capabilities.ts";
import {
  DEVICE_STATE_BYTES,
  decodeDeviceState,
  decodeLoggingReport,
  decodeLoggingStart,
  deviceStateData,
  FEATURES,
  loggingReportData,
  migrationFeaturesData,
  REPORT_BYTES,
  reportBitmapBytes,
  U64_BYTES,
  u64Data,
} from "../vfio-user/feature.ts";
import { type Malformed, TRANSFER_BYTES_MAX } from "../vfio-user/header.ts";
import {
  CONFIG_REGION,
  DEVICE_FLAGS_PCI,
  DEVICE_FLAGS_RESET,
  FEATURE_GET,
  FEATURE_PROBE,
  FEATURE_SET,
  type FeatureRequest,
  REGION_FLAG_READ,
  REGION_FLAG_WRITE,
  type Reply,
  type Request,
} from "../vfio-user/message.ts";
import { CONFIG_BYTES } from "./config-space.ts";
import { DeviceFailure } from "./failure.ts";
import type { Operation, SimulatedModel } from "./model.ts";

/** VFIO_PCI_NUM_REGIONS: BARs, ROM, configuration space and VGA, of which this device has the configuration space. */
const REGIONS = 9;
/** Where a region begins in the device's file, if it were one, bytes: as vfio-pci numbers them. */
const REGION_STRIDE_BYTES = 2 ** 40;

/** Carries out whatever is not VERSION. Throws a DeviceFailure for what is refused. */
export function* carryOut(model: SimulatedModel, request: Request, client: Capabilities): Operation<Reply> {
  switch (request.kind) {
    case "version":
      throw new DeviceFailure("EINVAL", "the version was agreed before");
    case "dma-map":
      // Its window into guest memory is a file that it was given at its start.
      return { kind: "dma-map" };
    case "dma-unmap":
      return request;
    case "device-info":
      return { kind: "device-info", flags: DEVICE_FLAGS_RESET | DEVICE_FLAGS_PCI, regions: REGIONS, irqs: 0 };
    case "region-info":
      return regionInfo(request.region);
    case "region-read":
    case "region-write":
      return accessConfig(model, request);
    case "reset":
      yield* model.reset();
      return { kind: "reset" };
    case "feature":
      return yield* feature(model, request);
    case "mig-data-read":
      return { kind: "mig-data-read", data: yield* readStream(model, request.size, client) };
    case "mig-data-write":
      yield* model.write(request.data);
      return { kind: "mig-data-write" };
    case "precopy-info":
      return { kind: "precopy-info", ...(yield* model.precopyInfo()) };
  }
}

const regionInfo = (region: number): Reply => {
  if (region >= REGIONS) throw new DeviceFailure("EINVAL", `there is no region ${region}`);
  const isConfig = region === CONFIG_REGION;
  return {
    kind: "region-info",
    flags: isConfig ? REGION_FLAG_READ | REGION_FLAG_WRITE : 0,
    region,
    bytes: isConfig ? CONFIG_BYTES : 0,
    fdOffset: region * REGION_STRIDE_BYTES,
  };
};

const accessConfig = (
  { config }: SimulatedModel,
  request: Extract<Request, { readonly kind: "region-read" | "region-write" }>,
): Reply => {
  const { region, offset } = request;
  const count = request.kind === "region-read" ? request.count : request.data.length;
  if (region !== CONFIG_REGION || offset + count > CONFIG_BYTES) {
    throw new DeviceFailure("EINVAL", `${count} bytes at ${offset} of region ${region}`);
  }
  if (request.kind === "region-read") {
    return { kind: "region-read", region, offset, data: config.read().subarray(offset, offset + count) };
  }
  config.write(request.data, offset);
  return { kind: "region-write", region, offset, count };
};

function* readStream(model: SimulatedModel, size: number, client: Capabilities): Operation<Uint8Array> {
  if (size > client.transferBytesMax) throw new DeviceFailure("EINVAL", `${size} bytes at once`);
  const into = Buffer.allocUnsafe(size);
  return into.subarray(0, yield* model.read(into));
}

/** Which operations each feature has, of FEATURE_GET and FEATURE_SET. */
const operationsOf = (model: SimulatedModel, index: number): number => {
  switch (index) {
    case FEATURES.migration:
    case FEATURES.migrationDataSize:
      return FEATURE_GET;
    case FEATURES.deviceState:
      return FEATURE_GET | FEATURE_SET;
    case FEATURES.dmaLoggingStart:
    case FEATURES.dmaLoggingStop:
      return model.logsDma ? FEATURE_SET : 0;
    case FEATURES.dmaLoggingReport:
      return model.logsDma ? FEATURE_GET : 0;
    default:
      return 0;
  }
};

function* feature(model: SimulatedModel, request: FeatureRequest): Operation<Reply> {
  const { index, operations } = request;
  const known = operationsOf(model, index);
  const asked = operations & ~FEATURE_PROBE;
  const isProbe = (operations & FEATURE_PROBE) !== 0;
  const isOne = asked === FEATURE_GET || asked === FEATURE_SET;
  if (known === 0 || (asked & ~known) !== 0 || (!isOne && !isProbe)) {
    throw new DeviceFailure("EINVAL", `feature ${index} has no operations 0x${operations.toString(16)}`);
  }
  const data = isProbe
    ? new Uint8Array(0)
    : asked === FEATURE_GET
      ? getFeature(model, request)
      : yield* setFeature(model, request);
  return { kind: "feature", index, operations, data };
}

const getFeature = (model: SimulatedModel, request: FeatureRequest): Uint8Array => {
  switch (request.index) {
    case FEATURES.migration:
      requireRoom(request, U64_BYTES);
      return migrationFeaturesData(model.features);
    case FEATURES.deviceState:
      requireRoom(request, DEVICE_STATE_BYTES);
      return deviceStateData(model.state);
    case FEATURES.migrationDataSize:
      requireRoom(request, U64_BYTES);
      return u64Data(model.stopCopyBytes());
    default: {
      const report = understood(decodeLoggingReport(request.data));
      const bitmapBytes = reportBitmapBytes(report.length, report.pageBytes);
      if (bitmapBytes > TRANSFER_BYTES_MAX) throw new DeviceFailure("EINVAL", `a bitmap of ${bitmapBytes} bytes`);
      requireRoom(request, REPORT_BYTES + bitmapBytes);
      model.account();
      return loggingReportData({ ...report, bitmap: model.dma!.log.report(report, report.pageBytes) });
    }
  }
};

function* setFeature(model: SimulatedModel, { index, data }: FeatureRequest): Operation<Uint8Array> {
  switch (index) {
    case FEATURES.deviceState:
      yield* model.setState(understood(decodeDeviceState(data)).state);
      break;
    case FEATURES.dmaLoggingStart: {
      const { pageBytes, ranges } = understood(decodeLoggingStart(data));
      model.account();
      model.dma!.log.start(pageBytes, ranges);
      break;
    }
    default:
      model.dma!.log.stop();
  }
  // libvfio-user echoes what was set.
  return data;
}

const requireRoom = ({ index, argsz }: FeatureRequest, bytes: number): void => {
  if (argsz < 8 + bytes) throw new DeviceFailure("EINVAL", `feature ${index} does not fit into ${argsz} bytes`);
};

const understood = <A extends object>(decoded: A | Malformed): A => {
  if ("kind" in decoded && decoded.kind === "malformed") {
    throw new DeviceFailure("EINVAL", (decoded as Malformed).reason);
  }
  return decoded as A;
};
