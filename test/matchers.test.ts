/** The matchers for vitest: what they accept, what they refuse, and what they say. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import '../testing/vitest.ts'
import { type PhysAddr, type PhysicalMemory, phys } from '../abi/memory.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { type Fixture, fixture } from '../testing/fixtures.ts'
import { realPath } from './support/images.ts'

const directory = mkdtempSync(join(tmpdir(), 'kho-matchers-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const flbs = await fixture('shared-flbs', { release: 'linux-7.3' })
const sealed = await fixture('sealed-memfd', { release: 'linux-7.3' })
const regions = await fixture('reserve-mem', { release: 'linux-7.3' })
const file = join(directory, 'flbs.elf')
writeFileSync(file, flbs.bytes('elf'))

/** The same memory with one byte changed. */
function damaged({ memory }: Fixture, at: PhysAddr, byte: number): PhysicalMemory {
  return {
    ranges: memory.ranges,
    presence: (pa) => memory.presence(pa),
    filePosition: () => undefined,
    read(pa, out) {
      const length = memory.read(pa, out)
      const offset = Number(at - pa)
      if (0 <= offset && offset < length) out[offset] = byte
      return length
    },
  }
}

function messageOf(expectation: () => unknown): string {
  try {
    expectation()
  } catch (error) {
    return (error as Error).message
  }
  return 'no error'
}

describe('a handover may be', () => {
  test('a fixture', () => {
    expect(flbs).toBeValidHandover()
    expect(flbs).toHoldSession('vm-alpha')
  })

  test('memory, in which it is found', () => {
    expect(flbs.memory).toBeValidHandover()
    expect(flbs.memory).toHoldSession('vm-beta')
  })

  test('decoded', () => {
    expect(decodeHandover(flbs.memory, phys(flbs.boot.fdt_addr))).toHoldSession('vm-beta')
  })

  test('the name of an image file', async () => {
    await expect(file).toBeValidHandover()
    await expect(file).toHoldSession('vm-alpha')
    await expect(realPath('linux-7.3-x86_64-basic')).toBeValidHandover()
    await expect(realPath('linux-7.3-x86_64-basic')).toHoldFile('vm-alpha', 0xdeadbeefcafef00dn, {
      size: 3 << 20,
    })
  })

  test('the bytes of an image file', async () => {
    await expect(flbs.bytes('elf')).toHoldSession('vm-alpha')
    await expect(flbs.bytes('lime')).toHoldSession('vm-alpha')
    await expect(Buffer.from(flbs.bytes('kdump'))).toHoldSession('vm-alpha')
  })
})

describe('questions', () => {
  test('the version, by its contract or its id', () => {
    expect(flbs).toFollowAbi('kho-v4')
    expect(flbs).not.toFollowAbi('kho-v3')
  })

  test('files by session, token and properties', () => {
    expect(sealed).toHoldFile('sealed', 5)
    expect(sealed).toHoldFile('sealed', 5n, { compatible: 'memfd-v2', size: 4096, position: 0, seals: 0x3f })
    expect(sealed).not.toHoldFile('sealed', 5, { seals: 1 })
    expect(sealed).not.toHoldFile('sealed', 6)
    expect(sealed).not.toHoldFile('other', 5)
  })

  test('FLBs, regions and subtrees by name', () => {
    expect(flbs).toHoldFlb('liveupdate-test-flb-v2')
    expect(flbs).not.toHoldFlb('liveupdate-test-flb-v3')
    expect(regions).toHoldReserveMem('fifteen-bytes-0')
    expect(regions).not.toHoldReserveMem('fifteen-bytes-2')
    expect(regions).toHoldSubtree('memblock')
    expect(flbs).not.toHoldSubtree('memblock')
  })
})

describe('messages', () => {
  test('list the faults with their places', () => {
    const luo = flbs.document.subtrees.findIndex(({ luo }) => luo)
    expect(luo).toBeGreaterThanOrEqual(0)
    const handover = decodeHandover(flbs.memory, phys(flbs.boot.fdt_addr))
    const pa = handover.tree.children.find(({ segment }) => segment === 'luo')?.pa as PhysAddr
    const broken = damaged(flbs, pa, 'x'.charCodeAt(0))
    const message = messageOf(() => expect(broken).toBeValidHandover())
    expect(message).toBe(
      [
        'expected the handover to be valid; found',
        `  error COMPATIBLE_UNKNOWN luo: luo: the blob at 0x${pa.toString(16)} says compatible 'xuo-v5'; expected luo-v1/session-v1, luo-v1, luo-v1/flb, luo-v2, luo-v3, luo-v4, luo-v5, found compatible 'xuo-v5' (at 0x${pa.toString(16)})`,
      ].join('\n'),
    )
  })

  test('say what is there instead', () => {
    expect(messageOf(() => expect(flbs).toHoldSession('vm-gamma'))).toBe(
      'expected the handover to hold the session "vm-gamma"; found\n  "vm-alpha"\n  "vm-beta"',
    )
    expect(messageOf(() => expect(flbs).not.toHoldSession('vm-beta'))).toBe(
      'expected the handover not to hold the session "vm-beta"; found\n  "vm-alpha"\n  "vm-beta"',
    )
    expect(messageOf(() => expect(sealed).toHoldFile('sealed', 2, { seals: 7 }))).toBe(
      'expected the handover to hold a file 0x2 (seals 7) in the session "sealed"; found\n  a file (compatible memfd-v2, size 4096, position 0, seals 6)',
    )
    expect(messageOf(() => expect(regions).toHoldFlb('a'))).toBe(
      'expected the handover to hold the FLB "a"; found\n  nothing',
    )
    expect(messageOf(() => expect(flbs).toFollowAbi('kho-v3'))).toBe(
      'expected the handover to follow kho-v3; found\n  kho-v4',
    )
  })

  test('say why there is no handover', async () => {
    const empty: PhysicalMemory = {
      ...flbs.memory,
      ranges: [],
      read: () => 0,
      presence: () => ({ state: 'hole', until: 1n << 64n }),
    }
    expect(messageOf(() => expect(empty).toBeValidHandover())).toMatch(
      /^expected a handover: memory: no handover in this raw image/,
    )
    await expect(expect(join(directory, 'none.elf')).toBeValidHandover()).rejects.toThrow(
      /none\.elf: cannot be opened: ENOENT/,
    )
    await expect(expect(Uint8Array.of(1, 2, 3)).toBeValidHandover()).rejects.toThrow(
      /^expected a handover: image/,
    )
  })
})
