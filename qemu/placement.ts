/**
 * Where a kernel and what it is entered with go: into one scratch area, as kexec_file_load() puts them,
 * and not over the array of areas, which lies in one of them.
 */

import { EARLY_MEMREMAP_MAX, khoScratch } from '../abi/boot.ts'
import { CONTAINER_TARGET } from '../abi/container.ts'
import { layoutOf } from '../abi/layout.ts'
import { hex, type PhysicalMemory, type PhysRange, phys } from '../abi/memory.ts'
import type { KhoNote } from '../encode/image-note.ts'
import { readLeading } from '../inspect/read.ts'
import { decodeStruct } from '../inspect/record.ts'
import { MachineFailure } from './failure.ts'

export interface Part {
  readonly size: number
  /** The part starts at a multiple of this, plus `offset`. */
  readonly align: number
  readonly offset?: number
}

/** The areas of a boot entry's array. */
export function scratchAreas(memory: PhysicalMemory, boot: KhoNote): readonly PhysRange[] {
  const length = boot.scratch_size < EARLY_MEMREMAP_MAX ? Number(boot.scratch_size) : EARLY_MEMREMAP_MAX
  const bytes = readLeading(memory, phys(boot.scratch_addr), length)
  const { size } = layoutOf(khoScratch, CONTAINER_TARGET)
  if (length === 0 || bytes.length < length) {
    throw new MachineFailure(`the image does not hold the scratch array at ${hex(boot.scratch_addr)}`)
  }
  return Array.from({ length: Math.floor(length / size) }, (_, index) => {
    const area = decodeStruct(khoScratch, bytes.subarray(index * size, (index + 1) * size), CONTAINER_TARGET)
    return { start: phys(area.addr), end: area.addr + area.size }
  })
}

/** Start addresses of the parts, one behind the other in the largest area that takes them all. */
export function placeParts(
  parts: readonly Part[],
  areas: readonly PhysRange[],
  taken: PhysRange,
): readonly bigint[] {
  const largestFirst = areas.toSorted((a, b) => Number(b.end - b.start - (a.end - a.start)))
  for (const area of largestFirst) {
    const starts = placeIn(area, parts, taken)
    if (starts) return starts
  }
  const wanted = parts.reduce((sum, { size, align }) => sum + size + align, 0)
  throw new MachineFailure(
    `no scratch area has room for kernel, initramfs and device tree; expected one of ${Math.ceil(wanted / 2 ** 20)} MiB`,
  )
}

function placeIn(area: PhysRange, parts: readonly Part[], taken: PhysRange): readonly bigint[] | undefined {
  const starts: bigint[] = []
  let at: bigint = area.start
  for (const { size, align, offset = 0 } of parts) {
    const place = (from: bigint): bigint => alignUp(from - BigInt(offset), BigInt(align)) + BigInt(offset)
    let start = place(at)
    if (start < taken.end && start + BigInt(size) > taken.start) start = place(taken.end)
    at = start + BigInt(size)
    if (at > area.end) return undefined
    starts.push(start)
  }
  return starts
}

function alignUp(value: bigint, align: bigint): bigint {
  return ((value + align - 1n) / align) * align
}
