/**
 * Wrong images, and what real kernels did with them: the simulated kernel answers its userspace the same,
 * and says the same about live update. A part of them is in `npm test`; `npm run fuzz` takes all.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { openImage } from '../inspect/image.ts'
import { child, itemsAt, numberAt } from '../inspect/tree.ts'
import type { Answer } from '../simulate/answer.ts'
import { failed } from '../simulate/answer.ts'
import { Blocked } from '../simulate/blocked.ts'
import { imageHandover } from '../simulate/image-handover.ts'
import { simulatedRelease } from '../simulate/release.ts'
import { LAB_CMDLINE, type Patch } from './support/captured.ts'
import { labContents, labSums, sumOf } from './support/guest.ts'
import { ROOT } from './support/images.ts'
import { type LiveMachine, type LuoRelease, takeOverLive, value } from './support/live.ts'
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

interface MeasuredFile {
  readonly base: string
  readonly release: LuoRelease
  readonly fdt: string
  readonly cases: readonly Case[]
}

const FOLDER = `${ROOT}fixtures/wrong`
const FOLDERS = [`${FOLDER}/measured/`, `${ROOT}fixtures/real/`]
/** Of the measured cases one in so many. */
const STEP = process.env.WRONG_WHOLE === undefined ? 3 : 1

const singleCases = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.json'))
  .map((name): Case => JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')))

/** The guest asks for these, whatever the image says. */
const SESSIONS: Readonly<Record<string, readonly bigint[]>> = {
  'vm-alpha': [1n, 2n, 0xdead_beef_cafe_f00dn],
  database: [7n, 8n],
  'no-files-here': [],
}

/** Where the guest left the positions of its files, if not at the start. */
const POSITIONS: Readonly<Record<string, bigint>> = { 1: 1234n }

const PAGE = 4096
/** What the guest cannot map, it does not see. */
const ADDRESS_SPACE = 1n << 47n
/** Files beyond this are not those of the guest, whatever they hold. */
const LARGEST = 1n << 24n

/** Where the simulated kernel is known to differ, and why. */
const OTHERWISE: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'linux-7.1': {
    'kho_radix_node.table.0.@409a2000-zero': 'freed memory holds other bytes',
    'kho_radix_node.table.0.@409a3000-free': 'freed memory holds other bytes',
    'kho_radix_node.table.0.@409a4000-zero': 'freed memory holds other bytes',
  },
  'linux-7.3': {
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
  },
}

/** The machine's words where the simulated kernel says others for a fault, and why. */
const OTHER_FAULT: readonly (readonly [name: RegExp, why: string])[] = [
  [/nr_folios@41552010|^t1-nr-folios-10|^t1-order-20/, 'where vmalloc() maps is not modelled'],
  [/file_set_ser\.files@41620048-max/, 'strncmp() reads the whole word that holds the first byte'],
]
const isOtherFault = (name: string): boolean => OTHER_FAULT.some(([names]) => names.test(name))

type Found = Omit<Case['kernel'], 'oops'>

interface FileState {
  readonly size: bigint
  readonly position: bigint
  readonly seals: number
  readonly bytes: Uint8Array
}

/** A kernel that was measured, and the image that it was given with other bytes changed each time. */
class Suite {
  readonly #release: LuoRelease
  readonly #memory: PatchedMemory
  readonly #fdt: PhysAddr
  /** Of the unchanged image. */
  readonly right: ReadonlyMap<bigint, FileState>

  constructor({ release, fdt }: MeasuredFile, image: PhysicalMemory) {
    this.#release = release
    this.#memory = new PatchedMemory(image)
    this.#fdt = phys(BigInt(fdt))
    this.#writeFiles(image)
    this.right = this.#unchanged()
  }

