/**
 * A reader of the captured images for tests of the encoder: PT_LOAD by physical address, nothing else.
 * It shares no code with the project, so that what is compared with it is compared with the kernel.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'

export interface Segment {
  readonly pa: bigint
  readonly bytes: Uint8Array
}

const real = (name: string): string => fileURLToPath(new URL(`../../fixtures/real/${name}`, import.meta.url))

export const REAL_IMAGES = [
  'linux-6.17-x86_64-basic',
  'linux-6.19-x86_64-basic',
  'kho-v2-x86_64-basic',
  'linux-7.1-x86_64-basic',
  'linux-7.3-x86_64-basic',
  'linux-7.3-arm64-4k-basic',
] as const

/** What was captured, and what a reader of another origin says of it. */
export class RealImage {
  readonly segments: readonly Segment[]
  // biome-ignore lint/suspicious/noExplicitAny: a JSON document that only the tests know.
  readonly expected: any

  constructor(name: string) {
    const file = gunzipSync(readFileSync(real(`${name}.elf.gz`)))
    const view = new DataView(file.buffer, file.byteOffset, file.length)
    const table = Number(view.getBigUint64(32, true))
    const segments: Segment[] = []
    for (let index = 0; index < view.getUint16(56, true); index++) {
      const header = table + index * view.getUint16(54, true)
      if (view.getUint32(header, true) !== 1) continue
      const offset = Number(view.getBigUint64(header + 8, true))
      const length = Number(view.getBigUint64(header + 32, true))
      segments.push({
        pa: view.getBigUint64(header + 24, true),
        bytes: Uint8Array.from(file.subarray(offset, offset + length)),
      })
    }
    this.segments = segments
    this.expected = JSON.parse(readFileSync(real(`${name}.expected.json`), 'utf8'))
  }

  bytes(pa: bigint, length: number): Uint8Array {
    const segment = this.segments.find(
      ({ pa: start, bytes }) => start <= pa && pa + BigInt(length) <= start + BigInt(bytes.length),
    )
    if (!segment) throw new Error(`0x${pa.toString(16)} is not in the image`)
    const offset = Number(pa - segment.pa)
    return segment.bytes.subarray(offset, offset + length)
  }
}
