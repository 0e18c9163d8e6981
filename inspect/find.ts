/**
 * Finding the handover: where the root FDT is, by what the user says, by a note, by a copy of debugfs,
 * or by a scan for page-aligned FDTs whose root is compatible with `kho-v*`; ranked where there are
 * several, with what tells them apart.
 */
import { KHO_NOTE_NAME, KHO_NOTE_TYPE, khoData } from '../abi/boot.ts'
import { FDT_MAGIC } from '../abi/fdt.ts'
import { KHO_COMPATIBLE, KHO_COMPATIBLE_PREFIX } from '../abi/kho.ts'
import { layoutOf } from '../abi/layout.ts'
import { hex, type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import type { KhoData } from './boot-entry.ts'
import { compatiblesOf } from './component-fdt.ts'
import { type DecodeOptions, decodeHandover, type Handover, knownContracts } from './decode.ts'
import { FDT_HEADER_SIZE, fdtTotalSize, hasFdtMagic, readFdt } from './fdt.ts'
import type { DebugfsTree, Image } from './image.ts'
import { scanPages } from './image-scan.ts'
import { readLeading } from './read.ts'
import { decodeStruct } from './record.ts'
import { child, itemsAt, numberAt } from './tree.ts'

export interface FindOptions extends DecodeOptions {
  /** Address of the root FDT, told by the user. */
  readonly fdt?: PhysAddr
  /** Takes whatever lies where the root FDT is said to be: what a kernel would refuse is then a fault. */
  readonly anyRoot?: boolean
  /** Called while scanning, with bytes done and bytes in all. */
  readonly progress?: (done: number, total: number) => void
}

/** One root FDT that was found, decoded. */
export interface Candidate {
  readonly handover: Handover
  readonly source: 'option' | 'note' | 'debugfs' | 'blob' | 'scan'
  readonly score: number
  /** What speaks for it and what tells it apart from the others. */
  readonly reasons: readonly string[]
}

/** Candidates best first, or one line that says what was looked for and what was found instead. */
export type Found = { readonly candidates: readonly Candidate[] } | { readonly problem: string }

/** The smallest page size: every page of every kernel starts at a multiple of it. */
const SCAN_STRIDE = 4096
/** Larger claims are not followed while scanning: a root FDT fits in one page. */
const SCAN_FDT_BYTES = 65536
/** Root FDTs decoded for the ranking; a dump holds two in normal life. */
const MAX_CANDIDATES = 32
const OTHERS_NAMED = 3
/** FDTs parsed in one scan; a dump holds a few with the string that is looked for. */
const MAX_PARSED = 1000

export function findHandovers(image: Image, told: FindOptions = {}): Found {
  const pageSize = told.pageSize ?? image.pageSize
  const options = pageSize ? { ...told, pageSize } : told
  if (options.fdt !== undefined) return atAddress(image, options.fdt, options)
  const boot = bootNote(image)
  if (boot) return fromNote(image, boot, options)
  if (image.debugfs) return fromDebugfs(image, image.debugfs, options)
  if (image.format === 'fdt') return fromBlob(image, options)
  return byScan(image, options)
}

function fromNote(image: Image, boot: KhoData, options: FindOptions): Found {
  const found = one(image, phys(boot.fdt_addr), { boot, ...options }, 'note')
  return 'problem' in found
    ? { problem: `${found.problem} (address of the note ${KHO_NOTE_NAME}; --fdt tells another)` }
    : found
}

/** The boot entry in a note `KHO` of type 1, if the image has one of the right size. */
export function bootNote(image: Image): KhoData | undefined {
  const { size } = layoutOf(khoData, { pageSize: 4096 })
  const note = image.notes.find(({ name, type }) => name === KHO_NOTE_NAME && type === KHO_NOTE_TYPE)
  if (!note || note.desc.length < size) return undefined
  return decodeStruct(khoData, note.desc.subarray(0, size), { pageSize: 4096 })
}

function one(image: Image, pa: PhysAddr, options: FindOptions, source: Candidate['source']): Found {
  const problem = whyNoFdt(image, pa, options.anyRoot)
  if (problem) return { problem: `${image.files[0]}: ${problem}` }
  const handover = decodeHandover(image, pa, options)
  return { candidates: [{ handover, source, score: 0, reasons: [] }] }
}

function atAddress(image: Image, pa: PhysAddr, options: FindOptions): Found {
  const boot = bootNote(image)
  return one(image, pa, boot ? { boot, ...options } : options, 'option')
}

function whyNoFdt(memory: PhysicalMemory, pa: PhysAddr, anyRoot = false): string | undefined {
  const expected = `expected an FDT (magic ${hex(FDT_MAGIC)}) at ${hex(pa)}`
  const head = readLeading(memory, pa, FDT_HEADER_SIZE)
  if (hasFdtMagic(head) || (anyRoot && head.length > 0)) return undefined
  if (head.length >= 4)
    return `${expected}, found ${hex(new DataView(head.buffer, head.byteOffset).getUint32(0))}`
  const { reason } = memory.presence(pa)
  return `${expected}, found no memory there: ${reason ?? 'the image does not hold this address'}`
}

/** debugfs does not say where the root FDT lies; the blobs lie where the root FDT says. */
function fromDebugfs(image: Image, trees: readonly DebugfsTree[], options: FindOptions): Found {
  const filled = trees.filter(({ fdt }) => hasFdtMagic(fdt))
  if (filled.length === 0) {
    const found = trees.every(({ fdt }) => fdt.length === 0)
      ? 'it is empty (kho-v1 fills it only while finalized)'
      : 'it holds no FDT'
    return { problem: `${image.files[0]}: expected the root FDT in the file fdt; ${found}` }
  }
  const candidates = filled.map(({ direction, fdt, blobs, scratch, placeBlob }): Candidate => {
    const ranges = scratch.map(({ addr, size }) => ({ start: phys(addr), end: addr + size }))
    const known = { detached: fdt, blobs, placeBlob, ...(ranges.length > 0 && { scratch: ranges }) }
    const handover = decodeHandover(image, phys(0), { ...options, ...known })
    return { handover, source: 'debugfs', score: 0, reasons: [`debugfs kho/${direction}`] }
  })
  return { candidates }
}

/** A bare FDT: at the address that the user gave with the file, else at none. */
function fromBlob(image: Image, options: FindOptions): Found {
  const start = image.ranges[0]?.start ?? phys(0)
  return one(image, start, start === 0n ? { ...options, detached: wholeBlob(image) } : options, 'blob')
}

function wholeBlob(image: Image): Uint8Array {
  return readLeading(image, phys(0), SCAN_FDT_BYTES)
}

function byScan(image: Image, options: FindOptions): Found {
  const roots: PhysAddr[] = []
  const others: string[] = []
  let fdts = 0
  let parsed = 0
  scanPages(
    image,
    SCAN_STRIDE,
    FDT_HEADER_SIZE,
    (pa, head) => {
      if (!hasFdtMagic(head)) return
      fdts += 1
      const bytes = readLeading(image, pa, Math.min(fdtTotalSize(head) ?? 0, SCAN_FDT_BYTES))
      if (!mayBeRoot(bytes) && others.length >= OTHERS_NAMED) return
      parsed += 1
      if (parsed > MAX_PARSED) return
      const strings = compatiblesOf(readFdt(bytes).root)
      if (strings.some((text) => KHO_COMPATIBLE.test(text))) {
        if (roots.length < MAX_CANDIDATES) roots.push(pa)
      } else if (others.length < OTHERS_NAMED) others.push(`'${strings[0] ?? ''}' at ${hex(pa)}`)
    },
    options.progress,
  )
  if (roots.length > 0) return { candidates: rank(roots.map((pa) => decodeHandover(image, pa, options))) }
  const expected = `expected a page-aligned FDT compatible with ${knownContracts().join(', ')}`
  const found = fdts === 0 ? 'found no FDT at all' : `found ${fdts} other FDTs: ${others.join(', ')}`
  const hint = image.hint === undefined ? '' : `; ${image.hint}`
  return {
    problem: `${image.files[0]}: no handover in this ${image.format} image; ${expected}, ${found}${hint}`,
  }
}

/** Much cheaper than to parse an FDT: whether it holds the string that is looked for at all. */
function mayBeRoot(bytes: Uint8Array): boolean {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).includes(KHO_COMPATIBLE_PREFIX)
}

