/** The examples of the documentation: every `$ kho-inspect …` in it prints what stands below it. */
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { kho, ROOT } from './support/images.ts'

const documents = [
  'README.md',
  ...readdirSync(`${ROOT}docs`)
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
]

interface Example {
  readonly command: string
  readonly output: string
}

/** Blocks of ```console, each a command line behind `$ ` and its output. */
function examplesOf(document: string): readonly Example[] {
  const text = readFileSync(`${ROOT}${document}`, 'utf8')
  return [...text.matchAll(/^```console\n\$ (kho-inspect .*)\n([\s\S]*?)^```$/gm)].map(
    ([, command, output]) => ({
      command: command as string,
      output: output as string,
    }),
  )
}

/** Words of a simple command line; single quotes hold a word together. */
function wordsOf(command: string): readonly string[] {
  return [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? (bare as string))
}

const examples = documents.flatMap((document) =>
  examplesOf(document).map((example) => ({ document, ...example })),
)

/** The image that an example writes and the next one reads. */
afterAll(() => rmSync(`${ROOT}bad.elf`, { force: true }))

test.each(examples)('$document: $command', ({ command, output }) => {
  const { stdout, stderr } = kho(wordsOf(command).slice(1))
  expect(stdout + stderr).toBe(output)
})

test('the README has examples, and CI runs its line for passing the tests', () => {
  expect(examplesOf('README.md').length).toBeGreaterThan(3)
  const line = /```sh\n(npm ci && npm run check)\n```/.exec(readFileSync(`${ROOT}README.md`, 'utf8'))?.[1]
  expect(readFileSync(`${ROOT}.ci/run`, 'utf8').trimEnd().split('\n').at(-1)).toBe(line)
})
