/** docs/simulate.md: its programs run with what the package gives, and print what stands below them. */
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ROOT } from './support/images.ts'

const text = readFileSync(`${ROOT}docs/simulate.md`, 'utf8')
const programs = [...text.matchAll(/^```js\n([\s\S]*?)^```\n\nIt prints:\n\n```text\n([\s\S]*?)^```$/gm)].map(
  ([, program, output]) => ({ program: program as string, output: output as string }),
)

test('no program is left out', () => {
  expect(programs.length).toBe(2)
  expect(text.split('```js\n').length - 1).toBe(programs.length)
})

test.each(programs)('program %# prints what is said of it', ({ program, output }) => {
  const args = ['--input-type=module', '--eval', program]
  const { stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' })
  expect(stdout + stderr).toBe(output)
})
