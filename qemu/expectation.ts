/**
 * What a kernel should give back of a handover: by what the image holds, or by a file of the user. And what
 * differs from it in what the kernel gave back.
 */
import { ERRNO } from '../abi/errno.ts'
import { memfdSeals } from '../abi/memfd.ts'
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import { componentByName, versionsFor } from '../abi/registry.ts'
import { reserveMemRequests } from '../inspect/command-line.ts'
import type { Handover } from '../inspect/decode.ts'
import { beforeNul, decodeText } from '../inspect/text.ts'
import { child, itemsAt, type Node, numberAt } from '../inspect/tree.ts'
import type { FileReport, KernelReport, RegionReport, SessionReport } from './report.ts'
import { WordSum } from './word-sum.ts'

/** A file; what is left out is not compared. */
export interface ExpectedFile {
  readonly token: bigint
  /** The error that the guest shall get instead of it, 0 and left out for none. */
  readonly errno?: number
  readonly size?: bigint
  readonly pos?: bigint
  readonly seals?: number
  /** WordSum of the contents. */
  readonly sum?: bigint
}

export interface ExpectedSession {
  /** Bytes of the name in hex. */
  readonly name: string
  readonly files: readonly ExpectedFile[]
  /** The error that the guest shall get instead of it, and of finishing it; 0 and left out for none. */
  readonly errno?: number
  readonly finishErrno?: number
}

/** Where a region of reserve_mem lies, which no kernel tells, and what is in it. */
export interface ExpectedRegion {
  readonly name: string
  readonly address: bigint
  readonly size: bigint
  /** WordSum of the contents; not compared if left out. */
  readonly sum?: bigint
}

export interface Expectation {
  readonly sessions: readonly ExpectedSession[]
  /** Names of the reserve_mem regions, and of the kernel's test FLBs, whose data are to come back. */
  readonly regions?: readonly string[]
  /** Those of the regions whose contents the guest is asked for. */
  readonly regionContents?: readonly ExpectedRegion[]
  readonly flbs?: readonly string[]
  /** The release that the kernel says it was handed over by. */
  readonly previousRelease?: string
  /** Number of live updates that the kernel says it retrieved. */
  readonly liveupdateNumber?: bigint
  /** Whether the kernel's module test_kho finds again what it left. */
  readonly khoTest?: boolean
  /** Whether the guest finishes each session. */
  readonly finish?: boolean
  /** What is there by the image's own words, and that no address leads to: nobody can ask for it. */
  readonly unreachable?: readonly Difference[]
}

export interface Difference {
  readonly path: string
  readonly expected: string
  readonly found: string
}

const memblock = componentByName('memblock')
const khoTest = componentByName('kho-test')
/** Names of FLBs that the kernel's own test registers, and whose return it reports. */
const TEST_FLB = /^liveupdate-test-flb-v\d+$/
const PIECE_BYTES = 1n << 20n
/** The guest sums up no more, either. */
const MOST_SUMMED = 4n << 30n

/**
 * The sessions, files and regions that a decoded handover holds. Regions that the next kernel's command line
 * asks for are among them if the image has any, whether we can read them or not.
 */
export function expectationOf(handover: Handover, commandLine = ''): Expectation {
  const { tree } = handover
  const luo = child(tree, 'luo')
  const regions = itemsAt(child(tree, 'memblock'), 'reserve_mem')
  return {
    sessions: itemsAt(luo, 'sessions').map((session) => ({
      name: Buffer.from(beforeNul(bytesAt(session, 'name'))).toString('hex'),
      files: itemsAt(session, 'files').map((file) => expectedFile(handover, file)),
    })),
    regions: [
      ...new Set([
        ...regions.map((region) => textAt(region, 'name')),
        ...(holdsRegions(tree) ? requestedRegions(commandLine) : []),
      ]),
    ],
    regionContents: regions.flatMap((region) => expectedRegion(handover, region, textAt(region, 'name'))),
    flbs: itemsAt(luo, 'flbs')
      .map((flb) => textAt(flb, 'name'))
      .filter((name) => TEST_FLB.test(name)),
    ...previousRelease(child(tree, 'kexec_metadata')),
    ...(holdsKhoTest(handover) && { khoTest: true }),
    unreachable: [...itemsAt(luo, 'sessions').flatMap(lostFiles), ...lostFlbs(luo)],
  }
}

