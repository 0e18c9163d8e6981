/** Failures put into simulated kernels: no memory for the n-th page of a boot, words that change between two. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ARCHITECTURES } from '../abi/machine.ts'
import { type PhysAddr, phys } from '../abi/memory.ts'
import { Failure, failed } from '../simulate/answer.ts'
import type { Subsystem } from '../simulate/core.ts'
import { Kernel } from '../simulate/kernel.ts'
import { LiveUpdate } from '../simulate/live-update.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { held, linesOf, must, pageWith } from './support/captured.ts'

const CMDLINE = 'kho=on kho_scratch=16M,16M,16M reserve_mem=64K:4096:trace'

function accounted(kernel: Kernel): void {
  const { total, free, allocated, preserved, scratch, reserved } = kernel.pages.census()
  expect(free + allocated + preserved + scratch + reserved).toBe(total)
  expect(Math.min(free, allocated, preserved, scratch, reserved)).toBeGreaterThanOrEqual(0)
}

test.each(simulatedReleases)(
  '%s: at the n-th page without memory in kho_init() KHO is off, and scratch memory is freed',
  (release) => {
    let failures = 0
    const lost: number[] = []
    for (let n = 1; n < 20; n++) {
      const kernel = Kernel.boot({
        release,
        cmdline: CMDLINE,
        subsystems: (built) => [{ early: () => built.pages.failAt(n) }],
      })
      accounted(kernel)
      if (kernel.kho.enabled) break
      failures++
      expect(kernel.pages.census().scratch).toBe(0)
      expect(must(kernel.kexec()).kho.isKhoBoot).toBe(false)
      const { form, traits } = kernel.spec
      if (form.map.kind === 'radix') {
        lost.push(held(kernel).length)
        expect(failed(kernel.kho.allocPreserve(4096))).toBe(true)
        const by = traits.destroysTree ? 'kho_radix_add_key' : 'kho_radix_add_page'
        expect(linesOf(kernel).at(-1)).toBe(`WARNING: kernel/liveupdate/kexec_handover.c at ${by}`)
      }
    }
    // Before 7.3 the nodes below the root are lost, once there are some.
    const losesNodes = ['kho-v2', 'linux-7.1', 'linux-7.2'].includes(release)
    expect(lost.some((count) => count > 0)).toBe(losesNodes)
    expect(failures).toBeGreaterThan(0)
  },
)

/** Failures at every page of a boot with live update, as the lines of the kernels that died of it. */
function deaths(boot: (subsystems: (kernel: Kernel) => readonly Subsystem[]) => Kernel): readonly string[] {
  const found: string[] = []
  for (let n = 1; n <= 20; n++) {
    const kernel = boot((built) => {
      built.pages.failAt(n)
      return [new LiveUpdate(built)]
    })
    if (kernel.state === 'running') accounted(kernel)
    else found.push(linesOf(kernel).slice(-3).join('\n'))
  }
  return found
}

const NULL_ROOT = {
  x86_64: [
    'BUG: kernel NULL pointer dereference, address: 0000000000000004',
    'Oops: Oops: 0000 [#1] SMP',
    'Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009',
  ],
  arm64: [
    'Unable to handle kernel NULL pointer dereference at virtual address 0000000000000004',
    'Internal error: Oops: 000000009600002b [#1]  SMP',
    'Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b',
  ],
}

test.each(simulatedReleases.flatMap((release) => ARCHITECTURES.map((arch) => [release, arch] as const)))(
  '%s on %s: at the n-th page without memory a boot with live update goes on without, or dies of the missing root',
  (release, arch) => {
    const options = { release, cmdline: `${CMDLINE} liveupdate=on` }
    const cold = deaths((subsystems) => Kernel.boot({ ...options, arch, subsystems }))
    const before = Kernel.boot({ ...options, arch, subsystems: (built) => [new LiveUpdate(built)] })
    if (before.spec.traits.hasFinalize) before.kho.outgoing.writeFinalize('1')
    const handover = must(before.leave() ?? new Failure('EIO'))
    const warm = deaths((subsystems) => Kernel.takeOver(handover, { ...options, subsystems }))
    // Their LUO adds its part although kho_init() has failed.
    const isUnguarded = release === 'linux-6.19' || release === 'linux-7.0'
    expect(new Set([...cold, ...warm])).toEqual(new Set(isUnguarded ? [NULL_ROOT[arch].join('\n')] : []))
    if (isUnguarded) expect([cold.length, warm.length].every((count) => count > 0)).toBe(true)
  },
)

