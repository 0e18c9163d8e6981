/** The file of `boot --expect`: what shall come back, as JSON. */
import { readFileSync } from 'node:fs'
import type { Expectation, ExpectedFile, ExpectedRegion, ExpectedSession } from '../qemu/expectation.ts'
import { UsageError } from './command.ts'

type Fields = Readonly<Record<string, unknown>>

export function readExpectation(path: string): Expectation {
  const wrong = (where: string, expected: string, found: unknown): UsageError =>
    new UsageError(`${path}: ${where}: expected ${expected}; found ${JSON.stringify(found) ?? 'nothing'}`)
  const fields = (value: unknown, where: string, known: readonly string[]): Fields => {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw wrong(where, 'an object', value)
    const unknown = Object.keys(value).find((key) => !known.includes(key))
    if (unknown !== undefined) throw wrong(where, `one of ${known.join(', ')}`, unknown)
    return value as Fields
  }
  const list = (value: unknown, where: string): readonly unknown[] => {
    if (value === undefined) return []
    if (!Array.isArray(value)) throw wrong(where, 'a list', value)
    return value
  }
  const text = (value: unknown, where: string): string => {
    if (typeof value !== 'string') throw wrong(where, 'a text', value)
    return value
  }
  const integer = (value: unknown, where: string): bigint => {
    if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value)
    if (typeof value === 'string' && /^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(value)) return BigInt(value)
    throw wrong(where, 'an integer, or one as text', value)
  }
  const name = (session: Fields, where: string): string => {
    if (session.name_hex === undefined)
      return Buffer.from(text(session.name, `${where}.name`)).toString('hex')
    const hex = text(session.name_hex, `${where}.name_hex`)
    if (!/^([0-9a-f]{2})*$/i.test(hex)) throw wrong(`${where}.name_hex`, 'bytes in hex', hex)
    return hex.toLowerCase()
  }
  const file = (value: unknown, where: string): ExpectedFile => {
    const { token, size, pos, seals, sum } = fields(value, where, [
      'token',
      'size',
      'pos',
      'seals',
      'sum',
      'errno',
    ])
    return {
      token: integer(token, `${where}.token`),
      ...(size !== undefined && { size: integer(size, `${where}.size`) }),
      ...(pos !== undefined && { pos: integer(pos, `${where}.pos`) }),
      ...(seals !== undefined && { seals: Number(integer(seals, `${where}.seals`)) }),
      ...(sum !== undefined && { sum: integer(`0x${text(sum, `${where}.sum`)}`, `${where}.sum`) }),
    }
  }
  const session = (value: unknown, index: number): ExpectedSession => {
    const where = `sessions[${index}]`
    const read = fields(value, where, ['name', 'name_hex', 'files', 'errno'])
    const files = list(read.files, `${where}.files`)
    return { name: name(read, where), files: files.map((each, at) => file(each, `${where}.files[${at}]`)) }
  }
  /** One that its guest could not read is not asked for again. */
  const region = (value: unknown, index: number): readonly ExpectedRegion[] => {
    const where = `region_contents[${index}]`
    const known = ['name', 'address', 'size', 'sum', 'errno']
    const { name: called, address, size, sum, errno = 0 } = fields(value, where, known)
    if (errno !== 0) return []
    return [
      {
        name: text(called, `${where}.name`),
        address: integer(address, `${where}.address`),
        size: integer(size, `${where}.size`),
        ...(sum !== undefined && { sum: integer(`0x${text(sum, `${where}.sum`)}`, `${where}.sum`) }),
      },
    ]
  }
  const names = (value: unknown, where: string): readonly string[] =>
    list(value, where).map((each, index) => text(each, `${where}[${index}]`))
  const root = fields(parsed(path), 'the document', [
    'sessions',
    'reserve_mem',
    'region_contents',
    'flbs',
    'finish',
  ])
  return {
    sessions: list(root.sessions, 'sessions').map(session),
    regions: names(root.reserve_mem, 'reserve_mem'),
    regionContents: list(root.region_contents, 'region_contents').flatMap(region),
    flbs: names(root.flbs, 'flbs'),
    finish: root.finish === true,
  }
}

function parsed(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    throw new UsageError(`${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}
