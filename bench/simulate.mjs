/**
 * Time and memory for 1,000,000 single pages on a machine of 4 TiB: preserved, handed over by a kexec and
 * restored, by the simulated kernels of each form of the map. Ratio to setting and finding as many bits
 * in one bitmap. Run by `npm run bench`, on the built tree.
 */
import { failed, Kernel } from '../dist/simulate/index.js'

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

function must(answer) {
  if (answer === undefined || failed(answer)) throw new Error(`refused: ${answer?.errno}`)
  return answer
}

function handOver(release) {
  const start = performance.now()
  const ram = [{ start: 0n, end: 1n << 42n }]
  const kernel = Kernel.boot({ release, ram, cmdline: 'kho=on kho_scratch=16M,64M,16M' })
  const pages = Array.from({ length: PAGES }, () => must(kernel.pages.alloc(0)))
  for (const page of pages) {
    const answer = kernel.kho.preserveFolio(page)
    if (failed(answer)) must(answer)
  }
  if (kernel.spec.traits.hasFinalize) kernel.kho.outgoing.writeFinalize('1')
  const next = must(kernel.kexec())
  for (const page of pages) must(next.kho.restoreFolio(page))
  return performance.now() - start
}

const fastest = (run) => Math.min(...Array.from({ length: RUNS }, run))
const plain = fastest(plainBits)
for (const release of ['linux-6.17', 'linux-6.19', 'linux-7.3']) {
  const ms = fastest(() => handOver(release))
  const mib = process.memoryUsage().rss / 2 ** 20
  process.stdout.write(
    `${release}: ${PAGES} pages in ${(ms / 1000).toFixed(2)} s, ${Math.round(ms / plain)} times the bits alone, ${Math.round(mib)} MiB\n`,
  )
}
