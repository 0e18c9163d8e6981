/** FDTs that a subsystem reads without fdt_check_header(), and the lines that the validator foretells of them. */
import { describe, expect, test } from 'vitest'
import { FdtTag, fdtHeader } from '../abi/fdt.ts'
import { fieldOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { child } from '../inspect/tree.ts'
import type { Patch } from '../mutate/patch.ts'
import { type Change, judgeChanged, newest, oldest } from './support/judged.ts'

type Blob = 'luo' | 'memblock'
type Field = keyof typeof fdtHeader.fields

const atField = (name: Field): bigint => BigInt(fieldOf(fdtHeader, name, { pageSize: 4096 }).offset)

function bigEndian(pa: bigint, word: number): Patch {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, word)
  return { pa: phys(pa), bytes }
}

/** Words of a blob's header. */
function header(blob: Blob, words: Partial<Record<Field, number>>): Change {
  return ({ handover }) => {
    const pa = child(handover.tree, blob)?.pa as PhysAddr
    return Object.entries(words).map(([name, word]) => bigEndian(pa + atField(name as Field), word))
  }
}

/** The tag of the first region's node is none. */
const brokenChild: Change = ({ handover }) => {
  const pa = child(handover.tree, 'memblock')?.pa as PhysAddr
  const bytes = new Uint8Array(4096)
  newest.memory.read(pa, bytes)
  const view = new DataView(bytes.buffer)
  let at = view.getUint32(Number(atField('off_dt_struct'))) + 8
  while (view.getUint32(at) !== FdtTag.BEGIN_NODE) at += 4
  return [bigEndian(pa + BigInt(at), 0xff)]
}

const otherFdt = (code: number): string => `FDT 'memblock' is incompatible with 'memblock-v1': ${code}`

describe('reserve_mem', () => {
  test.each<readonly [string, string, Change]>([
    ['version 0', otherFdt(-11), header('memblock', { version: 0 })],
    ['version 15', otherFdt(1), header('memblock', { version: 15 })],
    ['magic and size zero', otherFdt(-4), header('memblock', { magic: 0, totalsize: 0 })],
    ['size_dt_struct 8', otherFdt(-8), header('memblock', { size_dt_struct: 8 })],
  ])('%s: %s', (_, line, change) => {
    for (const base of [newest, oldest]) {
      const { console, outcome } = judgeChanged(base, change)
      expect(console).toContain(line)
      expect(outcome).toBe('loses')
    }
  })

  test('a child that is none', () => {
    expect(judgeChanged(newest, brokenChild).console).toContain("FDT 'memblock' has no child 'trace': -11")
  })
})

const otherLuo = (code: number): string => `luo: FDT 'LUO' is incompatible with 'luo-v1' [${code}]`

describe('LUO', () => {
  test.each<readonly [string, string, Change]>([
    ['version 0', otherLuo(-1), header('luo', { version: 0 })],
    ['version 15', 'luo: Unable to get session node: [luo-session]', header('luo', { version: 15 })],
    ['size_dt_struct 8', otherLuo(-8), header('luo', { size_dt_struct: 8 })],
    ['magic and size zero', otherLuo(-4), header('luo', { magic: 0, totalsize: 0 })],
  ])('%s: %s', (_, line, change) => {
    const { console, outcome } = judgeChanged(oldest, change)
    expect(console).toContain(line)
    expect(outcome).toBe('panics')
  })
})
