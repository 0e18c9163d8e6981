/** The verbs of a timeline that are no calls of a process: kexec and boot, debugfs, drivers, faults, and looks. */
import { hex } from '../abi/memory.ts'
import type { ScenarioStep } from '../encode/scenario-steps.ts'
import { type Answer, Failure, failed } from './answer.ts'
import { done, type StepResult } from './timeline-event.ts'
import { preservedIn } from './timeline-facts.ts'
import type { TimelineMachine } from './timeline-machine.ts'

type Verb<V extends keyof ScenarioStep> = (
  said: NonNullable<ScenarioStep[V]>,
  machine: TimelineMachine,
) => Answer | StepResult

export const controls: { readonly [V in keyof ScenarioStep]?: Verb<V> } = {
  flb: ({ name, call, data }, machine) => callFlb(machine, name, call, data),
  finalize: ({ write, read }, machine) => {
    if (write !== undefined) return machine.kernel.kho.outgoing.writeFinalize(write)
    const found = machine.kernel.kho.outgoing.readFinalize()
    if (failed(found)) return found
    const wrong = found.trim() === read ? [] : [`expected to read ${read}, found ${found.trim()}`]
    return done([{ name: 'reads', value: found.trim() }], wrong)
  },
  load: ({ unload = false, preserve_context: preservesContext = false }, { kernel }) =>
    unload ? kernel.unload() : kernel.load({ preservesContext }),
  kexec: (said, machine) => machine.kexec(said),
  boot: (said, machine) => machine.coldBoot(said),
  console: (said, machine) => lookAtConsole(said, machine),
  check: (said, machine) => check(said, machine),
  fail: (said, machine) => {
    const { allocation, handler, flb, callback, call = 1, with: errno = 'EIO' } = said
    if (allocation === undefined)
      return callback && toCome(machine.failures.add(handler ?? flb ?? '', callback, call, errno))
    const { pages } = machine.kernel
    pages.failAt(allocation)
    return toCome(() => pages.isToFail)
  },
  corrupt: (said, machine) => toCome(machine.corruptNext(said)),
}

function toCome(isToCome: () => boolean): StepResult {
  return { ...done(), isToCome }
}

function callFlb(
  machine: TimelineMachine,
  name: string,
  call: NonNullable<ScenarioStep['flb']>['call'],
  data: bigint | undefined,
): Answer | StepResult {
  const flb = machine.drivers.flb(name)
  const flbs = machine.live.luo?.flbs
  if (!flb || !flbs) return new Failure('EOPNOTSUPP')
  if (call === 'put_incoming') return flbs.putIncoming(flb)
  if (call === 'put_outgoing') return flbs.putOutgoing(flb)
  const found = call === 'get_incoming' ? flbs.getIncoming(flb) : flbs.getOutgoing(flb)
  if (failed(found)) return found
  const wrong =
    data === undefined || data === found
      ? []
      : [
          `data: expected ${data === undefined ? '' : hex(data)}, found ${typeof found === 'bigint' ? hex(found) : String(found)}`,
        ]
  return done(typeof found === 'bigint' ? [{ name: 'data', value: hex(found) }] : [], wrong)
}

/** Lines in their order; one line may hold several of the texts. */
function lookAtConsole(
  { has = [], lacks = [] }: NonNullable<ScenarioStep['console']>,
  { kernel }: TimelineMachine,
): StepResult {
  const lines = kernel.console.map(({ text }) => text)
  const wrong: string[] = []
  let at = 0
  for (const wanted of has) {
    const found = lines.findIndex((line, index) => index >= at && line.includes(wanted))
    if (found < 0) {
      const where = lines.some((line) => line.includes(wanted))
        ? 'only before the one named before'
        : 'nowhere'
      wrong.push(`expected a line with "${wanted}", found it ${where} in ${lines.length} lines`)
    } else at = found
  }
  for (const unwanted of lacks) {
    const found = lines.find((line) => line.includes(unwanted))
    if (found !== undefined) wrong.push(`expected no line with "${unwanted}", found "${found}"`)
  }
  return done([], wrong)
}

function check(said: NonNullable<ScenarioStep['check']>, machine: TimelineMachine): StepResult {
  const { kernel } = machine
  const wrong: string[] = []
  const expect = <T>(what: string, wanted: T | undefined, found: T): void => {
    if (wanted !== undefined && wanted !== found) wrong.push(`${what}: expected ${wanted}, found ${found}`)
  }
  const isAlive = kernel.state === 'running'
  expect('alive', said.alive, isAlive)
  if (said.panic !== undefined) {
    const words = kernel.console.filter(({ text }) => text.includes(said.panic as string))
    if (isAlive) wrong.push('panic: expected a dead kernel, found one that runs')
    else if (words.length === 0) wrong.push(`panic: expected "${said.panic}", found "${machine.lastWords}"`)
  }
  expect('took_over', said.took_over, kernel.kho.isKhoBoot)
  expect<string>('state', said.state, machine.orchestrator?.state ?? 'none')
  if (said.preserved !== undefined) expect('preserved', said.preserved, preservedIn(kernel).bytes)
  return done([], wrong)
}