function lostFiles(session: Node): readonly Difference[] {
  const set = child(session, 'file_set_ser')
  const count = numberAt(set, 'count') ?? 0
  if (BigInt(count) === 0n || BigInt(numberAt(set, 'files') ?? 1) !== 0n) return []
  const path = `sessions[${textAt(session, 'name')}].files`
  return [{ path, expected: `${count} files`, found: 'no address of them' }]
}

/** The old kernel always leaves a page of FLBs, if only an empty one. */
function lostFlbs(luo: Node | undefined): readonly Difference[] {
  if (BigInt(numberAt(luo, 'flbs_pa') ?? 1) !== 0n) return []
  return [{ path: 'flbs', expected: 'a page of FLBs', found: 'no address of one' }]
}

/** Whether a subtree of the image is memblock's by its name or, where a wrong one hides it, by its contract. */
function holdsRegions(tree: Node): boolean {
  return itemsAt(tree, 'subtrees').some((subtree) => {
    if (textAt(subtree, 'name') === memblock.subtree) return true
    const compatible = child(child(subtree, 'blob'), 'compatible')
    const text = compatible?.kind === 'raw' ? decodeText(beforeNul(compatible.bytes)) : ''
    return versionsFor(memblock, text).length > 0
  })
}

/** Those that the kernel looks for: it refuses others for their form or number. */
function requestedRegions(commandLine: string): readonly string[] {
  return reserveMemRequests(commandLine).flatMap(({ region, refusal }) =>
    region && !refusal ? [region.name] : [],
  )
}

function previousRelease(metadata: Node | undefined): Pick<Expectation, 'previousRelease'> {
  return metadata ? { previousRelease: textAt(metadata, 'previous_release') } : {}
}

/** Whether an image has a subtree of the kernel's own test, right or wrong, and is not trimmed of its folios. */
function holdsKhoTest(handover: Handover): boolean {
  const { tree, faults } = handover
  if (!itemsAt(tree, 'subtrees').some((subtree) => textAt(subtree, 'name') === khoTest.subtree)) return false
  const isWrong = faults.some(({ path, severity }) => path.startsWith(khoTest.key) && severity === 'error')
  return isWrong || holdsTestFolios(handover)
}

function holdsTestFolios({ tree, memory, target }: Handover): boolean {
  const folios = child(child(child(tree, 'kho_test'), 'data'), 'folios_info')
  const bulk = folios?.kind === 'record' ? folios.bulk : undefined
  if (!bulk?.complete) return false
  for (const { value } of bulk.values()) {
    const start = BigInt(value ?? 0) & ~BigInt(target.pageSize - 1)
    if (memory.presence(phys(start)).state !== 'present') return false
  }
  return true
}

/** F_SEAL_EXEC on an executable file brings the others with it (mm/memfd.c: memfd_add_seals()). */
export function sealsInForce(seals: number): number {
  const { EXEC, SHRINK, GROW, WRITE, FUTURE_WRITE } = memfdSeals
  return seals & EXEC ? seals | SHRINK | GROW | WRITE | FUTURE_WRITE : seals
}

/** The list that the guest gets; docs/real-kernels.md. Regions last: by then others have used their memory. */
export function retrievalList({ sessions, finish, regionContents = [] }: Expectation): string {
  const lines = sessions.flatMap(({ name, files }) => [
    `session ${name}`,
    ...files.map(({ token }) => `file ${token.toString(16)}`),
    ...(finish ? ['finish'] : []),
  ])
  const regions = regionContents.map(
    ({ name, address, size }) =>
      `region ${Buffer.from(name).toString('hex')} ${address.toString(16)} ${size}`,
  )
  return [...lines, ...regions].map((line) => `${line}\n`).join('')
}

