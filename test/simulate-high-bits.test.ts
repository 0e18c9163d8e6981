/**
 * Pointers of a handover with bits set that no physical address has. phys_to_virt() of arm64 lays the bits of
 * the linear map over them, so that a kernel with 52 bits of virtual addresses does not see the upper twelve;
 * x86_64 adds up, and follows a wild pointer. Linux 7.3.4 on arm64 took over as if nothing had happened.
 */
import { describe, expect, test } from 'vitest'
import type { Architecture } from '../abi/machine.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { FDT_HEADER_SIZE } from '../inspect/fdt.ts'
import { child, itemsAt, type ListNode, numberAt } from '../inspect/tree.ts'
import { type Handover, handoverImage } from '../simulate/handover.ts'
import { Kernel, type KernelOptions } from '../simulate/kernel.ts'
import { fdtAt, getWord, subnode } from '../simulate/libfdt.ts'
import { LiveUpdate } from '../simulate/live-update.ts'
import { linesOf } from './support/captured.ts'
import { LUO_RELEASES, value } from './support/live.ts'

const CMDLINE = 'kho=on liveupdate=on kho_scratch=16M,16M,16M reserve_mem=1M:4096:trace'
const TEXT = new TextEncoder().encode('what the old kernel wrote')

interface Machine {
  readonly kernel: Kernel
  readonly live: LiveUpdate
}

function started(boot: (options: Partial<KernelOptions<Kernel>>) => Kernel): Machine {
  let live: LiveUpdate | undefined
  const kernel = boot({
    cmdline: CMDLINE,
    config: { liveupdateTest: true },
    subsystems: (own) => {
      live = new LiveUpdate(own)
      return [live]
    },
  })
  if (!live) throw new Error('the kernel has its subsystems')
  return { kernel, live }
}

function left(release: string, arch: Architecture): Handover {
  const { kernel, live } = started((options) => Kernel.boot({ ...options, release, arch }))
  const user = live.process()
  const device = value(user.open('/dev/liveupdate'))
  const session = value(user.createSession(device, 'alpha'))
  const file = value(user.memfdCreate('m'))
  value(user.write(file, TEXT))
  value(user.preserveFd(session, file, 1n))
  const handover = value(kernel.leave())
  if (!handover?.boot) throw new Error('nothing is handed over')
  return handover
}

/** What the next kernel says at boot and while the file comes back, and what is in it. */
function takenOver(handover: Handover, release: string): { state: string; lines: readonly string[] } {
  const { kernel, live } = started((options) => Kernel.takeOver(handover, { ...options, release }))
  const found: string[] = []
  if (kernel.state === 'running') {
    const user = live.process()
    try {
      const session = value(user.retrieveSession(value(user.open('/dev/liveupdate')), 'alpha'))
      const file = value(user.retrieveFd(session, 1n))
      found.push(new TextDecoder().decode(value(user.pread(file, TEXT.length, 0n))))
      value(user.finish(session))
    } catch (error) {
      found.push(String(error))
    }
  }
  return { state: kernel.state, lines: [...linesOf(kernel), ...found] }
}

/** Sets a bit in every word of what is left that holds the address. */
function raise({ ram, boot }: Handover, pa: bigint, bit: number): void {
  // The header of the root FDT has no addresses, but numbers that look like them.
  const header = boot?.fdt_addr ?? 0n
  let changed = 0
  const [wanted, raised] = [pa, pa | (1n << BigInt(bit))].map((word) =>
    Buffer.from(new BigUint64Array([word]).buffer),
  ) as [Buffer, Buffer]
  for (const { start, end } of ram.extents()) {
    const bytes = Buffer.from(ram.read(start, Number(end - start)))
    for (let at = bytes.indexOf(wanted); at >= 0; at = bytes.indexOf(wanted, at + 4)) {
      const found = phys(start + BigInt(at))
      if (found >= header && found < header + BigInt(FDT_HEADER_SIZE)) continue
      ram.write(found, raised)
      changed++
    }
  }
  expect(changed).toBeGreaterThan(0)
}

const treeOf = (handover: Handover) =>
  decodeHandover(handoverImage(handover), phys(handover.boot?.fdt_addr ?? 0n)).tree
const luoOf = (handover: Handover) => child(treeOf(handover), 'luo')
const sessionOf = (handover: Handover) => itemsAt(luoOf(handover), 'sessions')[0]
const fileOf = (handover: Handover) => itemsAt(sessionOf(handover), 'files')[0]

function storageOf(list: ListNode): bigint {
  const { storage } = list
  return (storage?.kind === 'blocks' ? storage.blocks[0]?.pa : storage?.pa) ?? 0n
}

function mapOf({ ram, boot }: Handover): PhysAddr {
  const root = fdtAt(ram, phys(boot?.fdt_addr ?? 0n))
  return phys((root && getWord(root, 'preserved-memory-map')) ?? 0n)
}

function subtreeOf({ ram, boot }: Handover, name: string): bigint {
  const root = fdtAt(ram, phys(boot?.fdt_addr ?? 0n))
  const node = root && subnode(root, name)
  return (node && (getWord(node, 'fdt') ?? getWord(node, 'preserved-data'))) ?? 0n
}

/** Pointers that the kernel follows with phys_to_virt(), each with one bit of the upper twelve. */
const POINTERS: readonly (readonly [name: string, bit: number, of: (handover: Handover) => bigint])[] = [
  ['map root', 61, mapOf],
  [
    'what the map leads to first',
    55,
    (handover) => {
      const words = new BigUint64Array(handover.ram.read(mapOf(handover), 4096).buffer)
      return words.find((word) => word > 0xffff_ffn && word < 1n << 32n) ?? 0n
    },
  ],
  ['LUO', 52, (handover) => subtreeOf(handover, 'LUO')],
  ['memblock', 63, (handover) => subtreeOf(handover, 'memblock')],
  ['sessions', 61, (handover) => storageOf(child(luoOf(handover), 'sessions') as ListNode)],
  ['files', 60, (handover) => storageOf(child(sessionOf(handover), 'files') as ListNode)],
  ['data of the file', 59, (handover) => BigInt(numberAt(fileOf(handover), 'data') ?? 0n)],
  [
    'its list of folios',
    58,
    (handover) => BigInt(numberAt(child(child(fileOf(handover), 'memfd'), 'folios'), 'first') ?? 0n),
  ],
]
const FLBS = ['flbs_pa', 63, (handover: Handover) => (child(luoOf(handover), 'flbs') as ListNode).pa] as const

describe.each(LUO_RELEASES)('%s', (release) => {
  const pointers = ['linux-6.19', 'linux-7.0'].includes(release) ? POINTERS : [...POINTERS, FLBS]

  test.each(pointers)('arm64, %s with bit %i: nothing happens', (_, bit, of) => {
    const handover = left(release, 'arm64')
    const { lines, state } = takenOver(handover, release)
    expect(state).toBe('running')
    expect(lines.at(-1)).toBe('what the old kernel wrote')
    raise(handover, of(handover), bit)
    expect(takenOver(handover, release)).toEqual({ lines, state })
  })

  test.each(pointers)('x86_64, %s with bit %i: the kernel dies', (_, bit, of) => {
    const handover = left(release, 'x86_64')
    raise(handover, of(handover), bit)
    expect(takenOver(handover, release).state).toBe('crashed')
  })
})
