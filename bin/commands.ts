/**
 * The table of commands: what they are called, what they do, and where their code is. The code of a
 * command is loaded only when that command is asked for.
 */
import type { Command } from './command.ts'

export interface CommandEntry {
  /** yargs' form: name and positionals. */
  readonly syntax: string
  readonly summary: string
  /** Options that may be given more than once. */
  readonly repeatable?: readonly string[]
  readonly load: () => Promise<{ readonly command: Command }>
}

export const commands: readonly CommandEntry[] = [
  {
    syntax: 'dump <image..>',
    summary: 'show what a handover holds, as a tree, JSON or YAML',
    load: () => import('./command-dump.ts'),
  },
  {
    syntax: 'validate [image..]',
    summary: 'judge what the next kernel would do with a handover, and what it would not notice',
    repeatable: ['--ignore', '--handler'],
    load: () => import('./command-validate.ts'),
  },
  {
    syntax: 'mutate [image..]',
    summary: 'make a wrong image out of a right one, by the name of a fault',
    load: () => import('./command-mutate.ts'),
  },
  {
    syntax: 'hex <image> <place> [length]',
    summary: 'annotated hex dump of an address or of a path in the tree',
    load: () => import('./command-hex.ts'),
  },
  {
    syntax: 'abi <action> [names..]',
    summary: 'the declared ABI: list, show, compare, check against kernels, export',
    load: () => import('./command-abi.ts'),
  },
  {
    syntax: 'encode [scenario]',
    summary: 'make an image from a scenario, or again from an image',
    load: () => import('./command-encode.ts'),
  },
  {
    syntax: 'simulate <scenario>',
    summary: 'run a scenario or timeline on a simulated kernel',
    load: () => import('./command-simulate.ts'),
  },
  {
    syntax: 'fixtures <dir>',
    summary: 'write a documented set of images, one per concept',
    load: () => import('./command-fixtures.ts'),
  },
  {
    syntax: 'boot <image>',
    summary: 'boot a real arm64 kernel on an image under QEMU, and say what it took over',
    load: () => import('./command-boot.ts'),
  },
  {
    syntax: 'capture',
    summary: 'run a real kernel under QEMU and take an image of what it hands over',
    load: () => import('./command-capture.ts'),
  },
]
