/** Scenarios that are refused: what is said, where, and that nothing is written. */
import { describe, expect, test } from 'vitest'
import { encodeScenario, formatScenarioProblem } from '../encode/scenario.ts'
import { badScenarios } from './support/bad-scenarios.ts'

const readFile = () => ({ problem: 'cannot be read: ENOENT' })

async function refusal(text: string): Promise<string> {
  const encoded = await encodeScenario(text, { readFile })
  if (encoded.ok) return 'taken'
  return encoded.problems.map((problem) => formatScenarioProblem('scenario', problem)).join('\n')
}

test('every mistake is named with its place and what would be right', async () => {
  const parts: string[] = []
  for (const { cause, text } of badScenarios) {
    const shown = text.length > 400 ? `${text.slice(0, 200)}… (${text.length} characters)\n` : text
    parts.push(`### ${cause}\n\n${shown.replaceAll(/^/gm, '    ').trimEnd()}\n\n${await refusal(text)}\n`)
  }
  await expect(parts.join('\n')).toMatchFileSnapshot('expected/bad-scenarios.txt')
})

describe.each(badScenarios)('$cause', ({ text }) => {
  test('is refused with a line, a column and something to do', async () => {
    const lines = (await refusal(text)).split('\n')
    expect(lines.length).toBeLessThanOrEqual(2)
    for (const line of lines) expect(line).toMatch(/^scenario:\d+:\d+: \S/)
  })
})
