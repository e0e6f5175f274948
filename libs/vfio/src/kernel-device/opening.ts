/** How a device of the kernel is opened: by itself with an iommufd, out of its group, or borrowed from the process that has it. */
import { openSync } from "node:fs";
import {
  borrowDescriptor,
  errnoOf,
  HostError,
  type IoctlAnswer,
  type IoctlThread,
  openIoctlThread,
} from "@godwit/host";
import * as Effect from "effect/Effect";
import type * as Scope from "effect/Scope";
import { closeDescriptor } from "./descriptor.ts";
import type { DevicePath } from "./device-path.ts";
import {
  API_VERSION,
  bindIommufd,
  descriptorArgument,
  getGroupStatus,
  isViable,
  nameArgument,
  TYPE1_V2_IOMMU,
  VFIO,
} from "./uapi.ts";

/** Where VFIO's containers are opened, and iommufds. */
export const CONTAINER_PATH = "/dev/vfio/vfio";
export const IOMMUFD_PATH = "/dev/iommu";

export interface OpenDevice {
  readonly fd: number;
  /** Makes everything that is asked of the device: opening it and changing its state may take long. */
  readonly thread: IoctlThread;
}

type Opening<A> = Effect.Effect<A, HostError, Scope.Scope>;

/** Fails with a HostError; anything else is a mistake in this program. */
const hostErrorOf = (cause: unknown): HostError => {
  if (cause instanceof HostError) return cause;
  throw cause;
};

const attempt = <A>(run: () => A | Promise<A>): Effect.Effect<A, HostError> =>
  Effect.tryPromise({ try: async () => run(), catch: hostErrorOf });

const closedWithScope = (open: () => number | Promise<number>): Opening<number> =>
  Effect.acquireRelease(attempt(open), (fd) => Effect.promise(() => closeDescriptor(fd)));

/** What the errno of an opening means to who reads it. */
const EXPLANATIONS: Readonly<Record<string, string>> = {
  EBUSY: "it is in use; a device that a VMM has open is named by the VMM's process and descriptor, PID:FD",
  ENOENT: "there is no such file; is the device bound to a VFIO driver, and is the kernel's vfio loaded?",
  ENODEV: "the group has no such device, or the kernel has none behind this file",
};

const openFile = (path: string): Opening<number> =>
  closedWithScope(() => {
    try {
      return openSync(path, "r+");
    } catch (error) {
      const errno = errnoOf(error);
      const detail = EXPLANATIONS[errno];
      throw new HostError("open", errno, detail === undefined ? { path } : { path, detail });
    }
  });

export const openDevice = (path: DevicePath): Opening<OpenDevice> =>
  Effect.gen(function* () {
    const thread = yield* Effect.acquireRelease(Effect.sync(openIoctlThread), ({ close }) => Effect.sync(close));
    return { fd: yield* descriptorOf(path, thread), thread };
  });

const descriptorOf = (path: DevicePath, thread: IoctlThread): Opening<number> => {
  switch (path._tag) {
    case "Cdev":
      return openCdev(path.path, thread);
    case "Group":
      return openInGroup(path.path, path.device, thread);
    case "Borrowed":
      return closedWithScope(() => borrowDescriptor(path.pid, path.fd));
  }
};

/** Until it is bound to an iommufd, a device's own file answers EINVAL to everything. */
const openCdev = (path: string, thread: IoctlThread): Opening<number> =>
  Effect.gen(function* () {
    const iommufd = yield* openFile(IOMMUFD_PATH);
    const device = yield* openFile(path);
    const bind = { fd: device, name: "VFIO_DEVICE_BIND_IOMMUFD", request: VFIO.DEVICE_BIND_IOMMUFD };
    yield* attempt(() => explained(thread.call({ ...bind, argument: bindIommufd(iommufd) }), path));
    return device;
  });

/** A group joins a container, the container gets an IOMMU, and only then does the group give its devices away. */
const openInGroup = (path: string, name: string, thread: IoctlThread): Opening<number> =>
  Effect.gen(function* () {
    const container = yield* openFile(CONTAINER_PATH);
    const group = yield* openFile(path);
    const ask = (fd: number, name: string, request: number, argument: Uint8Array | bigint) =>
      attempt(() => explained(thread.call({ fd, name, request, argument }), path));
    const version = yield* ask(container, "VFIO_GET_API_VERSION", VFIO.GET_API_VERSION, 0n);
    if (version.result !== API_VERSION)
      return yield* Effect.fail(refusal(path, "EPROTO", `VFIO API ${version.result}`));
    const status = yield* ask(group, "VFIO_GROUP_GET_STATUS", VFIO.GROUP_GET_STATUS, getGroupStatus());
    if (!isViable(status.argument)) {
      const why =
        "devices of this group are bound to drivers other than VFIO's; all of them must be given to VFIO together";
      return yield* Effect.fail(refusal(path, "EPERM", why));
    }
    yield* ask(group, "VFIO_GROUP_SET_CONTAINER", VFIO.GROUP_SET_CONTAINER, descriptorArgument(container));
    yield* ask(container, "VFIO_SET_IOMMU", VFIO.SET_IOMMU, TYPE1_V2_IOMMU);
    return yield* closedWithScope(async () => {
      const request = { fd: group, name: "VFIO_GROUP_GET_DEVICE_FD", request: VFIO.GROUP_GET_DEVICE_FD };
      return (await explained(thread.call({ ...request, argument: nameArgument(name) }), `${path}:${name}`)).result;
    });
  });

const refusal = (path: string, errno: string, detail: string): HostError =>
  new HostError("open", errno, { path, detail });

const explained = async (answer: Promise<IoctlAnswer>, path: string): Promise<IoctlAnswer> => {
  try {
    return await answer;
  } catch (error) {
    const { operation, errno } = hostErrorOf(error);
    const detail = EXPLANATIONS[errno];
    throw new HostError(operation, errno, detail === undefined ? { path } : { path, detail });
  }
};
