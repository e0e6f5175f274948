import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["libs/*/src/**/*.test.ts", "services/*/src/**/*.test.ts", "test/**/*.test.ts"],
    setupFiles: ["test/property-cases.ts", "test/programs.ts", "test/integration/setup.ts"],
    // Real processes and a real NATS server share two cores: a slow start, or a slow machine, must not read as a failure.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // Integration tests start whole hosts, a dozen processes each: a third one on two cores makes the others so late that what a test must meet in the
    // middle (a connection that stands, a device within its budget) is over, or not there yet.
    maxWorkers: 2,
  },
});
