/**
 * Time and memory for 1,000,000 single pages on a machine of 4 TiB: preserved, handed over by a kexec and
 * restored, by the simulated kernels of each form of the map; page by page, with 1 MiB from each to the
 * next, and as one memfd through live update. Ratio to setting and finding as many bits in one bitmap. Run
 * by `npm run bench`, on the built tree.
 */
import { failed, Kernel, LiveUpdate } from '../dist/simulate/index.js'

const PAGES = 1_000_000
const RUNS = 3

/** What no kernel can undercut: a bit for each page, set and found again. */
function plainBits() {
  const start = performance.now()
  const bits = new Uint8Array(PAGES / 8)
  for (let at = 0; at < PAGES; at++) bits[at >> 3] |= 1 << (at & 7)
  let found = 0
  for (let at = 0; at < PAGES; at++) found += (bits[at >> 3] >> (at & 7)) & 1
  if (found !== PAGES) throw new Error('bits got lost')
  return performance.now() - start
}

/** For answers that are values, and for those that are undefined where all is well. */
function must(answer) {
  if (failed(answer)) throw new Error(`refused: ${answer.errno}`)
  return answer
}

const ram = [{ start: 0n, end: 1n << 42n }]

function handOver(release) {
  const start = performance.now()
  const kernel = Kernel.boot({ release, ram, cmdline: 'kho=on kho_scratch=16M,64M,16M' })
  const pages = Array.from({ length: PAGES }, () => must(kernel.pages.alloc(0)))
  for (const page of pages) must(kernel.kho.preserveFolio(page))
  if (kernel.spec.traits.hasFinalize) kernel.kho.outgoing.writeFinalize('1')
  const next = must(kernel.kexec())
  for (const page of pages) must(next.kho.restoreFolio(page))
  return performance.now() - start
}

/** In a leaf of the map 128 bits are set, and no page has a neighbour that is in use. */
function handOverScattered(release) {
  const start = performance.now()
  const kernel = Kernel.boot({ release, ram, cmdline: 'kho=on kho_scratch=16M,64M,16M' })
  const pages = Array.from({ length: PAGES }, (_, at) => (1n << 33n) + (BigInt(at) << 20n))
  for (const page of pages) must(kernel.kho.preservePages(page, 1))
  if (kernel.spec.traits.hasFinalize) must(kernel.kho.outgoing.writeFinalize('1'))
  const next = must(kernel.kexec())
  for (const page of pages) if (next.kho.restorePages(page, 1) !== page) throw new Error('a page got lost')
  return performance.now() - start
}

/** One process on each side: a memfd of all pages in a session, retrieved and finished. */
function handOverMemfd(release) {
  const start = performance.now()
  let live
  const subsystems = (kernel) => {
    live = new LiveUpdate(kernel)
    return [live]
  }
  const cmdline = 'kho=on liveupdate=on kho_scratch=16M,64M,16M'
  const kernel = Kernel.boot({ release, ram, cmdline, subsystems })
  const before = live.process()
  const session = must(before.createSession(must(before.open('/dev/liveupdate')), 'bench'))
  const memfd = must(before.memfdCreate('pages'))
  must(before.fallocate(memfd, 0, 0, PAGES * 4096))
  must(before.preserveFd(session, memfd, 1n))
  must(kernel.kexec())
  const after = live.process()
  const retrieved = must(after.retrieveSession(must(after.open('/dev/liveupdate')), 'bench'))
  const { blocks } = must(after.fstat(must(after.retrieveFd(retrieved, 1n))))
  must(after.finish(retrieved))
  if (blocks !== BigInt(PAGES * 8)) throw new Error('pages got lost')
  return performance.now() - start
}

const fastest = (run) => Math.min(...Array.from({ length: RUNS }, run))
const plain = fastest(plainBits)
const forms = ['linux-6.17', 'linux-6.19', 'linux-7.3']
const runs = [
  ...forms.map((release) => [release, 'pages', handOver]),
  ...forms.map((release) => [release, 'pages 1 MiB apart', handOverScattered]),
  ...['linux-6.19', 'linux-7.1', 'linux-7.3'].map((release) => [release, 'pages in a memfd', handOverMemfd]),
]
for (const [release, what, run] of runs) {
  const ms = fastest(() => run(release))
  const mib = process.memoryUsage().rss / 2 ** 20
  process.stdout.write(
    `${release}: ${PAGES} ${what} in ${(ms / 1000).toFixed(2)} s, ${Math.round(ms / plain)} times the bits alone, ${Math.round(mib)} MiB\n`,
  )
}
