/** What simulated live update leaves at the kexec: an image like a real kernel's, record by record. */
import { describe, expect, test } from 'vitest'
import { memfdSeals } from '../abi/memfd.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { memfdCreateFlags } from '../abi/shmem.ts'
import { decodeHandover, type Handover } from '../inspect/decode.ts'
import { handoverToJson, jsonText } from '../inspect/render-json.ts'
import { handoverImage } from '../simulate/handover.ts'
import { fillOf } from './support/guest.ts'
import { expectedOf } from './support/images.ts'
import { bootLive, kexecLive, type LiveMachine, LUO_RELEASES, value } from './support/live.ts'

const PAGE = 4096
/** Captured handovers; of 7.2 there is none. */
const IMAGES = {
  'linux-6.19': 'linux-6.19-x86_64-basic',
  'kho-v2': 'kho-v2-x86_64-basic',
  'linux-7.1': 'linux-7.1-x86_64-basic',
  'linux-7.3': 'linux-7.3-x86_64-basic',
} as const

/** The captured guest's program: what it wrote, preserved and sealed. */
function runGuest({ user, device }: LiveMachine): void {
  const lu = device()
  const file = (size: number, writes: readonly (readonly [at: number, seed: bigint, length: number])[]) => {
    const fd = value(user.memfdCreate('m', memfdCreateFlags.ALLOW_SEALING))
    value(user.ftruncate(fd, size))
    for (const [at, seed, length] of writes) value(user.pwrite(fd, fillOf(seed, length), at))
    return fd
  }
  const alpha = value(user.createSession(lu, 'vm-alpha'))
  const small = file(10000, [[0, 11n, 10000]])
  value(user.preserveFd(alpha, small, 1n))
  value(user.lseek(small, 1234))
  value(user.preserveFd(alpha, file(0, []), 2n))
  const every = (size: number, step: number, seed: bigint) =>
    file(
      size,
      Array.from({ length: size / step }, (_, at) => [at * step, seed + BigInt(at * step), 512] as const),
    )
  value(user.preserveFd(alpha, every(3 << 20, PAGE, 33n), 0xdead_beef_cafe_f00dn))
  const database = value(user.createSession(lu, 'database'))
  const sealed = file(5 * PAGE, [[0, 44n, 5 * PAGE]])
  value(user.addSeals(sealed, memfdSeals.SHRINK | memfdSeals.GROW))
  value(user.preserveFd(database, sealed, 7n))
  value(user.preserveFd(database, every(1 << 20, 16 * PAGE, 55n), 8n))
  value(user.createSession(lu, 'no-files-here'))
}

function decodeLeft(machine: LiveMachine): Handover {
  const handover = value(machine.kernel.leave())
  if (!handover?.boot) throw new Error('nothing is handed over')
  return decodeHandover(handoverImage(handover), phys(handover.boot.fdt_addr) as PhysAddr)
}

/** Keys whose values depend on what memory happened to be free. */
const ADDRESSES = new Set(['data', 'first', 'pfn'])
/** The guest mapped this file in one 2 MiB folio and small ones. */
const MAPPED_HUGE = '0xdeadbeefcafef00d'

/** The LUO part of a dump without what no two kernels have in common. */
function comparable(luo: unknown): unknown {
  return JSON.parse(JSON.stringify(luo), (key, item) => {
    if (ADDRESSES.has(key) && typeof item === 'string' && !item.startsWith('0xfeedf00d')) return 'address'
    if (item?.token !== MAPPED_HUGE) return item
    const { nr_folios: _count, folios: _array, first_folio: _first, last_folio: _last, ...memfd } = item.memfd
    return { ...item, memfd }
  })
}

describe.each(LUO_RELEASES)('%s', (release) => {
  test('the image that is left decodes without a fault', () => {
    const machine = bootLive(release, { config: { liveupdateTest: true }, huge: 'within_size' })
    runGuest(machine)
    expect(decodeLeft(machine).faults).toEqual([])
  })
})

test.each(Object.entries(IMAGES))(
  '%s leaves what the real kernel left of the same guest',
  (release, image) => {
    const machine = bootLive(release, { config: { liveupdateTest: true } })
    runGuest(machine)
    const left = JSON.parse([...jsonText(handoverToJson(decodeLeft(machine), { folios: false }))].join(''))
    const { luo } = expectedOf(image) as unknown as { readonly luo: unknown }
    expect(comparable(left.luo)).toMatchObject(comparable(luo) as object)
  },
)

test('a file of many pages: preserved, handed over and restored, without an object for each', () => {
  const pages = 200_000
  const ram = [{ start: phys(0), end: 2n << 30n }]
  const old = bootLive('linux-7.3', { ram })
  const fd = value(old.user.memfdCreate('big'))
  value(old.user.ftruncate(fd, BigInt(pages) * BigInt(PAGE)))
  const [at, bytes] = [BigInt(pages - 1) * BigInt(PAGE), fillOf(1n, 100)]
  value(old.user.pwrite(fd, bytes, at))
  value(old.user.preserveFd(value(old.user.createSession(old.device(), 's')), fd, 1n))
  const next = kexecLive(old)
  const session = value(next.user.retrieveSession(next.device(), 's'))
  const retrieved = value(next.user.retrieveFd(session, 1n))
  expect(value(next.user.fstat(retrieved)).blocks).toBe(BigInt(pages * 8))
  expect(value(next.user.pread(retrieved, 100, at))).toEqual(bytes)
})
