/** What guests preserve on real kernels, and how that becomes a captured image. */
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import type { PageSize } from '../../abi/layout.ts'
import type { ImageFile } from '../../encode/image-pieces.ts'
import { type Image, openImage } from '../../inspect/image.ts'
import { type Captured, captureHandover } from '../../qemu/capture.ts'
import { withFiles } from '../../qemu/cpio.ts'
import { type Expectation, retrievalList } from '../../qemu/expectation.ts'
import { type BuiltKernel, guestFile, kernelFile, LITTLE_NOISE } from './lab.ts'

/** A file that a guest makes: size, position, seals, huge pages, and the pattern of its contents. */
interface GuestFile {
  readonly token: bigint
  readonly size: number
  readonly pos?: bigint
  readonly seals?: number
  readonly huge?: boolean
  /** Seed, and a run of so many bytes at every so many. */
  readonly pattern?: readonly [seed: number, every: number, run: number]
}

interface GuestSession {
  readonly name: string
  readonly files: readonly GuestFile[]
}

export interface Workload {
  readonly memoryMiB: number
  readonly regions: readonly (readonly [name: string, size: number, align: number])[]
  readonly sessions: readonly GuestSession[]
}

const MIB = 1 << 20
const SECONDS = 120
/** What scratch areas take more where they are rounded up: to 32 MiB with pages of 16K, to 512 MiB with 64K. */
const MORE_SCRATCH_MIB: Readonly<Record<PageSize, number>> = { 4096: 0, 16384: 32, 65536: 2048 }
const text = (name: string): string => Buffer.from(name).toString('hex')
const numbered = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => make(i))

export const workloads = {
  nothing: { memoryMiB: 512, regions: [], sessions: [] },
  basic: {
    memoryMiB: 512,
    regions: [
      ['trace', MIB, 4096],
      ['oops', 65536, 65536],
    ],
    sessions: [
      {
        name: text('vm-alpha'),
        files: [
          { token: 1n, size: 10000, pos: 1234n, pattern: [11, 10000, 10000] },
          { token: 2n, size: 0 },
          { token: 0xdeadbeefcafef00dn, size: 3 * MIB, huge: true, pattern: [33, 4096, 512] },
        ],
      },
      {
        name: text('database'),
        files: [
          { token: 7n, size: 20480, seals: 6, pattern: [44, 20480, 20480] },
          { token: 8n, size: MIB, pattern: [55, 65536, 512] },
        ],
      },
      { name: text('no-files-here'), files: [] },
    ],
  },
  'odd names and extremes': {
    memoryMiB: 512,
    regions: [['fifteen-bytes-0', 131072, 2 * MIB]],
    sessions: [
      {
        name: text('\x1b[31mred\x07\r\nbell'),
        files: [
          { token: 0n, size: 3, pattern: [5, 8, 8] },
          { token: 0xffff_ffff_ffff_ffffn, size: 4097, pos: 0x7fff_ffff_ffff_f000n, pattern: [6, 64, 9] },
        ],
      },
      {
        name: 'ff'.repeat(63),
        files: [{ token: 0x8000_0000_0000_0000n, size: 65536, seals: 0x1f, pattern: [8, 4096, 7] }],
      },
      { name: text('säge-日本-🐧'), files: [] },
    ],
  },
  'many sessions and files': {
    memoryMiB: 512,
    regions: [],
    sessions: [
      ...numbered(120, (i) => ({
        name: text(`session-${i}`),
        files: numbered(
          i % 3,
          (k): GuestFile => ({ token: BigInt(k), size: 100 + i * 7, pattern: [i * 10 + k, 64, 8] }),
        ),
      })),
      {
        name: text('many-files'),
        files: numbered(128, (i): GuestFile => ({ token: BigInt(i), size: 4096 + i, pattern: [i, 512, 16] })),
      },
    ],
  },
  'large files': {
    memoryMiB: 1536,
    regions: [],
    sessions: [
      {
        name: text('big-vm'),
        files: [
          { token: 0n, size: 576 * MIB, pattern: [7, 4096, 8] },
          { token: 1n, size: 64 * MIB, huge: true, pattern: [8, 4096, 8] },
        ],
      },
    ],
  },
} satisfies Readonly<Record<string, Workload>>

/** The list that the guest makes things by. */
function creationList({ sessions }: Workload): string {
  const lines = sessions.flatMap(({ name, files }) => [
    `session ${name}`,
    ...files.map(
      ({ token, size, pos = 0n, seals = 0, huge = false, pattern: [seed, every, run] = [0, 1, 0] }) => {
        const numbers = [
          token.toString(16),
          size,
          pos,
          seals.toString(16),
          huge ? 1 : 0,
          seed,
          Math.max(every, 1),
          run,
        ]
        return `memfd ${numbers.join(' ')}`
      },
    ),
  ])
  return lines.map((line) => `${line}\n`).join('')
}

export function wantedOf({ sessions, regions }: Workload): Expectation {
  return {
    sessions: sessions.map(({ name, files }) => ({ name, files: files.map(({ token }) => ({ token })) })),
    regions: regions.map(([name]) => name),
  }
}

export function parametersOf({ regions }: Workload): string {
  return regions.map(([name, size, align]) => `reserve_mem=${size}:${align}:${name}`).join(' ')
}

/** The guest with its list and with the next kernel and its guest. */
export function initramfs(workload: Workload, kernel: string, guest: Uint8Array): Uint8Array {
  const next = withFiles(guest, [
    { path: 'kho-retrieve', bytes: Buffer.from(retrievalList(wantedOf(workload))) },
  ])
  return withFiles(guest, [
    { path: 'kho-create', bytes: Buffer.from(creationList(workload)) },
    { path: 'kernel', bytes: readFileSync(kernel) },
    { path: 'initrd', bytes: next },
  ])
}

function save(path: string, image: ImageFile): void {
  const file = openSync(path, 'w')
  for (const { offset, bytes } of image.pieces()) writeSync(file, bytes, 0, bytes.length, offset)
  ftruncateSync(file, image.size)
  closeSync(file)
}

export interface CapturedImage extends Captured {
  readonly image: Image
}

/** Lets a guest make a workload and takes the image of what its kernel hands over; `close` ends the image. */
export async function capture(
  workload: Workload,
  { version, arch, pageSize }: Omit<BuiltKernel, 'release'>,
): Promise<CapturedImage> {
  const directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  try {
    const kernel = kernelFile(version, arch, pageSize)
    const [initrd, path] = [`${directory}/initrd`, `${directory}/image`]
    writeFileSync(initrd, initramfs(workload, kernel, readFileSync(guestFile(arch))))
    const captured = await captureHandover({
      kernel,
      initrd,
      memoryMiB: workload.memoryMiB + MORE_SCRATCH_MIB[pageSize],
      commandLine: `${LITTLE_NOISE} kho_scratch=16M,64M,16M ${parametersOf(workload)}`,
      timeout: SECONDS,
      save: (image) => save(path, image),
    })
    if ('problem' in captured) throw new Error(captured.problem)
    const opened = await openImage([{ path }])
    if (!opened.ok) throw new Error(opened.problem)
    return { ...captured, image: opened.image }
  } finally {
    // What is open stays readable without its name.
    rmSync(directory, { recursive: true })
  }
}
