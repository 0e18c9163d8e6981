/**
 * How long `dump --json` of a large handover takes, as a ratio to the start of the command line itself:
 * 160,000 folio records and as many preserved units. Run by `npm run bench`, on the built tree.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'

const RUNS = 7
const FOLIOS = 160_000
const cli = fileURLToPath(new URL('../dist/bin/kho-inspect.js', import.meta.url))
const directory = mkdtempSync(`${tmpdir()}/kho-inspect-bench-`)

function run(...args) {
  execFileSync(process.execPath, [cli, ...args], { stdio: ['ignore', 'ignore', 'inherit'] })
}

/** The fastest of several runs, in milliseconds: what the others add is other processes. */
function best(...args) {
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < RUNS; i++) {
    const start = performance.now()
    run(...args)
    least = Math.min(least, performance.now() - start)
  }
  return least
}

const scenario = `${directory}/large.yaml`
writeFileSync(
  scenario,
  `title: One large memfd of small folios
release: linux-7.3
ram: 2GiB
sessions:
  - name: large
    files:
      - token: 1
        memfd: { size: ${FOLIOS * 4}KiB }
`,
)
run('encode', scenario, '-o', `${directory}/large.elf`)
const start = best('--version')
const dump = best('dump', `${directory}/large.elf`, '--json')
rmSync(directory, { recursive: true })
process.stdout.write(`start of the command line   ${start.toFixed(0)} ms\n`)
process.stdout.write(
  `dump --json, ${FOLIOS} folios  ${dump.toFixed(0)} ms, ${(dump / start).toFixed(2)} times the start\n`,
)
