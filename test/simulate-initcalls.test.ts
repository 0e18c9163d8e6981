/** The order in which a simulated kernel boots: what each initcall finds, and what the log says first. */
import { expect, test } from 'vitest'
import type { PhysAddr } from '../abi/memory.ts'
import type { KernelConfig } from '../simulate/context.ts'
import type { Subsystem } from '../simulate/core.ts'
import type { Handover } from '../simulate/handover.ts'
import { Kernel } from '../simulate/kernel.ts'
import { fdtAt, subnode } from '../simulate/libfdt.ts'
import { LiveUpdate } from '../simulate/live-update.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { linesOf, must } from './support/captured.ts'
import { finalized, since, until } from './support/preserving.ts'

const LIVE = 'kho=on liveupdate=on'
const MEMORY = 'kho_scratch=16M,16M,16M reserve_mem=64K:4096:trace'

interface Boot {
  readonly cmdline?: string
  readonly config?: Partial<KernelConfig>
  readonly hooks?: (kernel: Kernel) => Subsystem
}

function boot(release: string, { cmdline = LIVE, config = {}, hooks = () => ({}) }: Boot): Kernel {
  return Kernel.boot({
    release,
    cmdline: `${cmdline} ${MEMORY}`,
    config,
    subsystems: (kernel) => [new LiveUpdate(kernel), hooks(kernel)],
  })
}

/** What there is of the outgoing side at each level. */
function outgoingAt(release: string): Readonly<Record<string, readonly string[]>> {
  const found: Record<string, readonly string[]> = {}
  const note = (level: string, kernel: Kernel): void => {
    const { rootFdt, metadata } = kernel.kho.outgoing
    const pages = { rootFdt, metadata, memblock: kernel.reserveMem.fdt }
    found[level] = Object.entries(pages).flatMap(([name, page]) => (page === undefined ? [] : [name]))
  }
  boot(release, {
    hooks: (kernel) => ({
      early: () => note('early', kernel),
      late: () => note('late', kernel),
      lateMm: () => note('late of mm', kernel),
    }),
  })
  return found
}

test.each(since('linux-6.19'))(
  '8.1 %s: early_initcall, then root FDT and kexec-metadata, late_initcall, then the memblock FDT',
  (release) => {
    const fs = since('kho-v2').includes(release) ? ['rootFdt', 'metadata'] : ['rootFdt']
    expect(outgoingAt(release)).toEqual({ early: [], late: fs, 'late of mm': [...fs, 'memblock'] })
  },
)

test.each(until('linux-6.18'))('8.1 %s: the root FDT has its page at late_initcall', (release) => {
  expect(outgoingAt(release)).toEqual({
    early: [],
    late: ['rootFdt'],
    'late of mm': ['rootFdt', 'memblock'],
  })
})

/** 6.16 has none. */
const withTestModule = since('linux-6.17')

test.each(withTestModule)(
  '8.1 %s: kho_init() takes its pages before the test module does, up to 6.18 after it',
  (release) => {
    // The first who asks for a page after the early initcalls goes without.
    const kernel = boot(release, {
      config: { testKho: true },
      hooks: (built) => ({ early: () => built.pages.failAt(1) }),
    })
    expect(kernel.kho.enabled).toBe(until('linux-6.18').includes(release))
  },
)

/** The lines that tell of a step of the boot, in the order in which they were said. */
const STEPS = {
  populate: 'KHO: found kexec handover data',
  reserve_mem: "Revived memory reservation 'trace' from KHO",
  early_initcall: 'luo: Retrieved live update data',
  fs_initcall: 'KHO: exec from:',
  module_init: 'test_kho: KHO restore succeeded',
}

test.each(simulatedReleases)(
  '8.1 %s: the log tells of kho_populate, reserve_mem, LUO, kexec-metadata and test modules in this order',
  (release) => {
    const first = finalized(boot(release, { config: { testKho: true } }))
    const said = linesOf(must(first.kexec()))
    const steps = Object.entries(STEPS).flatMap(([step, text]) => {
      const at = said.findIndex((line) => line.startsWith(text))
      return at < 0 ? [] : [{ step, at }]
    })
    const expected = Object.keys(STEPS).filter((step) => {
      if (step === 'early_initcall') return since('linux-6.19').includes(release)
      if (step === 'fs_initcall') return since('kho-v2').includes(release)
      return step !== 'module_init' || withTestModule.includes(release)
    })
    expect(steps.sort((a, b) => a.at - b.at).map(({ step }) => step)).toEqual(expected)
  },
)

/** A handover whose root FDT says that the map is where no memory is. */
function withWildMap(release: string): Handover {
  const kernel = finalized(boot(release, {}))
  const { rootFdt, map } = kernel.kho.outgoing
  const handover = must(kernel.leave()) as Handover
  const page = handover.ram.page(rootFdt as PhysAddr)
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength)
  const at = Array.from({ length: page.length / 4 }, (_, word) => 4 * word).filter(
    (offset) => offset + 8 <= page.length && view.getBigUint64(offset, true) === map?.root,
  )
  expect(at).toHaveLength(1)
  view.setBigUint64(at[0] ?? 0, 1n << 40n, true)
  return handover
}

test.each(simulatedReleases)(
  '8.1 %s: the map is walked after reserve_mem, from 7.3 on before it, too: a wild pointer tells',
  (release) => {
    const kernel = Kernel.takeOver(withWildMap(release), { release, cmdline: `${LIVE} ${MEMORY}` })
    expect(kernel.state).toBe('crashed')
    const said = linesOf(kernel)
    expect(said.some((line) => line.startsWith(STEPS.populate))).toBe(true)
    expect(said.includes(STEPS.reserve_mem)).toBe(release !== 'linux-7.3')
  },
)

test.each(since('linux-6.19'))(
  '8.1 %s: the LUO outgoing side and the device exist only with liveupdate on',
  (release) => {
    const outgoing = (cmdline: string): readonly boolean[] => {
      let live: LiveUpdate | undefined
      const kernel = Kernel.boot({
        release,
        cmdline: `${cmdline} ${MEMORY}`,
        subsystems: (built) => {
          live = new LiveUpdate(built)
          return [live]
        },
      })
      const root = fdtAt(kernel.ram, kernel.kho.outgoing.rootFdt as PhysAddr)
      if (!root) throw new Error('no root FDT')
      expect(subnode(root, 'memblock')).toBeDefined()
      return [subnode(root, 'LUO') !== undefined, live?.device !== undefined]
    }
    expect(outgoing('kho=on')).toEqual([false, false])
    expect(outgoing('kho=on liveupdate=off')).toEqual([false, false])
    expect(outgoing(LIVE)).toEqual([true, true])
    expect(outgoing('liveupdate=on kho=on')).toEqual([true, true])
  },
)
