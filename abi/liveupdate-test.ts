/**
 * The FLBs that a kernel built with CONFIG_LIVEUPDATE_TEST registers for every file handler.
 *
 * Source: lib/tests/liveupdate.c, LIVEUPDATE_TEST_FLB_COMPATIBLE() in include/linux/kho/abi/luo.h.
 */

/** TEST_FLB_MAGIC_BASE */
const TEST_FLB_MAGIC_BASE = 0xfeed_f00d_cafe_bee0n

/** TEST_NFLBS of them, in the order in which they register. */
export const LIVEUPDATE_TEST_FLBS = [0n, 1n, 2n].map((index) => ({
  name: `liveupdate-test-flb-v${index}`,
  data: TEST_FLB_MAGIC_BASE + index,
}))
