/** Three boots after each other, each with its own command line: simulated kernels answer and say what real ones did. */
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { Kernel } from '../simulate/kernel.ts'
import { LiveUpdate } from '../simulate/live-update.ts'
import { ROOT } from './support/images.ts'
import { value } from './support/live.ts'
import { Guest } from './support/sequence.ts'

interface Boots {
  readonly name: string
  readonly cmdlines: readonly string[]
  readonly script: readonly string[]
  readonly answers: readonly string[]
  readonly console: readonly string[]
}

/** The machine of the lab. */
const RAM = [{ start: 1n << 30n, end: 3n << 29n }]
const SAID = /^(KHO|luo|liveupdate test|Revived|reserve_mem: |failed to prepare|test_kho|Malformed)/

function saidBy(kernel: Kernel): readonly string[] {
  const lines = kernel.console.map(({ text }) => text)
  const said = lines.filter((line) => SAID.test(line) && !line.startsWith('KHO: exec from'))
  return said.map((line) => line.replaceAll(/0x[0-9a-f]+/g, '0x…'))
}

function run(release: string, { cmdlines, script }: Boots): Pick<Boots, 'answers' | 'console'> {
  const lives: LiveUpdate[] = []
  const optionsOf = (boot: number) => ({
    release,
    cmdline: cmdlines[boot] as string,
    config: { liveupdateTest: true, debug: true, enabledByDefault: true, testKho: true },
    subsystems: (built: Kernel) => {
      lives[boot] = new LiveUpdate(built)
      return [lives[boot]]
    },
  })
  const guestOf = (boot: number): Guest => new Guest((lives[boot] as LiveUpdate).process())
  let kernel = Kernel.boot({ ...optionsOf(0), arch: 'arm64', ram: RAM })
  let guest = guestOf(0)
  const said: string[] = []
  const answers = script.map((line) => {
    if (!line.startsWith('K')) return guest.run(line)
    said.push(...saidBy(kernel))
    kernel = value(kernel.kexec(optionsOf(lives.length)))
    guest = guestOf(lives.length - 1)
    return 'kexec'
  })
  return { answers, console: [...said, ...saidBy(kernel)] }
}

describe.each(['linux-6.19', 'linux-7.3'])('%s', (release) => {
  const file = `${ROOT}fixtures/behaviour/command-lines-${release}.json`
  const { boots }: { readonly boots: readonly Boots[] } = JSON.parse(readFileSync(file, 'utf8'))
  test.each(boots)('$name', (recorded) => {
    const { answers, console } = recorded
    expect(run(release, recorded)).toEqual({ answers, console })
  })
})
