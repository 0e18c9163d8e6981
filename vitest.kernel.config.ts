/** `npm run test:kernel`: what real kernels do with our images, and we with theirs. Takes minutes and QEMU. */
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/real-kernel/*.suite.ts'],
    globalSetup: ['test/support/build.ts', 'test/real-kernel/tables.ts'],
    fileParallelism: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
})
