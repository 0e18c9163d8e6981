/** The clients of GDB's and QEMU's protocols against servers that say what QEMU said, and what it never should. */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { boards } from '../qemu/board.ts'
import { GdbClient } from '../qemu/gdb.ts'
import { QmpClient } from '../qemu/qmp.ts'

let directory: string
let server: Server
let client: Socket
let peer: Socket

/** A connection over a socket; `peer` is QEMU's end. */
beforeEach(async () => {
  directory = mkdtempSync(`${tmpdir()}/kho-inspect-`)
  server = createServer().listen(`${directory}/socket`)
  const connected = once(server, 'connection')
  const { connect } = await import('node:net')
  client = connect(`${directory}/socket`)
  ;[peer] = (await connected) as [Socket]
})

afterEach(() => {
  client.destroy()
  peer.destroy()
  server.close()
  rmSync(directory, { recursive: true })
})

/** What QEMU 7.2 answered when an arm64 kernel stopped at kho_populate. */
const ENTRY = 0xffff_8000_8032_e160n
const REGISTERS =
  '0090954000000000001000000000000000003f5f000000003000000000000000f0fb5fffffffffffa83d3f800080ffffa03d3f800080ffff02000000000000000100000000000000941b00000000000003000000000000000000000000000000ec3c3f800080ffff00e05fffffffffff00e05fffffffffff604540800080ffff808f98c200000000d448e85300000000268c125200000000dc1a0000000000000000000000000000303e3f800080ffff009035800080ffff00e05fffffffffff00703f800080ffff00000000000000000000205f0000000000000000000000000000c05d00000000703d3f800080ffff985634800080ffff703d3f800080ffff60e132800080ffffc5030000#14'
const EXCHANGE: Readonly<Record<string, string>> = {
  '$Z1,ffff80008032e160,4#40': '+$OK#9a',
  '$c#63': '+$T05thread:01;#07',
  '$g#67': `+$${REGISTERS}`,
  '$z1,ffff80008032e160,4#60': '+$OK#9a',
}

/** Answers from a record; everything the client sends is kept. */
function play(record: Readonly<Record<string, string>>): string[] {
  const sent: string[] = []
  peer.on('data', (bytes) => {
    for (const [packet] of bytes.toString().matchAll(/\$[^#]*#..|[+-]/g)) {
      sent.push(packet)
      const answer = record[packet]
      if (answer) peer.write(answer)
    }
  })
  return sent
}

describe('GDB', () => {
  test('a breakpoint, a stop, the registers', async () => {
    const sent = play(EXCHANGE)
    const gdb = new GdbClient(client)
    await gdb.breakpoint('set', ENTRY, 4)
    expect(await gdb.continueUntilStop()).toBe('T05thread:01;')
    const registers = Buffer.from(await gdb.registers())
    const { pc, args } = boards.arm64.registers
    expect(registers.readBigUInt64LE(pc * 8)).toBe(ENTRY)
    expect(args.map((number) => registers.readBigUInt64LE(number * 8))).toEqual([
      0x4095_9000n,
      4096n,
      0x5f3f_0000n,
      48n,
    ])
    await gdb.breakpoint('remove', ENTRY, 4)
    expect(sent).toEqual(Object.keys(EXCHANGE).flatMap((packet, i) => (i === 0 ? packet : ['+', packet])))
  })

  test('answers in pieces', async () => {
    const gdb = new GdbClient(client)
    const reply = gdb.request('?')
    for (const piece of ['+', '$T0', '5', '#b', '9']) {
      peer.write(piece)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(await reply).toBe('T05')
  })

  test('a damaged packet is asked for again, one that arrived damaged is sent again', async () => {
    const sent = play({ '-': '$OK#9a' })
    const gdb = new GdbClient(client)
    const reply = gdb.request('?')
    await once(peer, 'data')
    peer.write('-')
    await once(peer, 'data')
    peer.write('$OX#9a')
    expect(await reply).toBe('OK')
    await once(peer, 'data')
    expect(sent).toEqual(['$?#3f', '$?#3f', '-', '+'])
  })

  test('an error where none is expected', async () => {
    play({ '$Z1,10,4#78': '+$E22#a9', '$g#67': '+$E01#a6' })
    const gdb = new GdbClient(client)
    await expect(gdb.breakpoint('set', 16n, 4)).rejects.toThrow("the breakpoint at 0x10: 'E22'")
    await expect(gdb.registers()).rejects.toThrow("the registers: 'E01'")
  })

  test('the machine goes away while something is waited for, and before', async () => {
    const gdb = new GdbClient(client)
    const stop = gdb.continueUntilStop()
    peer.end()
    await expect(stop).rejects.toThrow("closed the debugger's connection")
    await expect(gdb.request('g')).rejects.toThrow("closed the debugger's connection")
  })

  test('a packet without an end', async () => {
    const gdb = new GdbClient(client)
    const reply = gdb.request('g')
    peer.write(`$${'0'.repeat(70_000)}`)
    await expect(reply).rejects.toThrow('no end of a packet')
  })
})

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n'

/** Takes commands by name. */
function answerCommands(answers: Readonly<Record<string, (id: number) => string>>): unknown[] {
  const commands: unknown[] = []
  peer.write(GREETING)
  peer.on('data', (bytes) => {
    for (const line of bytes.toString().trim().split('\n')) {
      const command = JSON.parse(line)
      commands.push(command)
      peer.write(answers[command.execute]?.(command.id) ?? `{"return": {}, "id": ${command.id}}\r\n`)
    }
  })
  return commands
}

describe('QMP', () => {
  test('greeting, capabilities, commands, and events in between', async () => {
    const event = '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}\r\n'
    const commands = answerCommands({
      'dump-guest-memory': (id) => `${event}{"return": {"a": 1}, "id": ${id}}\r\n${event}`,
    })
    const qmp = await QmpClient.open(client)
    const args = { paging: false, protocol: 'file:/x' }
    expect(await qmp.execute('dump-guest-memory', args)).toEqual({ a: 1 })
    expect(commands).toEqual([
      { execute: 'qmp_capabilities', arguments: {}, id: 1 },
      { execute: 'dump-guest-memory', arguments: args, id: 2 },
    ])
  })

  test("a refusal has QEMU's own words", async () => {
    const error = '{"error": {"class": "GenericError", "desc": "this feature is not supported"}'
    answerCommands({ cont: (id) => `${error}, "id": ${id}}\r\n` })
    const qmp = await QmpClient.open(client)
    await expect(qmp.execute('cont')).rejects.toThrow('QEMU: this feature is not supported')
  })

  test('QEMU goes away before its greeting', async () => {
    const opened = QmpClient.open(client)
    peer.end()
    await expect(opened).rejects.toThrow('closed its control connection')
  })

  test('something else than QEMU', async () => {
    const opened = QmpClient.open(client)
    peer.write('220 welcome\r\n')
    await expect(opened).rejects.toThrow("answers no JSON: '220 welcome")
  })
})
