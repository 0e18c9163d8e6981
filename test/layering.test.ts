/** The walls of the house: who may import whom, and which packages, read off the import lines. */
import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ROOT } from './support/images.ts'

interface Rule {
  readonly folders: readonly string[]
  /** Packages and node modules by the files that may use them; `*` is any file of the folder. */
  readonly packages: Readonly<Record<string, readonly string[]>>
}

const rules: Readonly<Record<string, Rule>> = {
  abi: { folders: ['abi'], packages: {} },
  encode: {
    folders: ['abi', 'encode'],
    packages: { 'node:zlib': ['image-*'], yaml: ['scenario*'], zod: ['scenario*'] },
  },
  inspect: {
    folders: ['abi', 'inspect'],
    packages: {
      'binary-parser': ['record.ts'],
      hexy: ['render-hex.ts'],
      'node:fs': ['image*'],
      'node:path': ['image*'],
      'node:os': ['image*'],
      'node:stream': ['image*'],
      'node:stream/promises': ['image*'],
      'node:events': ['image*'],
      'node:zlib': ['image*', 'kernel-image*'],
      zstddec: ['image*', 'kernel-image*'],
    },
  },
  qemu: {
    folders: ['abi', 'encode', 'inspect', 'qemu'],
    packages: {
      'node:child_process': ['boot.ts', 'machine.ts'],
      'node:events': ['machine.ts'],
      'node:fs': ['boot.ts', 'directory.ts', 'kernel-file.ts', 'machine.ts'],
      'node:net': ['machine.ts'],
      'node:os': ['directory.ts'],
      'node:path': ['boot.ts', 'capture.ts', 'directory.ts', 'kernel-file.ts', 'machine.ts'],
      'node:process': ['machine.ts'],
      'node:stream': ['gdb.ts', 'qmp.ts'],
      'node:util': ['boot.ts'],
    },
  },
  mutate: { folders: ['abi', 'inspect', 'mutate'], packages: {} },
  simulate: { folders: ['abi', 'encode', 'inspect', 'simulate'], packages: {} },
  testing: {
    folders: ['abi', 'encode', 'inspect', 'testing'],
    packages: { 'node:fs': ['fixtures.ts'], vitest: ['vitest.ts'] },
  },
}

function importsOf(path: string): readonly string[] {
  const text = readFileSync(path, 'utf8')
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(([, name]) => name as string)
}

function matches(file: string, pattern: string): boolean {
  return pattern.endsWith('*') ? file.startsWith(pattern.slice(0, -1)) : file === pattern
}

const files = Object.keys(rules).flatMap((folder) =>
  readdirSync(`${ROOT}${folder}`)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => [folder, file] as const),
)

test.each(files)('%s/%s imports only what its folder may', (folder, file) => {
  const { folders, packages } = rules[folder] as Rule
  const wrong = importsOf(`${ROOT}${folder}/${file}`).filter((name) => {
    if (name.startsWith('./')) return false
    if (name.startsWith('../')) return !folders.includes(name.split('/')[1] as string)
    return !(packages[name] ?? []).some((pattern) => matches(file, pattern))
  })
  expect(wrong).toEqual([])
})

/** A simulated kernel must not agree with the decoder by construction: it has only the lowest readers in common. */
const READERS = ['columns', 'fdt', 'read', 'record', 'scalar', 'text'].map((name) => `../inspect/${name}.ts`)

test.each(files.filter(([folder]) => folder === 'simulate'))(
  '%s/%s shares no more than readers with the decoder',
  (folder, file) => {
    const wrong = importsOf(`${ROOT}${folder}/${file}`).filter(
      (name) => name.startsWith('../inspect/') && !READERS.includes(name),
    )
    expect(wrong).toEqual([])
  },
)

test('no import cycles, type-only ones included', () => {
  const graph = new Map<string, readonly string[]>()
  for (const [folder, file] of files) {
    const targets = importsOf(`${ROOT}${folder}/${file}`)
      .filter((name) => name.startsWith('.'))
      .map((name) => new URL(name, `file:///${folder}/${file}`).pathname.slice(1))
    graph.set(`${folder}/${file}`, targets)
  }
  const done = new Set<string>()
  const cycles: string[] = []
  const visit = (file: string, trail: readonly string[]): void => {
    if (trail.includes(file)) {
      cycles.push([...trail.slice(trail.indexOf(file)), file].join(' -> '))
      return
    }
    if (done.has(file)) return
    for (const target of graph.get(file) ?? []) visit(target, [...trail, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  expect(cycles).toEqual([])
})

/** Of the globals; a kernel's console and the processes that run on it are something else. */
const FORBIDDEN =
  /(?<![/.#])\b(?:console\.(?:log|error|warn|info|debug)|process\.(?:env|argv|exit|std|cwd|on|platform|pid|kill|hrtime))|\bnew Date\b|\bDate\.now\b|\bMath\.random\b/g

test('only bin touches the console, the process, the clock and chance', () => {
  const wrong = files.flatMap(([folder, file]) => {
    const text = readFileSync(`${ROOT}${folder}/${file}`, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
    return [...text.matchAll(FORBIDDEN)].map(([found]) => `${folder}/${file}: ${found}`)
  })
  expect(wrong).toEqual([])
})
