/**
 * Right images in which faults are made: those of real kernels, and what the encoder makes for every
 * release and page size with one of everything that the release has.
 */
import type { PageSize } from '../../abi/layout.ts'
import type { Architecture } from '../../abi/machine.ts'
import type { PhysicalMemory } from '../../abi/memory.ts'
import { phys } from '../../abi/memory.ts'
import { type Release, releases } from '../../abi/registry.ts'
import { type DecodeOptions, decodeHandover, type Handover } from '../../inspect/decode.ts'
import { kernelOfRelease, type TargetKernel } from '../../inspect/target-kernel.ts'
import { ownKernel, type ValidateOptions } from '../../inspect/validate.ts'
import { type Fixture, fixture, fixtureFrom } from '../../testing/fixtures.ts'
import { expectedOf, openReal, realImages } from './images.ts'

export interface Base {
  readonly name: string
  readonly memory: PhysicalMemory
  readonly handover: Handover
  readonly kernel: TargetKernel
  readonly fdt: bigint
  readonly decode: DecodeOptions
  readonly options: ValidateOptions
}

/** What the captured kernels were booted with. */
const COMMAND_LINE = 'reserve_mem=1M:4096:trace reserve_mem=64K:65536:oops'

/** The scratch arrays of captured images, where anything tells. */
const SCRATCH: Readonly<Record<string, { readonly scratch_addr: bigint; readonly scratch_size: bigint }>> = {
  'linux-7.3-arm64-4k-basic': { scratch_addr: 0x5eff0000n, scratch_size: 48n },
}

export async function realBase(name: string): Promise<Base> {
  const scratchArray = SCRATCH[name]
  const decode = scratchArray ? { scratchArray } : {}
  const fdt = BigInt(expectedOf(name).kho.fdt)
  return baseOf(name, await openReal(name), fdt, decode, COMMAND_LINE)
}

function baseOf(
  name: string,
  memory: PhysicalMemory,
  fdt: bigint,
  decode: DecodeOptions,
  commandLine: string | undefined,
  release?: Release,
): Base {
  const handover = decodeHandover(memory, phys(fdt), decode)
  const kernel = release ? kernelOfRelease(release) : ownKernel(handover)
  return {
    name,
    memory,
    handover,
    kernel,
    fdt,
    decode,
    options: { kernel, ...(commandLine !== undefined && { commandLine }), decode },
  }
}

interface Machine {
  readonly release: Release
  readonly arch: Architecture
  readonly pageSize: PageSize
}

const label = ({ release, arch, pageSize }: Machine): string => `${release.name} ${arch} ${pageSize / 1024}K`

/** One of everything that a release has. */
function everything({ release }: Machine): string {
  const { versions } = release
  const parts = [
    'title: One of everything',
    `reserve_mem:
  - { name: trace, size: 1MiB, align: 4KiB, content: { text: "trace" } }
  - { name: oops, size: 64KiB, align: 64KiB }
preserved:
  - { size: 64KiB }`,
  ]
  if (versions['kho-test']) parts.push('kho_test: { orders: [0, 3, 1] }')
  if (versions['kexec-metadata']) parts.push('kexec_metadata: { previous_release: 7.1.0, count: 3 }')
  if (versions.luo) parts.push(SESSIONS)
  if (versions.luo && versions.luo !== 'luo-v1') parts.push(FLBS)
  return `${parts.join('\n')}\n`
}

const SESSIONS = `liveupdate_number: 3
sessions:
  - name: vm-alpha
    files:
      - token: 1
        memfd: { size: 20000, position: 7, content: { text: "one" } }
      - token: 2
        memfd: { folios: [{ order: 2, count: 2 }, { order: 0, count: 3 }], content: { text: "two" } }
      - token: 3
        memfd: {}
  - name: vm-beta
    files:
      - token: 1
        memfd: { size: 100000, content: { text: "three" } }
  - name: without-files`

const FLBS = `liveupdate_test: true
flbs:
  - { name: iommu-domains-v1, data: 0xfeed0001 }`

function fixtureBase({ memory, boot, name }: Fixture, machine: Machine, commandLine?: string): Base {
  const decode: DecodeOptions = { boot, pageSize: machine.pageSize }
  return baseOf(`${name} of ${label(machine)}`, memory, boot.fdt_addr, decode, commandLine, machine.release)
}

/** Machines on which releases are tried: 4K pages for all, the larger ones for some. */
const machines: readonly Machine[] = [
  ...releases.map((release): Machine => ({ release, arch: 'x86_64', pageSize: 4096 })),
  ...([16384, 65536] as const).flatMap((pageSize) =>
    releases
      .filter(({ name }) => name === 'linux-6.19' || name === 'linux-7.1' || name === 'linux-7.3')
      .map((release): Machine => ({ release, arch: 'arm64', pageSize })),
  ),
]

/**
 * Concepts of which one of everything has too little: several chunks, several blocks or full arrays, regions
 * of which no command line is known.
 */
function conceptsOf({ release, pageSize }: Machine): readonly string[] {
  const { luo } = release.versions
  if (luo === undefined || pageSize !== 4096) return ['reserve-mem']
  const lists = luo === 'luo-v5' ? ['sessions-block-plus-one', 'files-block-plus-one'] : ['full-sessions']
  return ['reserve-mem', 'multi-chunk-vmalloc', ...lists]
}

/** One of everything that a release has, encoded. */
export async function encodedBase(machine: Machine): Promise<Base> {
  const { release, arch, pageSize } = machine
  const options = { release: release.name, arch, pageSize, name: 'everything' }
  return fixtureBase(await fixtureFrom(everything(machine), options), machine, COMMAND_LINE)
}

/** One concept of the fixtures. */
export async function conceptBase(concept: string, machine: Machine): Promise<Base> {
  const { release, arch, pageSize } = machine
  return fixtureBase(await fixture(concept, { release: release.name, arch, pageSize }), machine)
}

/** All right images, those of real kernels first; the larger pages only where all are asked for. */
export async function faultBases(withLargePages: boolean): Promise<readonly Base[]> {
  const bases: Base[] = []
  for (const name of realImages) bases.push(await realBase(name))
  for (const machine of machines) {
    if (machine.pageSize !== 4096 && !withLargePages) continue
    bases.push(await encodedBase(machine))
    for (const concept of conceptsOf(machine)) {
      bases.push(await conceptBase(concept, machine))
    }
  }
  return bases
}