/** What did not come back as expected, in the order of the expectation. */
export function differences(expected: Expectation, report: KernelReport): readonly Difference[] {
  return [
    ...expected.sessions.flatMap((session, index) => sessionDifferences(session, report.sessions[index])),
    ...missing('reserve_mem', regionNames(expected), report.regions),
    ...(expected.regionContents ?? []).flatMap((region) => regionDifferences(region, report)),
    ...missing('flbs', expected.flbs ?? [], report.flbs),
    ...different('kexec_metadata.previous_release', expected.previousRelease, report.previousRelease),
    ...different('liveupdate_number', expected.liveupdateNumber, report.liveupdateNumber),
    ...different('kho_test', expected.khoTest, report.khoTest),
    ...(expected.unreachable ?? []),
  ]
}

function regionNames({ regions = [], regionContents = [] }: Expectation): readonly string[] {
  return [...new Set([...regions, ...regionContents.map(({ name }) => name)])]
}

function sessionDifferences(expected: ExpectedSession, found: SessionReport | undefined): Difference[] {
  const path = `sessions[${decodeText(Buffer.from(expected.name, 'hex'))}]`
  const { errno = 0, finishErrno = 0 } = expected
  if (found?.errno !== errno) return [answerDifference(path, 'a session', errno, found?.errno)]
  if (errno !== 0) return []
  const files = expected.files.flatMap((file, index) =>
    fileDifferences(`${path}.files[0x${file.token.toString(16)}]`, file, found.files[index]),
  )
  const isAsked = found.finish !== undefined || expected.finishErrno !== undefined
  if (!isAsked || found.finish === finishErrno) return files
  return [...files, answerDifference(`${path}.finish`, 'no error', finishErrno, found.finish)]
}

/** `given` is what there is without an error. */
function answerDifference(
  path: string,
  given: string,
  expected: number,
  found: number | undefined,
): Difference {
  const told = (errno: number | undefined): string => (errno === 0 ? given : errnoText(errno))
  return { path, expected: told(expected), found: told(found) }
}

function fileDifferences(path: string, expected: ExpectedFile, found: FileReport | undefined): Difference[] {
  const { errno = 0 } = expected
  if (found?.token !== expected.token) return [answerDifference(path, 'a file', errno, undefined)]
  if (found.errno !== errno) return [answerDifference(path, 'a file', errno, found.errno)]
  if (errno !== 0) return []
  return valueDifferences(path, [
    ['size', expected.size, found.size],
    ['pos', expected.pos, found.pos],
    ['seals', expected.seals, found.seals],
    ['sum', expected.sum, found.sum],
  ])
}

/**
 * What is in a region that came back. A guest that says nothing of it, or that cannot look, is no
 * difference; memory that is not there is one.
 */
function regionDifferences(
  expected: ExpectedRegion,
  { regions, regionContents }: KernelReport,
): Difference[] {
  const { name, address } = expected
  const isMeant = (each: RegionReport): boolean => each.name === name && each.address === address
  const found = regions.includes(name) ? regionContents.find(isMeant) : undefined
  if (found === undefined) return []
  const path = `reserve_mem[${name}]`
  if (found.errno === ERRNO.EFAULT) return [{ path, expected: 'memory', found: errnoText(found.errno) }]
  if (found.errno !== 0) return []
  return valueDifferences(path, [
    ['size', expected.size, found.size],
    ['sum', expected.sum, found.sum],
  ])
}

type Value = bigint | number | undefined

function valueDifferences(
  path: string,
  compared: readonly (readonly [key: string, wanted: Value, got: Value])[],
): Difference[] {
  return compared
    .filter(([, wanted, got]) => wanted !== undefined && wanted !== got)
    .map(([key, wanted, got]) => ({
      path: `${path}.${key}`,
      expected: numberText(key, wanted),
      found: numberText(key, got),
    }))
}

