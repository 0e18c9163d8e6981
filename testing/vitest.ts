/**
 * Matchers for vitest. Importing this module adds them to `expect`:
 *
 *     import "kho-inspect/vitest"
 *     expect(memory).toBeValidHandover()
 *     await expect("image.elf").toHoldSession("vm-alpha")
 *
 * What is expected may be memory, a fixture, or a handover that was decoded: the answer is there at once.
 * The name of an image file or its bytes have to be opened first: such an expectation is awaited.
 */
import { expect } from 'vitest'
import { hex, type PhysicalMemory, phys } from '../abi/memory.ts'
import type { KhoData } from '../inspect/boot-entry.ts'
import { decodeHandover, type Handover } from '../inspect/decode.ts'
import { findHandovers } from '../inspect/find.ts'
import { type Image, openImage, parseImageSource } from '../inspect/image.ts'
import { decodeText } from '../inspect/text.ts'
import { child, itemsAt, type Node, numberAt } from '../inspect/tree.ts'

/** What the matchers take. */
export type HandoverSubject =
  | Handover
  | PhysicalMemory
  | { readonly memory: PhysicalMemory; readonly boot: KhoData }
  | Uint8Array
  | string

/** What is asked of a file; what is left out may be anything. */
export interface ExpectedFile {
  readonly compatible?: string
  /** Bytes of a memfd. */
  readonly size?: number | bigint
  readonly position?: number | bigint
  /** Bits of F_SEAL_*. */
  readonly seals?: number
}

interface HandoverMatchers<R> {
  /** It decodes without errors and warnings. */
  toBeValidHandover: () => R
  /** It follows this version: `kho-v4`, `kho-v1/bitmap-512`. */
  toFollowAbi: (version: string) => R
  toHoldSession: (name: string) => R
  /** The session holds a file with this token, and with these properties. */
  toHoldFile: (session: string, token: number | bigint, expected?: ExpectedFile) => R
  toHoldFlb: (name: string) => R
  toHoldReserveMem: (name: string) => R
  toHoldSubtree: (name: string) => R
}

declare module 'vitest' {
  interface Matchers<T> extends HandoverMatchers<T> {}
}

interface Verdict {
  readonly pass: boolean
  readonly message: () => string
}

/** What a matcher finds out about a handover: whether it holds, what was asked for, what was found. */
interface Answer {
  readonly pass: boolean
  /** `hold the session "vm-alpha"`. */
  readonly asked: string
  readonly found: readonly string[]
}

type Question = (handover: Handover) => Answer

/** The handover in a subject, or why there is none. */
type Opened = Handover | { readonly problem: string }

function judge(subject: HandoverSubject, question: Question): Verdict | Promise<Verdict> {
  if (typeof subject === 'string' || subject instanceof Uint8Array) {
    return openFile(subject).then((opened) => verdict(opened, question))
  }
  return verdict(handoverIn(subject), question)
}

function verdict(opened: Opened, question: Question): Verdict {
  if ('problem' in opened) return { pass: false, message: () => `expected a handover: ${opened.problem}` }
  const { pass, asked, found } = question(opened)
  const lines = found.length > 0 ? found : ['nothing']
  return {
    pass,
    message: () =>
      `expected the handover ${pass ? 'not ' : ''}to ${asked}; found\n${lines.map((line) => `  ${line}`).join('\n')}`,
  }
}

async function openFile(file: string | Uint8Array): Promise<Opened> {
  const source = typeof file === 'string' ? parseImageSource(file) : undefined
  if (source && !source.ok) return source
  const opened = await openImage([source?.source ?? { path: 'image', bytes: file as Uint8Array }])
  if (!opened.ok) return opened
  try {
    return bestHandover(opened.image)
  } finally {
    opened.image.close()
  }
}

function bestHandover(image: Image): Opened {
  const found = findHandovers(image)
  if ('problem' in found) return found
  return found.candidates[0]?.handover ?? { problem: 'no handover found' }
}

function handoverIn(subject: Exclude<HandoverSubject, string | Uint8Array>): Opened {
  if ('tree' in subject) return subject
  if ('boot' in subject)
    return decodeHandover(subject.memory, phys(subject.boot.fdt_addr), { boot: subject.boot })
  return bestHandover({
    format: 'raw',
    files: ['memory'],
    notes: [],
    warnings: [],
    ranges: subject.ranges,
    read: (pa, out) => subject.read(pa, out),
    presence: (pa) => subject.presence(pa),
    filePosition: (pa) => subject.filePosition(pa),
    close: () => {},
  })
}

function textOf(node: Node | undefined, key: string): string {
  const value = child(node, key)
  return value?.kind === 'value' && value.value instanceof Uint8Array ? decodeText(value.value) : ''
}

