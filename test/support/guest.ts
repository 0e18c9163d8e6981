/** The guest program that made the captured images: what it wrote, and what it preserved. */

/** fill() of the guest that made the captured images, in one integer of 64 bits. */
export function fillOf(seed: bigint, length: number): Uint8Array {
  let x = BigInt.asUintN(64, seed * 0x9e37_79b9_7f4a_7c15n + 1n)
  return Uint8Array.from({ length }, () => {
    x = BigInt.asUintN(64, x ^ (x << 13n))
    x ^= x >> 7n
    x = BigInt.asUintN(64, x ^ (x << 17n))
    return Number(x & 0xffn)
  })
}

/**
 * The guest's sum of a file: FNV-1a of 64 bits, but for the last digit of the basis, which it lacks. In two
 * halves; the prime is 2^40 + 0x1b3.
 */
export function sumOf(bytes: Uint8Array): string {
  let [high, low] = [0x1465_0fb0, 0x739d_0383]
  for (const byte of bytes) {
    low = (low ^ byte) >>> 0
    const product = low * 0x1b3
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0
    low = product >>> 0
  }
  return [high, low].map((half) => half.toString(16).padStart(8, '0')).join('')
}

function sparse(seed: bigint, length: number, every: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let at = 0; at < length; at += every) bytes.set(fillOf(seed + BigInt(at), 512), at)
  return bytes
}

/** What the guest wrote into its files, by token. */
export const labContents: ReadonlyMap<bigint, Uint8Array> = new Map([
  [1n, fillOf(11n, 10_000)],
  [2n, new Uint8Array(0)],
  [0xdead_beef_cafe_f00dn, sparse(33n, 3 << 20, 4096)],
  [7n, fillOf(44n, 20_480)],
  [8n, sparse(55n, 1 << 20, 1 << 16)],
])

/** One captured image as a scenario: the machine of the lab and the guest's sessions (fixtures/real/README.md). */
export function labScenario(release: string, arch: string, previousRelease: string | undefined): string {
  const has = {
    sessions: previousRelease !== undefined || release === 'linux-6.19',
    seals: previousRelease !== undefined,
  }
  return `
release: ${release}
arch: ${arch}
ram: 512MiB
scratch: [16MiB, 64MiB, 16MiB]
reserve_mem:
  - { name: trace, size: 1MiB, align: 4KiB }
  - { name: oops, size: 64KiB, align: 64KiB }
kho_test: true
${has.seals ? `kexec_metadata: { previous_release: ${previousRelease} }\nliveupdate_test: true` : ''}
${has.sessions ? labSessions(has.seals) : ''}`
}

function labSessions(seals: boolean): string {
  return `
sessions:
  - name: vm-alpha
    files:
      - token: 1
        memfd: { size: 10000, position: 1234, content: { pattern: 11 } }
      - token: 2
        memfd: {}
      - token: 0xdeadbeefcafef00d
        memfd: { size: 3MiB, order: 9, content: { pattern: { seed: 33, every: 4KiB, run: 512 } } }
  - name: database
    files:
      - token: 7
        memfd: { size: 20KiB, ${seals ? 'seals: [shrink, grow], ' : ''}content: { pattern: 44 } }
      - token: 8
        memfd: { size: 1MiB, content: { pattern: { seed: 55, every: 64KiB, run: 512 } } }
  - name: no-files-here`
}

/** The guest's own sums of these files, by token. */
export const labSums: Readonly<Record<string, string>> = {
  '0x1': '5d73c07134004785',
  '0xdeadbeefcafef00d': '37a6056ac5371464',
  '0x7': 'abd15aad7ab19156',
  '0x8': '4c139be68aa5e327',
}