  takeOver(patch: Patch): LiveMachine {
    const memory = new PatchedMemory(this.#memory)
    for (const [address, bytes] of patch) memory.write(BigInt(address), Buffer.from(bytes, 'hex'))
    const spec = simulatedRelease(this.#release)
    if (!spec) throw new Error(`${this.#release} is not modelled`)
    const ram = [{ start: 1n << 30n, end: 3n << 29n }]
    const handover = imageHandover({ memory, arch: 'arm64', fdt: this.#fdt, spec, ram })
    const config = { liveupdateTest: true }
    return takeOverLive(handover, { release: this.#release, cmdline: LAB_CMDLINE, config })
  }

  /** Images of which only the metadata is kept get back what the guest wrote. */
  #writeFiles(image: PhysicalMemory): void {
    const { tree } = decodeHandover(image, this.#fdt)
    const luo = tree.children.find(({ segment }) => segment === 'luo')
    for (const file of itemsAt(luo, 'sessions').flatMap((session) => itemsAt(session, 'files'))) {
      const content = labContents.get(BigInt(numberAt(file, 'token') ?? 0)) as Uint8Array
      const folios = child(child(file, 'memfd'), 'folios')
      const records = folios?.kind === 'record' ? [...(folios.bulk?.values() ?? [])] : []
      for (const [i, { pfn, index }] of records.entries()) {
        const [start, end] = [index, records[i + 1]?.index ?? Infinity].map((page) => Number(page) * PAGE)
        this.#memory.write(BigInt(Number(pfn) * PAGE), content.subarray(start, end))
      }
    }
  }

  #unchanged(): ReadonlyMap<bigint, FileState> {
    const machine = this.takeOver([])
    const { user } = machine
    return new Map(
      Object.entries(SESSIONS).flatMap(([name, tokens]) => {
        const session = value(user.retrieveSession(machine.device(), name))
        return tokens.map((token) => {
          const state = stateOf(machine, value(user.retrieveFd(session, token)))
          if (!state) throw new Error(`the guest cannot map file ${token}`)
          return [token, state] as const
        })
      }),
    )
  }

  /** What the guest's program finds. */
  guest(machine: LiveMachine): Found {
    const tokens = Object.values(SESSIONS).flat()
    const files: Record<string, 'right' | 'different' | 'lost'> = {}
    for (const token of tokens) files[token.toString(16)] = 'lost'
    const sessions_failed: [string, string][] = []
    const files_failed: [string, string][] = []
    let device_errno: number | null = null
    const device = machine.user.open('/dev/liveupdate')
    if (!(device instanceof Blocked)) device_errno = failed(device) ? -device.number : 0
    if (!failed(device)) {
      for (const [name, list] of Object.entries(SESSIONS)) {
        const session = machine.user.retrieveSession(device, name)
        if (session instanceof Blocked) break
        if (failed(session)) sessions_failed.push([name, errnoText(session)])
        else {
          for (const token of list) {
            const fd = machine.user.retrieveFd(session, token)
            if (fd instanceof Blocked) break
            if (failed(fd)) files_failed.push([token.toString(16), errnoText(fd)])
            else files[token.toString(16)] = this.#compare(token, stateOf(machine, fd))
          }
        }
      }
    }
    const lines = machine.console()
    const panic = lines.find((line) => line.startsWith('Kernel panic')) ?? null
    const flbs_found = lines.filter((line) => line.includes('found flb data')).length
    return { panic, device_errno, flbs_found, files, sessions_failed, files_failed }
  }

  #compare(token: bigint, found: FileState | undefined): 'right' | 'different' | 'lost' {
    const right = this.right.get(token)
    if (!found || !right) return 'lost'
    const isRight =
      found.size === right.size &&
      found.position === right.position &&
      found.seals === right.seals &&
      Buffer.compare(found.bytes, right.bytes) === 0
    return isRight ? 'right' : 'different'
  }
}

function errnoText(answer: Answer<unknown>): string {
  return failed(answer) ? String(-answer.number) : '0'
}

/** What was printed shortly before a panic may have been lost with it. */
function asRecorded(found: Found, { panic, files, sessions_failed, files_failed }: Found): Found {
  if (panic === null) return found
  const recorded = Object.entries(found.files).map(
    ([token, state]) => [token, files[token] === 'lost' ? 'lost' : state] as const,
  )
  return { ...found, files: Object.fromEntries(recorded), sessions_failed, files_failed }
}

function stateOf({ user }: LiveMachine, fd: number): FileState | undefined {
  const { size } = value(user.fstat(fd))
  if (size < 0n || size >= ADDRESS_SPACE) return undefined
  const position = value(user.lseek(fd, 0, 'SEEK_CUR'))
  const seals = value(user.getSeals(fd))
  const isShown = size <= LARGEST
  return {
    size,
    position,
    seals,
    bytes: isShown ? value(user.pread(fd, Number(size), 0)) : new Uint8Array(0),
  }
}

/** Lines of LUO and its file handler, and of a fault; the guest's own output may stand before one. */
const SPOKEN = /(?:(?:luo|memfd_luo): |Unable to handle |Internal error: ).*/
const FAULT = /^(Unable|Internal)/

function spoken(lines: readonly string[], name: string): readonly string[] {
  const said = lines.flatMap((line) => SPOKEN.exec(line)?.[0] ?? [])
  return isOtherFault(name) ? said.filter((line) => !FAULT.test(line)) : said
}

async function imageOf({ base }: MeasuredFile): Promise<PhysicalMemory> {
  for (const folder of FOLDERS) {
    const opened = await openImage([{ path: folder + base }])
    if (opened.ok) return opened.image
  }
  throw new Error(`${base} cannot be opened`)
}

const suites = await Promise.all(
  ['linux-7.3', 'linux-7.1', 'linux-6.19'].map(async (name) => {
    const file: MeasuredFile = JSON.parse(readFileSync(`${FOLDERS[0]}${name}-arm64-4k.json`, 'utf8'))
    const suite = new Suite(file, await imageOf(file))
    const single = name === 'linux-7.3' ? singleCases : []
    const otherwise = OTHERWISE[name] ?? {}
    const measured = file.cases.filter((measuredCase, i) => i % STEP === 0 || otherwise[measuredCase.name])
    return { name, suite, otherwise, cases: [...single, ...measured], whole: file.cases }
  }),
)

test.each(OTHER_FAULT)('%s: there are such faults, %s', (names) => {
  const cases = suites.flatMap(({ whole }) => whole.filter(({ name }) => names.test(name)))
  expect(cases.flatMap(({ console }) => console.filter((line) => FAULT.test(line)))).not.toEqual([])
})

describe.each(suites)('the simulated $name does what the real one did', ({ suite, otherwise, cases }) => {
  test('the unchanged image gives the files of the guest', () => {
    for (const [token, { size, position, bytes }] of suite.right) {
      expect([token, size, position]).toEqual([token, BigInt(bytes.length), POSITIONS[`${token}`] ?? 0n])
      expect(Buffer.compare(bytes, labContents.get(token) as Uint8Array)).toBe(0)
      expect(sumOf(bytes)).toBe(labSums[`0x${token.toString(16)}`] ?? sumOf(new Uint8Array(0)))
    }
  })

  const comparable = cases.filter(({ name }) => otherwise[name] === undefined)
  test.each(comparable)('$name', ({ name, patch, kernel: real, console: said }) => {
    const machine = suite.takeOver(patch)
    const { panic, device_errno, files, sessions_failed, files_failed, flbs_found } = real
    expect({ ...asRecorded(suite.guest(machine), real), spoken: spoken(machine.console(), name) }).toEqual({
      ...{ panic, device_errno, files, sessions_failed, files_failed, flbs_found },
      spoken: spoken(said, name),
    })
    expect(machine.kernel.state === 'crashed').toBe(panic !== null)
  })

  test('what is left out is there, and ends without a defect of the simulator', () => {
    const left = cases.filter(({ name }) => otherwise[name] !== undefined)
    expect(left).toHaveLength(Object.keys(otherwise).length)
    for (const { patch } of left) suite.guest(suite.takeOver(patch))
  })
})
