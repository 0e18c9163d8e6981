import { defineConfig } from 'vitest/config'

/** These look at how the memory of their process grows: each has one of its own. */
const MEASURING = [
  'test/fuzz.test.ts',
  'test/hostile-cost.test.ts',
  'test/image-bad.test.ts',
  'test/image-roundtrip.test.ts',
  'test/validate-hostile.test.ts',
]

const testTimeout = 60_000

/** The others share their process, so that what they import is loaded once. */
export default defineConfig({
  test: {
    globalSetup: ['test/support/build.ts'],
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
