import { defineConfig } from 'vitest/config'

/** These look at the memory of their process, or of a child, which starts with its parent's peak: each has one of its own. */
const MEASURING = [
  'test/find.test.ts',
  'test/hostile-cost.test.ts',
  'test/image-bad.test.ts',
  'test/image-roundtrip.test.ts',
  'test/simulate-scattered.test.ts',
]

const testTimeout = 60_000

/** The others share their process, so that what they import is loaded once. */
export default defineConfig({
  test: {
    globalSetup: ['test/support/build.ts'],
    maxWorkers: '100%',
    projects: [
      { test: { name: 'measuring', include: MEASURING, testTimeout } },
      {
        test: {
          name: 'sharing',
          include: ['test/**/*.test.ts'],
          exclude: MEASURING,
          isolate: false,
          testTimeout,
        },
      },
    ],
  },
})
