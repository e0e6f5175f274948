/** Regions of a device: parts of its file, found by VFIO_DEVICE_GET_REGION_INFO. */
import { HostError, type IoctlThread } from "@godwit/host";
import { readSome, writeAll } from "./descriptor.ts";
import { CONFIG_REGION, getDeviceInfo, getRegionInfo, regionCountOf, regionInfoOf, VFIO } from "./uapi.ts";

/** The extended configuration space of PCI Express, bytes; a larger one is none. */
const CONFIG_BYTES_MAX = 4096;

export interface ConfigSpace {
  readonly read: () => Promise<Uint8Array>;
  readonly write: (config: Uint8Array) => Promise<void>;
}

/** Without one, it reads as 0 bytes. Fails with ENOTTY when the descriptor is no VFIO device. */
export const findConfigSpace = async (fd: number, thread: IoctlThread): Promise<ConfigSpace> => {
  const ask = (name: string, request: number, argument: Uint8Array) => thread.call({ fd, name, request, argument });
  const info = await ask("VFIO_DEVICE_GET_INFO", VFIO.DEVICE_GET_INFO, getDeviceInfo());
  let region = { size: 0, offset: 0 };
  if (regionCountOf(info.argument) > CONFIG_REGION) {
    const name = "VFIO_DEVICE_GET_REGION_INFO";
    region = regionInfoOf((await ask(name, VFIO.DEVICE_GET_REGION_INFO, getRegionInfo(CONFIG_REGION))).argument);
  }
  if (region.size > CONFIG_BYTES_MAX) {
    const detail = `its configuration space has ${region.size} bytes, PCI Express allows ${CONFIG_BYTES_MAX}`;
    throw new HostError("config", "EFBIG", { detail });
  }

  const read = async (): Promise<Uint8Array> => {
    const config = new Uint8Array(region.size);
    for (let done = 0; done < region.size; ) {
      const got = await readSome(fd, config.subarray(done), region.offset + done);
      if (got === 0) throw new HostError("read", "EIO", { detail: `ended at byte ${done} of ${region.size}` });
      done += got;
    }
    return config;
  };
  const write = async (config: Uint8Array): Promise<void> => {
    if (config.length !== region.size) {
      const detail = `the device has ${region.size} bytes of it, ${config.length} were to be written`;
      throw new HostError("write", "EINVAL", { detail });
    }
    await writeAll(fd, config, region.offset, CONFIG_BYTES_MAX);
  };
  return { read, write };
};
