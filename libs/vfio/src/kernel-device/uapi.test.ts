import { describe, expect, it } from "vitest";
import { DEVICE_STATES } from "../state-machine.ts";
import * as Uapi from "./uapi.ts";

/** Little-endian bytes as hexadecimal, in groups of four. */
const words = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString("hex")
    .replace(/.{8}(?!$)/g, "$& ");
const answer = (...u32: ReadonlyArray<number>): Uint8Array => new Uint8Array(new Uint32Array(u32).buffer);

describe("requests of the VFIO uAPI", () => {
  it("have the numbers of _IO(';', 100 + n)", () => {
    const io = (n: number): number => (0x3b << 8) | (100 + n);
    expect(Uapi.VFIO).toEqual({
      GET_API_VERSION: io(0),
      SET_IOMMU: io(2),
      GROUP_GET_STATUS: io(3),
      GROUP_SET_CONTAINER: io(4),
      GROUP_GET_DEVICE_FD: io(6),
      DEVICE_GET_INFO: io(7),
      DEVICE_GET_REGION_INFO: io(8),
      DEVICE_RESET: io(11),
      DEVICE_FEATURE: io(17),
      DEVICE_BIND_IOMMUFD: io(18),
      MIG_GET_PRECOPY_INFO: io(21),
    });
  });

  it("carry their own size, feature and operation in front", () => {
    expect(words(Uapi.getMigrationFeatures())).toBe("10000000 01000100 00000000 00000000");
    expect(words(Uapi.getDeviceState())).toBe("10000000 02000100 00000000 00000000");
    expect(words(Uapi.getDataSize())).toBe("10000000 09000100 00000000 00000000");
    expect(words(Uapi.stopDmaLogging())).toBe("08000000 07000200");
    expect(words(Uapi.probeOf(Uapi.FEATURE.DMA_LOGGING_START, Uapi.OPERATION.SET))).toBe("08000000 06000600");
    expect(words(Uapi.getPrecopyInfo())).toBe("18000000 00000000 00000000 00000000 00000000 00000000");
    expect(words(Uapi.getRegionInfo(7)).slice(0, 35)).toBe("20000000 00000000 07000000 00000000");
    expect(words(Uapi.bindIommufd(5))).toBe("10000000 00000000 05000000 00000000");
  });

  it("name each state by its number, and no data_fd", () => {
    DEVICE_STATES.forEach((state, number) => {
      expect(words(Uapi.setDeviceState(state))).toBe(`10000000 02000200 0${number}000000 ffffffff`);
    });
  });

  it("leave room for a pointer to the ranges, and to a bitmap of zeros in whole u64", () => {
    const { bytes, pointee } = Uapi.startDmaLogging(4096, [{ iova: 0x1000, length: 0x2000 }]);
    expect(words(bytes)).toBe("20000000 06000200 00100000 00000000 01000000 00000000 00000000 00000000");
    expect(pointee.at).toBe(24);
    expect(words(pointee.memory)).toBe("00100000 00000000 00200000 00000000");
    const report = Uapi.reportDmaLogging({ iova: 2 ** 40, length: 65 * 4096 }, 4096);
    expect(words(report.bytes).slice(0, 71)).toBe(
      "28000000 08000100 00000000 00010000 00100400 00000000 00100000 00000000",
    );
    expect([report.pointee.at, report.pointee.memory.length]).toEqual([32, 16]);
  });
});

describe("answers of the VFIO uAPI", () => {
  it("are migration features", () => {
    expect(Uapi.migrationFeaturesOf(answer(16, 1, 7, 0))).toEqual({ stopCopy: true, p2p: true, preCopy: true });
    expect(Uapi.migrationFeaturesOf(answer(16, 1, 5, 0))).toEqual({ stopCopy: true, p2p: false, preCopy: true });
  });

  it("are a state with or without a descriptor, and a state that nobody knows", () => {
    expect(Uapi.deviceStateOf(answer(16, 2, 3, 17))).toEqual({ number: 3, state: "STOP_COPY", dataFd: 17 });
    expect(Uapi.deviceStateOf(answer(16, 2, 6, 0))).toEqual({ number: 6, state: "PRE_COPY", dataFd: 0 });
    expect(Uapi.deviceStateOf(answer(16, 2, 2, 0xffffffff))).toEqual({ number: 2, state: "RUNNING", dataFd: null });
    expect(Uapi.deviceStateOf(answer(16, 2, 8, 0xffffffff))).toEqual({ number: 8, state: null, dataFd: null });
  });

  it("are sizes in bytes above 4 GiB, and regions far into the file", () => {
    expect(Uapi.dataSizeOf(answer(16, 9, 1, 2))).toBe(2 * 2 ** 32 + 1);
    expect(Uapi.precopyInfoOf(answer(24, 0, 5, 1, 6, 0))).toEqual({ initialBytes: 2 ** 32 + 5, dirtyBytes: 6 });
    expect(Uapi.regionInfoOf(answer(32, 0, 7, 0, 256, 0, 0, 7 << 8))).toEqual({ size: 256, offset: 7 * 2 ** 40 });
    expect(Uapi.regionCountOf(answer(16, 2, 9, 5))).toBe(9);
    expect([Uapi.isViable(answer(8, 3)), Uapi.isViable(answer(8, 2))]).toEqual([true, false]);
  });
});
