/** Random programs of system calls with a kexec or two between them: simulated kernels answer as real ones did, call by call. */
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ROOT } from './support/images.ts'
import { runSequence, type Sequence } from './support/sequence.ts'

const FOLDER = `${ROOT}fixtures/behaviour/sequences`

interface Recorded {
  readonly name: string
  readonly release: string
  readonly kernel: string
  readonly sequences: readonly Sequence[]
}

const recorded = readdirSync(FOLDER).map(
  (name): Recorded => ({ name, ...JSON.parse(readFileSync(`${FOLDER}/${name}`, 'utf8')) }),
)

/** Where a page is, is up to each machine. */
function withoutAddresses(lines: readonly string[]): readonly string[] {
  return lines.map((line) => line.replace(/(physical address: )[0-9a-f]+/, '$1…'))
}

function numbered(script: readonly string[], answers: readonly string[]): readonly string[] {
  return script.map((line, index) => `${index + 1} ${line} -> ${answers[index]}`)
}

describe.each(recorded)('$name: $release answers as $kernel did', ({ release, sequences }) => {
  test.each(sequences)('seed $seed', ({ script, answers, console }) => {
    const simulated = runSequence(release, script)
    expect(numbered(script, simulated.answers)).toEqual(numbered(script, answers))
    expect(withoutAddresses(simulated.console)).toEqual(withoutAddresses(console))
  })
})