/** Whether one of the entries of a list has a name. */
function named(asked: string, entries: readonly Node[], wanted: string): Answer {
  const names = entries.map((entry) => textOf(entry, 'name'))
  const pass = names.includes(wanted)
  return {
    pass,
    asked: `${asked} ${JSON.stringify(wanted)}`,
    found: names.map((name) => JSON.stringify(name)),
  }
}

function faultsOf({ faults }: Handover): Answer {
  const wrong = faults.filter(({ severity }) => severity !== 'note')
  const found = wrong.map(({ severity, code, path, message, expected, found: instead, pa }) => {
    const details = [expected && `expected ${expected}`, instead && `found ${instead}`]
      .filter(Boolean)
      .join(', ')
    return `${severity} ${code} ${path}: ${message}${details && `; ${details}`} (at ${hex(pa)})`
  })
  return { pass: wrong.length === 0, asked: 'be valid', found: found.length > 0 ? found : ['no fault'] }
}

function abiOf(handover: Handover, wanted: string): Answer {
  const { id, contract } = handover.version ?? { id: 'unknown', contract: undefined }
  const string = contract?.kind === 'string' ? contract.value : id
  return { pass: wanted === id || wanted === string, asked: `follow ${wanted}`, found: [id] }
}

function fileIn(handover: Handover, session: string, token: number | bigint, expected: ExpectedFile): Answer {
  const wanted = BigInt(token)
  const asked = `hold a file ${hex(wanted)}${describeFile(expected)} in the session ${JSON.stringify(session)}`
  const sessions = itemsAt(child(handover.tree, 'luo'), 'sessions')
  const owner = sessions.find((one) => textOf(one, 'name') === session)
  if (!owner) return { pass: false, asked, found: [`no such session among ${sessions.length}`] }
  const files = itemsAt(owner, 'files')
  const file = files.find((one) => BigInt(numberAt(one, 'token') ?? -1) === wanted)
  if (!file) {
    return { pass: false, asked, found: files.map((one) => `token ${hex(numberAt(one, 'token') ?? 0)}`) }
  }
  const actual = factsOf(file)
  const pass = Object.entries(expected).every(([key, value]) =>
    same(actual[key as keyof ExpectedFile], value),
  )
  return { pass, asked, found: [`a file${describeFile(actual)}`] }
}

function factsOf(file: Node): ExpectedFile {
  const memfd = child(file, 'memfd')
  const number = (key: string): { readonly [name: string]: bigint } | undefined => {
    const value = numberAt(memfd, key)
    return value === undefined ? undefined : { [key]: BigInt(value) }
  }
  const { pos } = number('pos') ?? {}
  const seals = numberAt(memfd, 'seals')
  return {
    compatible: textOf(file, 'compatible'),
    ...number('size'),
    ...(pos !== undefined && { position: pos }),
    ...(seals !== undefined && { seals: Number(seals) }),
  }
}

function same(actual: unknown, wanted: unknown): boolean {
  if (typeof actual === 'string' || typeof wanted === 'string') return actual === wanted
  return actual !== undefined && wanted !== undefined && BigInt(actual as bigint) === BigInt(wanted as bigint)
}

function describeFile(file: ExpectedFile): string {
  const facts = Object.entries(file).map(([key, value]) => `${key} ${value}`)
  return facts.length > 0 ? ` (${facts.join(', ')})` : ''
}

expect.extend({
  toBeValidHandover: (subject: HandoverSubject) => judge(subject, faultsOf),
  toFollowAbi: (subject: HandoverSubject, version: string) =>
    judge(subject, (handover) => abiOf(handover, version)),
  toHoldSession: (subject: HandoverSubject, name: string) =>
    judge(subject, ({ tree }) => named('hold the session', itemsAt(child(tree, 'luo'), 'sessions'), name)),
  toHoldFile: (
    subject: HandoverSubject,
    session: string,
    token: number | bigint,
    expected: ExpectedFile = {},
  ) => judge(subject, (handover) => fileIn(handover, session, token, expected)),
  toHoldFlb: (subject: HandoverSubject, name: string) =>
    judge(subject, ({ tree }) => named('hold the FLB', itemsAt(child(tree, 'luo'), 'flbs'), name)),
  toHoldReserveMem: (subject: HandoverSubject, name: string) =>
    judge(subject, ({ tree }) =>
      named('hold the reserve_mem region', itemsAt(child(tree, 'memblock'), 'reserve_mem'), name),
    ),
  toHoldSubtree: (subject: HandoverSubject, name: string) =>
    judge(subject, ({ tree }) => named('hold the subtree', itemsAt(tree, 'subtrees'), name)),
})
