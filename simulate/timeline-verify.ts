/** Looks at files and regions: held against what a step says, or against what was there before the kexec. */
import { memfdSeals } from '../abi/memfd.ts'
import { hex, phys } from '../abi/memory.ts'
import { contentSource } from '../encode/content.ts'
import type { Content } from '../encode/handover.ts'
import type { StepVerify } from '../encode/scenario-steps.ts'
import { type Answer, failed } from './answer.ts'
import type { File } from './file.ts'
import { handleOf } from './opaque-handler.ts'
import { done, type Fact, type StepResult } from './timeline-event.ts'
import type { TimelineMachine } from './timeline-machine.ts'
import { byRelease } from './timeline-repeat.ts'
import { firstChange, snapshotOf } from './timeline-snapshot.ts'

/** At most this much is compared at once. */
const CHUNK_BYTES = 1 << 16

export function verify(
  said: StepVerify,
  machine: TimelineMachine,
  content: Content | undefined,
): Answer | StepResult {
  if (said.file === undefined) return verifyRegion(said, machine, content)
  const file = machine.names.file(said.file)
  if (failed(file)) return file
  const { size, position, seals, mode, same_as: other } = said
  if ([size, position, seals, mode, content, other].every((part) => part === undefined)) {
    return verifyRetrieved(said.file, file, machine)
  }
  const { inode } = file
  if (!inode) return done([], ['a file of a driver that is not modelled has nothing to look at'])
  const look = new Look()
  look.number('size', size, inode.size)
  look.number('position', position, file.position)
  const wanted = seals && byRelease(seals, machine.release)
  if (seals) look.text('seals', wanted && [...wanted].sort().join('|'), sealWords(inode.seals))
  look.text('mode', mode, inode.mode.toString(8))
  if (content) look.content(content, (at, length) => inode.read(at, length), machine)
  if (other !== undefined) look.same(other, file, machine)
  return look.result()
}

/** What a step wants to know and what was found. */
class Look {
  readonly #facts: Fact[] = []
  readonly #wrong: string[] = []

  number(name: string, wanted: bigint | undefined, found: bigint): void {
    if (wanted === undefined) return
    this.#facts.push({ name, value: found })
    if (wanted !== found) this.#wrong.push(`${name}: expected ${wanted}, found ${found}`)
  }

  text(name: string, wanted: string | undefined, found: string): void {
    if (wanted === undefined) return
    this.#facts.push({ name, value: found })
    if (wanted !== found) this.#wrong.push(`${name}: expected ${wanted || 'none'}, found ${found || 'none'}`)
  }

  same(other: string, file: File, machine: TimelineMachine): void {
    const same = machine.names.file(other)
    const isSame = !failed(same) && (same.inode ? same.inode === file.inode : same === file)
    if (!isSame) this.#wrong.push(`expected the same file as ${other}, found another`)
    else this.#facts.push({ name: 'same file as', value: other })
  }

  content(
    content: Content,
    read: (at: bigint, length: number) => Uint8Array,
    machine: TimelineMachine,
  ): void {
    const { length, fill } = contentSource(content)
    for (let at = 0n; at < length; at += BigInt(CHUNK_BYTES)) {
      const left = length - at
      const wanted = new Uint8Array(left < BigInt(CHUNK_BYTES) ? Number(left) : CHUNK_BYTES)
      machine.spend(wanted.length)
      fill(at, wanted)
      const found = read(at, wanted.length)
      const first = wanted.findIndex((byte, index) => byte !== found[index])
      if (first < 0) continue
      this.#wrong.push(difference(at + BigInt(first), wanted[first], found[first]))
      return
    }
    this.#facts.push({ name: 'content as expected for', value: length, isBytes: true })
  }

  result(): StepResult {
    return done(this.#facts, this.#wrong)
  }
}

function difference(offset: bigint, wanted: number | undefined, found: number | undefined): string {
  const end = 'the end of the file'
  const shown = (byte: number | undefined): string => (byte === undefined ? end : hex(byte))
  return `content: at offset ${offset} expected ${shown(wanted)}, found ${shown(found)}`
}

function verifyRegion(
  { region: name = '', size }: StepVerify,
  machine: TimelineMachine,
  content: Content | undefined,
): StepResult {
  const region = machine.kernel.reserveMem.regions.find((one) => one.name === name)
  if (!region) return done([], [`the kernel has no region ${name}`])
  const look = new Look()
  look.number('size', size, region.size)
  const wanted = content ?? (size === undefined ? machine.regionContent(name) : undefined)
  const read = (at: bigint, length: number): Uint8Array => {
    const left = region.size > at ? region.size - at : 0n
    return machine.kernel.ram.read(phys(region.start + at), left < BigInt(length) ? Number(left) : length)
  }
  if (wanted) look.content(wanted, read, machine)
  const { facts, wrong } = look.result()
  return done([{ name, pa: region.start }, ...facts], wrong)
}

function verifyRetrieved(name: string, file: File, machine: TimelineMachine): StepResult {
  const before = machine.snapshotOf(name)
  if (!before) return done([], [`nothing is known of ${name}; say what it has to be (size, content, …)`])
  const wrong: string[] = []
  const spend = (bytes: number): void => machine.spend(bytes)
  const expect = (what: string, wanted: string | bigint, found: string | bigint): void => {
    if (wanted !== found) wrong.push(`${what}: was ${wanted || 'none'}, found ${found || 'none'}`)
  }
  const { inode, position } = file
  if (!inode) {
    expect('handle', hex(before.handle ?? 0n), hex(handleOf(file) ?? 0n))
    return done([{ name: 'handle', value: hex(before.handle ?? 0n) }], wrong)
  }
  expect('size', before.size, inode.size)
  expect('position', before.position, position)
  if (machine.keepsSeals) expect('seals', sealWords(restoredSeals(before.seals)), sealWords(inode.seals))
  const changed = firstChange(before, snapshotOf(file, spend))
  if (changed) wrong.push(`content: changed between offset ${changed.start} and ${changed.end}`)
  const seals = inode.seals === 0 ? [] : [{ name: 'seals', value: sealWords(inode.seals) }]
  return done([{ name: 'size', value: inode.size }, { name: 'position', value: position }, ...seals], wrong)
}

/** memfd_luo_retrieve() makes an executable file, on which F_SEAL_EXEC brings the others along. */
function restoredSeals(seals: number): number {
  const { EXEC, SHRINK, GROW, WRITE, FUTURE_WRITE } = memfdSeals
  return (seals & EXEC) === 0 ? seals : seals | SHRINK | GROW | WRITE | FUTURE_WRITE
}

/** Sorted, so that order does not matter: `grow|shrink`. */
function sealWords(seals: number): string {
  const words = Object.entries(memfdSeals).flatMap(([word, bit]) => ((seals & bit) === 0 ? [] : [word]))
  return words
    .map((word) => word.toLowerCase())
    .sort()
    .join('|')
}
