/**
 * Wrong images, and what real kernels did with them: the simulated kernel answers its userspace the same,
 * and says the same about live update.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { parseAddress } from '../abi/memory.ts'
import type { Answer } from '../simulate/answer.ts'
import { failed } from '../simulate/answer.ts'
import type { Handover } from '../simulate/handover.ts'
import { imageHandover } from '../simulate/image-handover.ts'
import { simulatedRelease } from '../simulate/release.ts'
import { LAB_CMDLINE, type Patch } from './support/captured.ts'
import { sumOf } from './support/guest.ts'
import { expectedOf, openReal, ROOT } from './support/images.ts'
import { type LiveMachine, takeOverLive, value } from './support/live.ts'
import { PatchedMemory } from './support/patched.ts'

interface Case {
  readonly name: string
  readonly patch: Patch
  readonly kernel: {
    readonly panic: string | null
    readonly oops: boolean
    readonly device_errno: number | null
    readonly files: Readonly<Record<string, 'right' | 'different' | 'lost'>>
    readonly sessions_failed: readonly (readonly [name: string, errno: string])[]
    readonly files_failed: readonly (readonly [token: string, errno: string])[]
    readonly flbs_found: number
  }
  readonly console: readonly string[]
}

const BASE = 'linux-7.3-arm64-4k-basic'
const FOLDER = `${ROOT}fixtures/wrong`

const cases: readonly Case[] = [
  ...readdirSync(FOLDER)
    .filter((name) => name.endsWith('.json'))
    .map((name): Case => JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8'))),
  ...(JSON.parse(readFileSync(`${FOLDER}/measured/linux-7.3-arm64-4k.json`, 'utf8'))
    .cases as readonly Case[]),
]

const image = openReal(BASE)
const fdt = parseAddress(expectedOf(BASE).kho.fdt)

async function handoverWith(patch: Patch): Promise<Handover> {
  const memory = new PatchedMemory(await image)
  for (const [address, bytes] of patch) memory.write(BigInt(address), Buffer.from(bytes, 'hex'))
  const spec = simulatedRelease('linux-7.3')
  if (!spec || fdt === undefined) throw new Error(`${BASE} cannot be taken over`)
  const ram = [{ start: 1n << 30n, end: 3n << 29n }]
  return imageHandover({ memory, arch: 'arm64', fdt, spec, ram })
}

/** The guest asks for these, whatever the image says. */
const SESSIONS = {
  'vm-alpha': [
    { token: 1n, size: 10000n, pos: 1234n, seals: 0, sum: '5d73c07134004785' },
    { token: 2n, size: 0n, pos: 0n, seals: 0, sum: sumOf(new Uint8Array(0)) },
    { token: 0xdead_beef_cafe_f00dn, size: 3145728n, pos: 0n, seals: 0, sum: '37a6056ac5371464' },
  ],
  database: [
    { token: 7n, size: 20480n, pos: 0n, seals: 6, sum: 'abd15aad7ab19156' },
    { token: 8n, size: 1048576n, pos: 0n, seals: 0, sum: '4c139be68aa5e327' },
  ],
  'no-files-here': [],
} as const

/** What the guest cannot map, it does not see. */
const ADDRESS_SPACE = 1n << 47n

/** Where the simulated kernel is known to differ, and why. */
const OTHERWISE: Readonly<Record<string, string>> = {
  'session-block-not-preserved': 'freed memory holds other bytes',
  'bit-clear-file-block': 'freed memory holds other bytes',
  'bit-clear-flb': 'freed memory holds other bytes',
  'bit-clear-memfd-ser': 'freed memory holds other bytes',
  'bit-clear-session-block': 'freed memory holds other bytes',
  'big-index-1': 'the guest maps the file, and mapping a large folio goes by its wrong index',
  'folio2-index-1': "the guest's output swallowed the kernel's line",
  'leaf-page-zero': "the guest's output swallowed the kernel's line",
  's2-files-of-s1': "the guest's output swallowed the kernel's line",
  'scratch0-addr-misaligned': 'memory of the kernel itself is not modelled',
  'scratch0-addr-outside': 'memory of the kernel itself is not modelled',
}

type Found = Omit<Case['kernel'], 'oops'>

function errnoText(answer: Answer<unknown>): string {
  return failed(answer) ? String(-answer.number) : '0'
}

