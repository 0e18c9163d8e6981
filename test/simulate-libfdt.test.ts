/**
 * Blobs that a subsystem reads without fdt_check_header(): what the version in the header does to names and
 * values, and libfdt's code in the line. The lines are those of Linux 6.19.11 and 7.3.4 on such images.
 */
import { describe, expect, test } from 'vitest'
import { FDT_SW_MAGIC, FdtTag, fdtHeader } from '../abi/fdt.ts'
import { fieldOf } from '../abi/layout.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { Handover } from '../simulate/handover.ts'
import { Kernel } from '../simulate/kernel.ts'
import { fdtAt, getWord, subnode } from '../simulate/libfdt.ts'
import { linesOf } from './support/captured.ts'
import { bootLive, LUO_RELEASES, takeOverLive, value } from './support/live.ts'

const PANIC = 'Kernel panic - not syncing: The incoming tree failed to initialize properly'
const CMDLINE = 'kho=on kho_scratch=16M,16M,16M reserve_mem=1M:4096:trace'

interface Left {
  readonly handover: Handover
  readonly blob: PhysAddr
}

function subtreeOf(handover: Handover | undefined, name: string): Left {
  if (!handover?.boot) throw new Error('nothing is handed over')
  const root = fdtAt(handover.ram, phys(handover.boot.fdt_addr))
  const node = root && subnode(root, name)
  const pa = node && (getWord(node, 'fdt') ?? getWord(node, 'preserved-data'))
  return { handover, blob: phys(pa ?? 0n) }
}

/** Puts a big-endian word into the header of the blob. */
function patch({ handover, blob }: Left, field: keyof typeof fdtHeader.fields, word: number): void {
  putWord(handover, blob + BigInt(fieldOf(fdtHeader, field, { pageSize: 4096 }).offset), word)
}

function putWord(handover: Handover, pa: bigint, word: number): void {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, word)
  handover.ram.write(phys(pa), bytes)
}

function luoSays(release: string, damage: (left: Left) => void): readonly string[] {
  const old = bootLive(release)
  value(old.user.createSession(old.device(), 's'))
  const left = subtreeOf(value(old.kernel.leave()), 'LUO')
  damage(left)
  return takeOverLive(left.handover, { release }).console()
}

function memblockSays(release: string, damage: (left: Left) => void): readonly string[] {
  const old = Kernel.boot({ release, cmdline: CMDLINE })
  if (old.spec.traits.hasFinalize) value(old.kho.outgoing.writeFinalize('1'))
  const left = subtreeOf(value(old.leave()), 'memblock')
  damage(left)
  const kernel = Kernel.takeOver(left.handover, { release, cmdline: CMDLINE })
  expect(kernel.state).toBe('running')
  return linesOf(kernel).filter((line) => !line.startsWith('KHO: '))
}

const incompatible = (code: number): string => `luo: FDT 'LUO' is incompatible with 'luo-v1' [${code}]`

describe.each(LUO_RELEASES.filter((release) => release < 'linux-7.2'))('the FDT of LUO, %s', (release) => {
  test.each<readonly [name: string, line: string, damage: (left: Left) => void]>([
    ['version 0', incompatible(-1), (left) => patch(left, 'version', 0)],
    [
      'version 15: no node has a name',
      'luo: Unable to get session node: [luo-session]',
      (left) => patch(left, 'version', 15),
    ],
    ['last_comp_version 18', incompatible(-1), (left) => patch(left, 'last_comp_version', 18)],
    ['no magic number', incompatible(-1), (left) => patch(left, 'magic', 0)],
    ['size_dt_struct 8', incompatible(-8), (left) => patch(left, 'size_dt_struct', 8)],
    ['size_dt_struct 0', incompatible(-4), (left) => patch(left, 'size_dt_struct', 0)],
    [
      'a page of zeros',
      incompatible(-4),
      ({ handover, blob }) => handover.ram.write(blob, new Uint8Array(4096)),
    ],
  ])('%s: %s', (_, line, damage) => {
    expect(luoSays(release, damage).slice(-2)).toEqual([line, `${PANIC} [-22], disabling live update`])
  })

  test('version 16: sizes of the structure block do not count', () => {
    const damage = (left: Left): void => {
      patch(left, 'version', 16)
      patch(left, 'size_dt_struct', 8)
    }
    expect(luoSays(release, damage)).toContain('luo: Retrieved live update data, liveupdate number: 1')
  })
})

const otherFdt = (code: number): string => `FDT 'memblock' is incompatible with 'memblock-v1': ${code}`

describe.each(['linux-6.17', 'linux-6.19', 'linux-7.3'])('the FDT of reserve_mem, %s', (release) => {
  test.each<readonly [name: string, line: string, damage: (left: Left) => void]>([
    ['version 0: a value of 8 bytes or more is aligned', otherFdt(-11), (left) => patch(left, 'version', 0)],
    ['version 15', otherFdt(1), (left) => patch(left, 'version', 15)],
    [
      'magic and size zero',
      otherFdt(-4),
      (left) => {
        patch(left, 'magic', 0)
        patch(left, 'totalsize', 0)
      },
    ],
    ['size_dt_struct 8', otherFdt(-8), (left) => patch(left, 'size_dt_struct', 8)],
    [
      'a child that is none',
      "FDT 'memblock' has no child 'trace': -11",
      ({ handover, blob }) => putWord(handover, childAt(handover, blob), 0xff),
    ],
  ])('%s: %s', (_, line, damage) => {
    expect(memblockSays(release, damage)).toContain(line)
    expect(memblockSays(release, damage)).not.toContain("Revived memory reservation 'trace' from KHO")
  })
})

/** Address of the second node that begins. */
function childAt({ ram }: Handover, blob: PhysAddr): bigint {
  const view = new DataView(ram.read(blob, 4096).buffer)
  const [start] = [view.getUint32(fieldOf(fdtHeader, 'off_dt_struct', { pageSize: 4096 }).offset)]
  for (let at = start + 8; at < 4096; at += 4) {
    if (view.getUint32(at) === FdtTag.BEGIN_NODE) return blob + BigInt(at)
  }
  throw new Error('no child')
}

test('an unfinished blob is read, but its names lie elsewhere', () => {
  const unfinished = (left: Left): void => patch(left, 'magic', FDT_SW_MAGIC)
  expect(luoSays('linux-6.19', unfinished)).toContain(incompatible(-1))
})
