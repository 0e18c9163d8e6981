/**
 * Scanning an image: the first bytes of every page that is present, each read once, in large pieces
 * through one buffer, however large the memory.
 */
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'

/** Read at a time: a multiple of every page size that stays in the processor's cache. */
const CHUNK_BYTES = 256 * 1024
/** Bytes between two calls of `progress`. */
const PROGRESS_BYTES = 64 * 1024 * 1024

/**
 * Visits the first `headBytes` of every page (every multiple of `stride`) that the image holds.
 *
 * `head` is a view of a buffer that is overwritten; `progress` gets bytes of RAM passed and their total.
 */
export function scanPages(
  memory: PhysicalMemory,
  stride: number,
  headBytes: number,
  visit: (pa: PhysAddr, head: Uint8Array) => void,
  progress?: (done: number, total: number) => void,
): void {
  const buffer = new Uint8Array(CHUNK_BYTES)
  const step = BigInt(stride)
  const ranges = [...memory.ranges]
  const total = ranges.reduce((sum, { start, end }) => sum + Number(end - start), 0)
  let passed = 0
  let reported = 0
  for (const { start, end } of ranges) {
    for (let at = roundUp(start, step); at < end; ) {
      const want = end - at < BigInt(CHUNK_BYTES) ? Number(end - at) : CHUNK_BYTES
      const got = memory.read(phys(at), buffer.subarray(0, want))
      for (let page = 0; page + headBytes <= got; page += stride) {
        visit(phys(at + BigInt(page)), buffer.subarray(page, page + headBytes))
      }
      const next = got === want ? at + BigInt(want) : roundUp(skipMissing(memory, at + BigInt(got)), step)
      at = next < end ? next : end
      const done = passed + Number(at - start)
      if (done - reported < PROGRESS_BYTES) continue
      progress?.(done, total)
      reported = done
    }
    passed += Number(end - start)
  }
}

/** Where something is present again, at `pa` or after it. */
function skipMissing(memory: PhysicalMemory, pa: bigint): bigint {
  const { state, until } = memory.presence(phys(pa))
  // What is present and yet could not be read must not be tried for ever.
  return state === 'present' ? pa + 1n : until
}

function roundUp(value: bigint, step: bigint): bigint {
  return ((value + step - 1n) / step) * step
}