/** Best first: sound before broken, filled before empty, the later count of handovers before the earlier. */
function rank(handovers: readonly Handover[]): readonly Candidate[] {
  const candidates = handovers.map((handover): Candidate => {
    const reasons: string[] = []
    let score = handover.readings[0]?.score ?? -100
    const judge = (points: number, reason: string): void => {
      score += points
      reasons.push(reason)
    }
    const against = handover.readings[0]?.reasons.find((reason) => reason.startsWith('-'))
    if (against) reasons.push(against.slice(2))
    if (numberAt(child(handover.tree, 'kho'), 'memory_map') === 0n) reasons.push('no map of preserved memory')
    const errors = handover.faults.filter((fault) => fault.severity === 'error').length
    if (errors > 0) judge(-10 * errors, `${errors} faults`)
    const luo = child(handover.tree, 'luo')
    const sessions = itemsAt(luo, 'sessions').length
    if (sessions > 0) judge(20, `${sessions} sessions`)
    else if (luo) judge(0, 'no sessions (none created, or not serialized yet)')
    const handoverCount = Number(numberAt(child(handover.tree, 'kexec_metadata'), 'kexec_count') ?? 0)
    if (handoverCount > 0) judge(Math.min(handoverCount, 9), `kexec_count ${handoverCount}`)
    const updates = numberAt(luo, 'liveupdate_num')
    if (updates !== undefined) judge(Number(updates < 9n ? updates : 9n), `live update ${updates}`)
    return { handover, source: 'scan', score, reasons }
  })
  candidates.sort((a, b) => b.score - a.score)
  return candidates.length > 1 ? withDirections(candidates) : candidates
}

/** Of two counts that follow each other the lower is what came in, the higher what goes out. */
function withDirections(candidates: readonly Candidate[]): readonly Candidate[] {
  const countOf = ({ handover }: Candidate): number =>
    Number(
      numberAt(child(handover.tree, 'kexec_metadata'), 'kexec_count') ??
        numberAt(child(handover.tree, 'luo'), 'liveupdate_num') ??
        0,
    )
  const counts = candidates.map(countOf)
  return candidates.map((candidate, index) => {
    const count = counts[index] as number
    if (count > 0 && counts.includes(count + 1)) {
      return { ...candidate, reasons: [...candidate.reasons, 'incoming: another one here counts one more'] }
    }
    if (count > 0 && counts.includes(count - 1)) {
      return {
        ...candidate,
        reasons: [...candidate.reasons, 'outgoing: counts one more than another one here'],
      }
    }
    return candidate
  })
}
