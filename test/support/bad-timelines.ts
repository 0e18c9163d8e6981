/** Timelines that are refused before anything runs, by what is wrong with them. */
export interface BadTimeline {
  readonly cause: string
  readonly text: string
}

function steps(...lines: readonly string[]): string {
  return `release: linux-7.3\nsteps:\n${lines.map((line) => `  - ${line}\n`).join('')}`
}

export const badTimelines: readonly BadTimeline[] = [
  { cause: 'steps that are no list', text: 'release: linux-7.3\nsteps: { open: }\n' },
  { cause: 'an unknown word', text: steps('opem') },
  { cause: 'an unknown verb', text: steps('{ creat_session: a }') },
  { cause: 'a word with keys below it', text: steps('open', 'kexec\n    expect: panic') },
  { cause: 'two words with keys below them', text: steps('open it\n    expect: panic') },
  { cause: 'two verbs', text: steps('{ create_session: a, close: a }') },
  { cause: 'no verb', text: steps('{ title: nothing }') },
  { cause: 'an unknown error', text: steps('{ open: , expect: EEXISTS }') },
  { cause: 'an unknown release', text: steps('{ kexec: linux-7.9 }') },
  { cause: 'a mistyped release', text: steps('{ kexec: { to: linx-7.3 } }') },
  { cause: 'an expectation for a release that is none', text: steps('{ open: , expect: { linux-9: ok } }') },
  { cause: 'a first release that is none', text: 'release: linux-5.0\nsteps: []\n' },
  { cause: 'a session that nothing opens', text: steps('{ finish: vm }') },
  { cause: 'a mistyped name', text: steps('open', '{ create_session: vm-alpha }', '{ finish: vm-alpa }') },
  {
    cause: 'a file before it is there',
    text: steps('{ write: { file: m, content: { text: x } } }', '{ memfd: { name: m } }'),
  },
  { cause: 'a region that nobody declares', text: steps('{ verify: { region: trace } }') },
  {
    cause: 'the seals of a region',
    text: `reserve_mem: [{ name: r, size: 1MiB }]\n${steps('{ verify: { region: r, seals: [seal] } }')}`,
  },
  {
    cause: 'a mode that is not octal',
    text: steps('{ memfd: { name: m } }', '{ verify: { file: m, mode: "rwx" } }'),
  },
  {
    cause: 'a mode without quotes',
    text: steps('{ memfd: { name: m } }', '{ verify: { file: m, mode: 100777 } }'),
  },
  {
    cause: 'a file twice',
    text: steps('{ create_session: a }', '{ preserve: { session: a, token: 1, memfd: {}, fd: "3" } }'),
  },
  {
    cause: 'a descriptor that is no number',
    text: steps('{ create_session: a }', '{ preserve: { session: a, token: 1, fd: three } }'),
  },
  {
    cause: 'a failure without a callback',
    text: steps(
      '{ create_session: a }',
      '{ preserve: { session: a, token: 1, opaque: { compatible: vfio-v1, data: 1 } } }',
      '{ fail: { handler: vfio-v1 } }',
    ),
  },
  {
    cause: 'a callback that an FLB has not',
    text: `flbs: [{ name: x, data: 1 }]\n${steps('{ fail: { flb: x, callback: freeze } }')}`,
  },
  { cause: 'an error of an allocation', text: steps('{ fail: { allocation: 1, with: EIO } }') },
  { cause: 'a corruption without a value', text: steps('{ corrupt: { at: 0x1000 } }') },
  {
    cause: 'a corruption with two places',
    text: steps('{ corrupt: { at: 0x1000, path: luo.count, value: 1 } }'),
  },
  { cause: 'a check of nothing', text: steps('{ check: {} }') },
  { cause: 'contents without a length', text: steps('{ memfd: { name: m, content: { pattern: 1 } } }') },
  {
    cause: 'contents larger than the file',
    text: steps('{ memfd: { name: m, size: 2, content: { text: abc } } }'),
  },
  { cause: 'a mistake in a group', text: steps('{ steps: [open, { close: x }] }') },
  { cause: 'too many steps', text: steps('{ repeat: 1000000, steps: [open, kexec] }') },
  { cause: 'a repetition of nothing', text: steps('{ open: , repeat: 0 }') },
  { cause: 'sessions beside steps', text: `sessions: [{ name: a }]\n${steps('open')}` },
  { cause: 'versions of single components', text: `versions: { luo: luo-v5 }\n${steps('open')}` },
  {
    cause: 'a scratch area with a place',
    text: `scratch: [{ start: 256MiB, size: 16MiB }, 64MiB, 16MiB]\n${steps('open')}`,
  },
  {
    cause: 'a region with a place',
    text: `reserve_mem: [{ name: r, size: 1MiB, start: 256MiB }]\n${steps('open')}`,
  },
  {
    cause: 'a mistyped driver',
    text: steps(
      '{ create_session: a }',
      '{ preserve: { session: a, token: 1, opaque: { compatible: vfio-v1, data: 1 } } }',
      '{ fail: { handler: vifo-v1, callback: freeze } }',
      '{ kexec: { without: [memfd-v2] } }',
    ),
  },
  { cause: 'an FLB that nobody declares', text: steps('{ flb: { name: x, call: get_incoming } }') },
  {
    cause: 'a region whose name ends the parameter',
    text: `reserve_mem: [{ name: "a b", size: 1MiB }]\n${steps('open')}`,
  },
  { cause: 'the count of an FLB', text: `flbs: [{ name: x, data: 1, count: 2 }]\n${steps('open')}` },
  { cause: 'FLBs in 6.19', text: 'release: linux-6.19\nflbs: [{ name: x, data: 1 }]\nsteps: [open]\n' },
]
