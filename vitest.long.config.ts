/**
 * `npm run fuzz`: what takes minutes. FUZZ_RUNS and DAMAGE_RUNS say how much of it, FUZZ_SEED and DAMAGE_SEED
 * which.
 */
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: [
      'test/fuzz.test.ts',
      'test/validate-random.test.ts',
      'test/validate-clean.test.ts',
      'test/faults.test.ts',
      'test/simulate-wrong.test.ts',
      'test/fixtures.test.ts',
      'test/real-images.test.ts',
      'test/testing.test.ts',
      'test/long/*.ts',
    ],
    env: {
      FUZZ_RUNS: process.env.FUZZ_RUNS ?? '5000',
      DAMAGE_RUNS: process.env.DAMAGE_RUNS ?? '2000',
      FAULTS_WHOLE: '1',
      WRONG_WHOLE: '1',
    },
    fileParallelism: false,
    testTimeout: 3_600_000,
  },
})
