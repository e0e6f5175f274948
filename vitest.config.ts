import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["libs/*/src/**/*.test.ts", "services/*/src/**/*.test.ts", "test/**/*.test.ts"],
    setupFiles: ["test/property-cases.ts", "test/programs.ts", "test/integration/setup.ts"],
    // Real processes and a real NATS server share two cores: a slow start, or a slow machine, must not read as a failure.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // Integration tests start whole hosts, and wait for half of their time: on two cores a third one fills the gaps, more would only make each other late.
    maxWorkers: 3,
  },
});
