/** What LUO's early reader refuses, with its line and its outcome (wire format, 7.3.2 and 7.3.4). */
import { describe, expect, test } from 'vitest'
import { type PhysAddr, phys } from '../abi/memory.ts'
import type { Handover } from '../simulate/handover.ts'
import { fdtAt, getWord, subnode } from '../simulate/libfdt.ts'
import { bootLive, errno, LUO_RELEASES, type LuoRelease, takeOverLive, value } from './support/live.ts'

const FDT_FORM = ['linux-6.19', 'linux-7.0', 'kho-v2', 'linux-7.1'] as const
const WITH_FLBS = ['kho-v2', 'linux-7.1'] as const
const STRUCT_FORM = ['linux-7.2', 'linux-7.3'] as const
const PANIC = 'Kernel panic - not syncing: The incoming tree failed to initialize properly'

/** Address of LUO's blob in what a kernel with one session left. */
function leftBy(release: LuoRelease): { readonly handover: Handover; readonly blob: PhysAddr } {
  const old = bootLive(release)
  value(old.user.createSession(old.device(), 's'))
  const handover = value(old.kernel.leave())
  if (!handover?.boot) throw new Error('nothing is handed over')
  const root = fdtAt(handover.ram, phys(handover.boot.fdt_addr))
  const node = root && subnode(root, 'LUO')
  const pa = node && (getWord(node, 'fdt') ?? getWord(node, 'preserved-data'))
  return { handover, blob: phys(pa ?? 0n) }
}

/** The next kernel, after one text in LUO's page was replaced by another of the same length. */
function withText(release: LuoRelease, wanted: string, other: string) {
  const { handover, blob } = leftBy(release)
  const page = Buffer.from(handover.ram.read(blob, 4096))
  const at = page.indexOf(`${wanted}\0`, 0, 'latin1')
  expect(at).toBeGreaterThanOrEqual(0)
  handover.ram.write(phys(blob + BigInt(at)), Buffer.from(other, 'latin1'))
  return takeOverLive(handover, { release })
}

function refuses(machine: ReturnType<typeof takeOverLive>, line: string, errno: number): void {
  expect(machine.kernel.state).toBe('crashed')
  const last = machine.console().slice(-2)
  expect(last).toEqual([line, `${PANIC} [${errno}], disabling live update`])
}

describe.each(FDT_FORM)('%s', (release) => {
  test.each([
    ['luo-v1', 'luo-v9', "luo: FDT 'LUO' is incompatible with 'luo-v1' [1]"],
    [
      'liveupdate-number',
      'liveupdate-numbex',
      "luo: Unable to get live update number 'liveupdate-number' [-1]",
    ],
    ['luo-session', 'luo-sessiox', 'luo: Unable to get session node: [luo-session]'],
    ['luo-session-v2', 'luo-session-v9', 'luo: Session node incompatible [luo-session-v2]'],
    [
      'luo-session-header',
      'luo-session-headex',
      "luo: Unable to get session header 'luo-session-header' [-1]",
    ],
  ])('without %s: panic', (wanted, other, line) => {
    refuses(withText(release, wanted, other), line, -22)
  })

  test('the panic does not depend on liveupdate=', () => {
    const { handover, blob } = leftBy(release)
    const page = Buffer.from(handover.ram.read(blob, 4096))
    handover.ram.write(phys(blob + BigInt(page.indexOf('luo-v1'))), Buffer.from('luo-v2'))
    const machine = takeOverLive(handover, { release, cmdline: 'kho=on' })
    expect(machine.kernel.state).toBe('crashed')
  })
})

describe.each(WITH_FLBS)('%s', (release) => {
  test('without the FLB node: -ENOENT, panic', () => {
    const said = 'luo: Unable to get FLB node [luo-flb]'
    refuses(withText(release, 'luo-flb', 'luo-flx'), said, -2)
  })

  test.each([
    ['luo-flb-v1', 'luo-flb-v9', "luo: FLB node is incompatible with 'luo-flb-v1' [1]"],
    ['luo-flb-header', 'luo-flb-headex', "luo: Unable to get FLB header property 'luo-flb-header' [-1]"],
  ])('without %s: panic', (wanted, other, line) => {
    refuses(withText(release, wanted, other), line, -22)
  })
})

test('linux-6.19 leaves no FLB node: 7.0 and later demand one, the string is the same', () => {
  const { handover, blob } = leftBy('linux-6.19')
  expect(Buffer.from(handover.ram.read(blob, 4096)).includes('luo-flb')).toBe(false)
})

describe.each(STRUCT_FORM)('%s', (release) => {
  test('another version string: panic', () => {
    const { handover, blob } = leftBy(release)
    handover.ram.write(blob, Buffer.from('luo-v4'))
    refuses(takeOverLive(handover, { release }), "luo: LUO state is incompatible with 'luo-v5'", -22)
  })

  test('the string is compared over 8 bytes: what stands behind it does not matter, the NUL does', () => {
    const states = ['luo-v5\0x', 'luo-v5x\0'].map((text) => {
      const { handover, blob } = leftBy(release)
      handover.ram.write(blob, Buffer.from(text, 'latin1'))
      return takeOverLive(handover, { release }).kernel.state
    })
    expect(states).toEqual(['running', 'crashed'])
  })

  test('flbs_pa 0 is tolerated', () => {
    const { handover, blob } = leftBy(release)
    handover.ram.write(phys(blob + 24n), new Uint8Array(8))
    expect(takeOverLive(handover, { release }).kernel.state).toBe('running')
  })

  test('sessions_pa 0: no sessions', () => {
    const { handover, blob } = leftBy(release)
    handover.ram.write(phys(blob + 16n), new Uint8Array(8))
    const machine = takeOverLive(handover, { release })
    machine.device()
    expect(machine.live.luo?.sessions.incoming.size).toBe(0)
  })
})

test.each(LUO_RELEASES)('%s: a wild pointer to the sessions kills init', (release) => {
  const { handover, blob } = leftBy(release)
  const page = Buffer.from(handover.ram.read(blob, 4096))
  const root = fdtAt(handover.ram, blob)
  const area = root && getWord(subnode(root, 'luo-session') ?? root, 'luo-session-header')
  const at = area === undefined ? 16 : page.indexOf(Buffer.from(new BigUint64Array([area]).buffer))
  handover.ram.write(phys(blob + BigInt(at)), Buffer.from('00f0ffffff070000', 'hex'))
  const machine = takeOverLive(handover, { release })
  if (machine.kernel.state === 'running') expect(errno(machine.user.open('/dev/liveupdate'))).toBe('blocks')
  expect(machine.kernel.state).toBe('crashed')
  expect(machine.console().at(-1)).toMatch(/Attempted to kill init/)
})