/** A handover with pages, a region and the test module's data. */
function old(release: string): Kernel {
  const kernel = Kernel.boot({ release, cmdline: CMDLINE, config: { testKho: true } })
  for (let number = 0; number < 20; number++)
    must(kernel.kho.preserveFolio(pageWith(kernel, `page ${number}`)))
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  return kernel
}

test.each(simulatedReleases)(
  '%s: whatever word of the handover changes, the next kernel boots, refuses or dies, and accounts for its pages',
  (release) => {
    const kernel = old(release)
    const own = [...(kernel.kho.outgoing.map?.ownPages() ?? []), kernel.kho.outgoing.rootFdt]
    const places = own.filter((pa): pa is PhysAddr => pa !== undefined)
    const handover = kernel.leave()
    if (!handover || failed(handover)) throw new Error('no handover')
    const seen = new Set<string>()
    fc.assert(
      fc.property(
        fc.nat({ max: places.length - 1 }),
        fc.oneof(fc.nat({ max: 60 }), fc.nat({ max: 511 })),
        fc.oneof(
          fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
          fc.constantFrom(0n, 1n, (1n << 64n) - 1n, 4096n),
        ),
        (place, word, value) => {
          const bytes = new Uint8Array(8)
          new DataView(bytes.buffer).setBigUint64(0, value, true)
          const ram = handover.ram.fork()
          ram.write(phys((places[place] ?? 0n) + BigInt(word * 8)), bytes)
          const next = Kernel.takeOver({ ...handover, ram }, { release, cmdline: CMDLINE })
          if (next.state === 'running') accounted(next)
          else expect(linesOf(next).at(-1)).toMatch(/^Kernel panic|^BUG/)
          seen.add(next.state === 'crashed' ? 'dies' : next.kho.isKhoBoot ? 'boots' : 'refuses')
        },
      ),
      { seed: 421, numRuns: 40 },
    )
    expect(seen).toContain('boots')
    expect(seen.size).toBeGreaterThan(1)
  },
)

/** The pages of a map as a real kernel would follow them for hours. */
const endless: readonly (readonly [string, string, (kernel: Kernel, root: PhysAddr) => void])[] = [
  [
    'linux-7.3',
    'a tree whose root is its own child at every index',
    (kernel, root) => {
      const view = new DataView(new ArrayBuffer(4096))
      for (let at = 0; at < 4096; at += 8) view.setBigUint64(at, root, true)
      kernel.ram.write(root, new Uint8Array(view.buffer))
    },
  ],
  [
    'linux-6.19',
    'a chunk that follows itself',
    (kernel, root) => {
      const next = new Uint8Array(8)
      new DataView(next.buffer).setBigUint64(0, root, true)
      kernel.ram.write(root, next)
    },
  ],
  [
    'linux-6.19',
    'a chunk that counts all 32 bits of elements',
    (kernel, root) => kernel.ram.write(phys(root + 12n), new Uint8Array([255, 255, 255, 255])),
  ],
]

test.each(endless)('%s: %s ends the next kernel, not the simulation', (release, _, damage) => {
  const kernel = old(release)
  const { root } = kernel.kho.outgoing.map ?? {}
  if (root === undefined) throw new Error('no map')
  damage(kernel, root)
  expect(must(kernel.kexec()).state).toBe('crashed')
})

test.each([
  ['is a byte less', 0xfe, true],
  ['is INT_MAX: libfdt finds no name in it', 0xff, false],
] as const)('an FDT that claims 2 GiB costs what it holds; its size %s', (_, low, revived) => {
  const kernel = old('linux-7.3')
  const { fdt } = kernel.reserveMem
  if (fdt === undefined) throw new Error('no FDT')
  kernel.ram.write(phys(fdt + 4n), new Uint8Array([0x7f, 0xff, 0xff, low]))
  const next = must(kernel.kexec())
  expect(next.reserveMem.regions.map((region) => region.revived)).toEqual([revived])
})