function errnoText(errno: number | undefined): string {
  return errno === undefined ? 'nothing' : `errno ${errno}`
}

function numberText(key: string, value: bigint | number | undefined): string {
  if (value === undefined) return 'nothing'
  return key === 'sum' || key === 'seals' ? `0x${value.toString(16)}` : value.toString()
}

function missing(path: string, expected: readonly string[], found: readonly string[]): Difference[] {
  return expected
    .filter((name) => !found.includes(name))
    .map((name) => ({ path: `${path}[${name}]`, expected: 'its data', found: 'nothing' }))
}

function different<T>(path: string, expected: T | undefined, found: T | undefined): Difference[] {
  if (expected === undefined || expected === found) return []
  return [{ path, expected: String(expected), found: found === undefined ? 'nothing' : String(found) }]
}

/** Regions without an address or with no size, as broken images have them, are not asked for. */
function expectedRegion({ memory }: Handover, region: Node, name: string): readonly ExpectedRegion[] {
  const [address, size] = [BigInt(numberAt(region, 'start') ?? 0), BigInt(numberAt(region, 'size') ?? 0)]
  if (address === 0n || size === 0n) return []
  const sum = new WordSum()
  const isWhole = size <= MOST_SUMMED && addBytes(sum, memory, phys(address), size)
  return [{ name, address, size, ...(isWhole && { sum: sum.value }) }]
}

function expectedFile({ memory, target }: Handover, file: Node): ExpectedFile {
  const token = BigInt(numberAt(file, 'token') ?? 0)
  const memfd = child(file, 'memfd')
  const size = numberAt(memfd, 'size')
  if (size === undefined) return { token }
  const sum = contentSum(memory, memfd, BigInt(size), target.pageSize)
  return {
    token,
    size: BigInt(size),
    pos: BigInt(numberAt(memfd, 'pos') ?? 0),
    seals: sealsInForce(Number(numberAt(memfd, 'seals') ?? memfdSeals.SEAL)),
    ...(sum !== undefined && { sum }),
  }
}

/** The sum of a file's bytes; undefined where records or pages of it are missing or out of order. */
function contentSum(
  memory: PhysicalMemory,
  memfd: Node | undefined,
  size: bigint,
  pageSize: number,
): bigint | undefined {
  if (size > MOST_SUMMED) return undefined
  const folios = child(memfd, 'folios')
  const bulk = folios?.kind === 'record' ? folios.bulk : undefined
  const sum = new WordSum()
  const stride = BigInt(pageSize)
  let at = 0n
  let folio: PhysAddr | undefined
  for (const record of bulk?.values() ?? []) {
    const start = BigInt(record.index ?? 0) * stride
    if (start < at || start > size) return undefined
    if (!addBytes(sum, memory, folio, start - at)) return undefined
    at = start
    folio = record.pfn ? phys(BigInt(record.pfn) * stride) : undefined
  }
  return addBytes(sum, memory, folio, size - at) ? sum.value : undefined
}

/** Adds memory, or zeros where there is none to read from; not all of it where some is missing. */
function addBytes(sum: WordSum, memory: PhysicalMemory, from: PhysAddr | undefined, length: bigint): boolean {
  for (let at = 0n; at < length; at += PIECE_BYTES) {
    const bytes = new Uint8Array(Number(length - at < PIECE_BYTES ? length - at : PIECE_BYTES))
    if (from !== undefined && memory.read(phys(from + at), bytes) < bytes.length) return false
    sum.add(bytes)
  }
  return true
}

function textAt(node: Node, key: string): string {
  return decodeText(beforeNul(bytesAt(node, key)))
}

function bytesAt(node: Node, key: string): Uint8Array {
  const field = child(node, key)
  return field?.kind === 'value' && field.value instanceof Uint8Array ? field.value : new Uint8Array()
}
