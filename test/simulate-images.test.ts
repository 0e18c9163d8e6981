/**
 * Images of simulated kernels with all that they can hold are images like any other: the decoder and the
 * validator, which share no code with the simulator but the declarations, find nothing wrong with them.
 */
import { expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { releaseByName } from '../abi/registry.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { kernelOfRelease } from '../inspect/target-kernel.ts'
import { validate } from '../inspect/validate.ts'
import { type Handover, handoverImage } from '../simulate/handover.ts'
import { simulatedReleases } from '../simulate/release.ts'
import { LAB_CMDLINE, linesOf, must } from './support/captured.ts'
import { bootLive, kexecLive, type LiveMachine } from './support/live.ts'

const config = { testKho: true, liveupdateTest: true }

/** Sessions with files of several sizes, where there is LUO. */
function fill({ kernel, user, device, live }: LiveMachine): void {
  if (live.luo?.enabled) {
    for (const [index, name] of ['vm-alpha', 'database', 'no-files-here'].entries()) {
      const session = must(user.createSession(device(), name))
      for (let token = 0; token < index * 70; token++) {
        const file = must(user.memfdCreate(`m${token}`))
        if (token > 0) must(user.write(file, new Uint8Array(token * 97).fill(token)))
        must(user.preserveFd(session, file, BigInt(token)))
        if (token === 60) break
      }
    }
  }
  if (kernel.spec.traits.togglesFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
}

function verdictOf(handover: Handover, release: string) {
  const { boot } = handover
  const registered = releaseByName(release)
  if (!boot || !registered) throw new Error(`${release} left no handover`)
  const decode = { boot }
  const decoded = decodeHandover(handoverImage(handover), phys(boot.fdt_addr), decode)
  expect(decoded.faults).toEqual([])
  return validate(decoded, { kernel: kernelOfRelease(registered), decode, commandLine: LAB_CMDLINE })
}

test.each(simulatedReleases)('%s: decoder and validator find nothing in its image', (release) => {
  const machine = bootLive(release, { cmdline: LAB_CMDLINE, config })
  fill(machine)
  const verdict = verdictOf(must(machine.kernel.leave()) as Handover, release)
  expect(verdict.findings.filter(({ severity }) => severity !== 'note')).toEqual([])
  expect(verdict.outcome).toBe('takes-over')
})

test.each([
  ['linux-6.16', 'linux-6.17'],
  ['linux-6.17.9', 'linux-6.18'],
  ['linux-7.2', 'linux-7.3'],
])('%s and %s speak the same: a chain of five kexecs among them stays without findings', (one, other) => {
  let machine = bootLive(one, { cmdline: LAB_CMDLINE, config })
  for (let step = 0; step < 5; step++) {
    fill(machine)
    const release = step % 2 === 0 ? other : one
    const { kernel } = machine
    const next = kexecLive({ kernel }, { release, cmdline: LAB_CMDLINE, config })
    expect(next.kernel.state).toBe('running')
    expect(linesOf(next.kernel)).toContain("Revived memory reservation 'trace' from KHO")
    machine = next
  }
  fill(machine)
  const { kernel } = machine
  const verdict = verdictOf(must(kernel.leave()) as Handover, kernel.release)
  expect(verdict.findings.filter(({ severity }) => severity !== 'note')).toEqual([])
})
