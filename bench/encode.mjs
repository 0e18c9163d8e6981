/**
 * Time and memory for a memfd of 64 GiB in single pages, 16.8 million folio records: its image from a
 * scenario, and `dump --json` of that image. Ratios to writing as many records of 16 bytes into one
 * buffer and to the start of the command line. Run by `npm run bench`, on the built tree.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'

const RUNS = 3
const FOLIOS = 2 ** 24
const cli = fileURLToPath(new URL('../dist/bin/kho-inspect.js', import.meta.url))
const directory = mkdtempSync(`${tmpdir()}/kho-inspect-bench-`)
const image = `${directory}/large.elf`

/** The child says what it took when it ends. */
const REPORT = `data:text/javascript,process.on('exit',()=>process.stderr.write('peak='+process.resourceUsage().maxRSS))`

function run(...args) {
  const start = performance.now()
  const { status, stderr } = spawnSync(process.execPath, ['--import', REPORT, cli, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(stderr)
  return { ms: performance.now() - start, mib: Number(/peak=(\d+)/.exec(stderr)[1]) / 1024 }
}

/** The fastest of several runs, and the most memory that any of them took. */
function best(...args) {
  const runs = Array.from({ length: RUNS }, () => {
    if (args[0] === 'encode') rmSync(image, { force: true })
    return run(...args)
  })
  return { ms: Math.min(...runs.map(({ ms }) => ms)), mib: Math.max(...runs.map(({ mib }) => mib)) }
}

/** What no encoder can undercut: the records themselves. */
function plainRecords() {
  const start = performance.now()
  const view = new DataView(new ArrayBuffer(FOLIOS * 16))
  for (let at = 0; at < FOLIOS; at++) {
    view.setUint32(at * 16, at, true)
    view.setUint32(at * 16 + 4, 0x300000, true)
    view.setUint32(at * 16 + 8, at, true)
  }
  return performance.now() - start
}

const scenario = `${directory}/large.yaml`
writeFileSync(
  scenario,
  `title: A memfd of 64 GiB in single pages
release: linux-7.3
ram: 72GiB
sessions:
  - name: large
    files:
      - token: 1
        memfd: { size: 64GiB, content: { pattern: { seed: 7, every: 1MiB, run: 512 } } }
`,
)
const start = best('--version')
const encode = best('encode', scenario, '-o', image)
const dump = best('dump', image, '--json')
// Last: a child's peak begins with what its parent holds.
const records = { ms: plainRecords(), mib: (FOLIOS * 16) / 2 ** 20 }
rmSync(directory, { recursive: true })
for (const [name, { ms, mib }] of [
  ['records alone', records],
  ['start of the command line', start],
  ['encode to a sparse ELF core', encode],
  ['dump --json', dump],
]) {
  const ratios = `${(ms / records.ms).toFixed(1)} x the records, ${(ms / start.ms).toFixed(1)} x the start`
  process.stdout.write(
    `${name.padEnd(28)} ${ms.toFixed(0).padStart(6)} ms ${mib.toFixed(0).padStart(5)} MiB  ${ratios}\n`,
  )
}
