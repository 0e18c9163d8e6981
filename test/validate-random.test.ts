/**
 * Random damage to the metadata of captured images: the validator neither throws nor takes long, and its
 * text, JSON and SARIF stay harmless; and what it says is taken over fully, a simulated kernel gives back,
 * sessions and files with size, position and contents. A part of it is in `npm test`; `npm run fuzz` makes all of it and more.
 * DAMAGE_SEED repeats a run from the seed that a failure prints.
 */
import { describe, expect, test } from 'vitest'
import { phys } from '../abi/memory.ts'
import { decodeHandover } from '../inspect/decode.ts'
import { noPaint } from '../inspect/paint.ts'
import { jsonText } from '../inspect/render-json.ts'
import { renderVerdict } from '../inspect/render-verdict.ts'
import { rules } from '../inspect/rules.ts'
import { sarifLog } from '../inspect/sarif.ts'
import { validate } from '../inspect/validate.ts'
import { verdictToJson } from '../inspect/verdict-json.ts'
import { PatchedView } from '../mutate/patch.ts'
import { Random } from '../mutate/random.ts'
import { realBase } from './support/fault-bases.ts'
import { realImages } from './support/images.ts'
import { damageTargets, randomDamage } from './support/random-damage.ts'
import { notRestored } from './support/simulated-restore.ts'
import { harmfulCharacters } from './support/terminal-text.ts'

/** Damaged images of each captured one. */
const RUNS = Number(process.env.DAMAGE_RUNS ?? 30)
const FIRST_SEED = Number(process.env.DAMAGE_SEED ?? 1)
/** Of processor time. */
const MAX_SECONDS = 2

describe.each(realImages)('%s', (name) => {
  test(`${RUNS} damaged images from seed ${FIRST_SEED} on`, async () => {
    const base = await realBase(name)
    const targets = damageTargets(base.handover)
    let taken = 0
    for (let seed = FIRST_SEED; seed < FIRST_SEED + RUNS; seed++) {
      const memory = new PatchedView(base.memory, randomDamage(targets, new Random(seed)))
      const before = process.cpuUsage()
      const handover = decodeHandover(memory, phys(base.fdt), base.decode)
      const verdict = validate(handover, base.options)
      const { user } = process.cpuUsage(before)
      expect(user / 1e6, `seed ${seed}`).toBeLessThan(MAX_SECONDS)
      if (verdict.outcome === 'takes-over') {
        taken += 1
        expect(notRestored(name, memory, handover, base), `seed ${seed}`).toEqual([])
      }
      const shown = { findings: verdict.findings, ignored: 0 }
      const text = renderVerdict(verdict, shown, { paint: noPaint, columns: 80 })
      const json = [...jsonText(verdictToJson(verdict, shown))].join('')
      const sarif = [...jsonText(sarifLog(verdict, verdict.findings, { version: '0', file: name, rules }))]
      expect(harmfulCharacters(text + json + sarif.join('')), `seed ${seed}`).toEqual([])
    }
    expect(taken).toBeGreaterThan(0)
  })
})