/** What the guest's program finds. */
function guest(machine: LiveMachine): Found {
  const files: Record<string, 'right' | 'different' | 'lost'> = {}
  const sessions_failed: [string, string][] = []
  const files_failed: [string, string][] = []
  for (const list of Object.values(SESSIONS)) for (const { token } of list) files[token.toString(16)] = 'lost'
  let device_errno: number | null = null
  whileAlive(() => {
    const device = machine.user.open('/dev/liveupdate')
    device_errno = failed(device) ? -device.number : 0
    if (failed(device)) return
    for (const [name, list] of Object.entries(SESSIONS)) {
      const session = machine.user.retrieveSession(device, name)
      if (failed(session)) sessions_failed.push([name, errnoText(session)])
      else {
        for (const file of list) {
          const fd = machine.user.retrieveFd(session, file.token)
          const token = file.token.toString(16)
          if (failed(fd)) files_failed.push([token, errnoText(fd)])
          else files[token] = stateOf(machine, fd, file)
        }
      }
    }
  })
  const lines = machine.console()
  const panic = lines.find((line) => line.startsWith('Kernel panic')) ?? null
  const flbs_found = lines.filter((line) => line.includes('found flb data')).length
  const heard = { panic, device_errno, flbs_found }
  return panic === null
    ? { ...heard, files, sessions_failed, files_failed }
    : { ...heard, files: allLost(files), sessions_failed: [], files_failed: [] }
}

/** A guest whose kernel dies finds nothing more. */
function whileAlive(work: () => void): void {
  try {
    work()
  } catch (error) {
    if (!(error instanceof Error && error.name === 'Error' && error.message.includes('gone'))) throw error
  }
}

function allLost(files: Readonly<Record<string, unknown>>): Record<string, 'lost'> {
  return Object.fromEntries(Object.keys(files).map((token) => [token, 'lost']))
}

/** Contents whose sums are known to be the guest's. */
const rightContents = new Map<bigint, Uint8Array>()

function stateOf(
  { user }: LiveMachine,
  fd: number,
  file: { readonly token: bigint; readonly size: bigint; readonly pos: bigint; readonly seals: number },
): 'right' | 'different' | 'lost' {
  const { size } = value(user.fstat(fd))
  if (size < 0n || size >= ADDRESS_SPACE) return 'lost'
  const state = [size, value(user.lseek(fd, 0, 'SEEK_CUR')), BigInt(value(user.getSeals(fd)))]
  if (state.join() !== [file.size, file.pos, file.seals].join()) return 'different'
  const bytes = value(user.pread(fd, Number(size), 0))
  return Buffer.from(bytes).equals(rightContents.get(file.token) ?? new Uint8Array(0)) ? 'right' : 'different'
}

/** Lines of LUO and its file handler; the guest's own output may stand before one. */
function spoken(lines: readonly string[]): readonly string[] {
  return lines.flatMap((line) => /(?:luo|memfd_luo): .*/.exec(line)?.[0] ?? [])
}

async function takeOver(patch: Patch): Promise<LiveMachine> {
  const config = { liveupdateTest: true }
  return takeOverLive(await handoverWith(patch), { release: 'linux-7.3', cmdline: LAB_CMDLINE, config })
}

beforeAll(async () => {
  const machine = await takeOver([])
  for (const [name, files] of Object.entries(SESSIONS)) {
    const session = value(machine.user.retrieveSession(machine.device(), name))
    for (const { token, size, sum } of files) {
      const bytes = value(machine.user.pread(value(machine.user.retrieveFd(session, token)), Number(size), 0))
      expect(sumOf(bytes)).toBe(sum)
      rightContents.set(token, bytes)
    }
  }
})

describe('the simulated 7.3 does what the real one did', () => {
  const comparable = cases.filter(({ name }) => OTHERWISE[name] === undefined)
  test.each(comparable)('$name', async ({ patch, kernel: real, console: said }) => {
    const machine = await takeOver(patch)
    const { panic, device_errno, files, sessions_failed, files_failed, flbs_found } = real
    expect({ ...guest(machine), spoken: spoken(machine.console()) }).toEqual({
      ...{ panic, device_errno, files, sessions_failed, files_failed, flbs_found },
      spoken: spoken(said),
    })
    expect(machine.kernel.state === 'crashed').toBe(panic !== null)
  })

  test('what is left out is there, and ends without a defect of the simulator', async () => {
    const left = cases.filter(({ name }) => OTHERWISE[name] !== undefined)
    expect(left).toHaveLength(Object.keys(OTHERWISE).length)
    for (const { patch } of left) guest(await takeOver(patch))
  })
})
