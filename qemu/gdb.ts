/**
 * Client of the GDB remote serial protocol, as far as it takes to stop a machine at an address and to read
 * its registers. One request at a time; every packet is acknowledged.
 *
 * Source: GDB's manual, appendix "GDB Remote Serial Protocol"; QEMU gdbstub.c, whose answers to these
 * requests hold neither run lengths nor escapes.
 */
import type { Duplex } from 'node:stream'
import { ConnectionLost, MachineFailure } from './failure.ts'

/** Longest packet that is taken: registers of all machines here fit several times. */
const MAX_PACKET = 1 << 16

interface Waiting {
  readonly resolve: (reply: string) => void
  readonly reject: (failure: MachineFailure) => void
}

export class GdbClient {
  readonly #stream: Duplex
  #received = ''
  #waiting: Waiting | undefined
  #failure: MachineFailure | undefined
  #lastSent = ''

  constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('data', (bytes: Buffer) => this.#take(bytes.toString('latin1')))
    stream.on('error', (error) => this.#lose(`the debugger's connection broke: ${error.message}`))
    stream.on('close', () => this.#lose("the machine closed the debugger's connection"))
  }

  /** Sends a request and gives the reply that belongs to it. */
  request(text: string): Promise<string> {
    const reply = new Promise<string>((resolve, reject) => {
      if (this.#failure) reject(this.#failure)
      else this.#waiting = { resolve, reject }
    })
    this.send(text)
    return reply
  }

  /** Sends a request that is answered when the machine stops next, or never. */
  send(text: string): void {
    this.#lastSent = `$${text}#${checksum(text)}`
    if (!this.#failure) this.#stream.write(this.#lastSent)
  }

  /** Sets or removes a hardware breakpoint; `kind` is the length of an instruction. */
  async breakpoint(action: 'set' | 'remove', address: bigint, kind: number): Promise<void> {
    const reply = await this.request(`${action === 'set' ? 'Z' : 'z'}1,${address.toString(16)},${kind}`)
    if (reply !== 'OK') throw new MachineFailure(`the breakpoint at 0x${address.toString(16)}: '${reply}'`)
  }

  /** Lets the machine run until it stops; the reply says why it did. */
  continueUntilStop(): Promise<string> {
    return this.request('c')
  }

  /** All registers in the order of the target description, as the bytes of the machine. */
  async registers(): Promise<Uint8Array> {
    const reply = await this.request('g')
    if (!/^(?:[0-9a-f]{2})+$/.test(reply)) throw new MachineFailure(`the registers: '${reply.slice(0, 20)}'`)
    return Buffer.from(reply, 'hex')
  }

  #take(text: string): void {
    this.#received += text
    for (;;) {
      const start = this.#received.search(/[$-]/)
      if (start < 0) {
        this.#received = ''
        return
      }
      if (this.#received[start] === '-') {
        this.#stream.write(this.#lastSent)
        this.#received = this.#received.slice(start + 1)
        continue
      }
      const end = this.#received.indexOf('#', start)
      if (end < 0 || end + 3 > this.#received.length) {
        if (this.#received.length - start > MAX_PACKET)
          this.#fail(new MachineFailure('the debugger sends no end of a packet'))
        return
      }
      const packet = this.#received.slice(start + 1, end)
      const isWhole = this.#received.slice(end + 1, end + 3).toLowerCase() === checksum(packet)
      this.#received = this.#received.slice(end + 3)
      this.#stream.write(isWhole ? '+' : '-')
      if (isWhole) this.#answer(packet)
    }
  }

  #answer(packet: string): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.resolve(packet)
  }

  #lose(message: string): void {
    this.#fail(new ConnectionLost(message))
  }

  #fail(failure: MachineFailure): void {
    this.#failure ??= failure
    this.#waiting?.reject(this.#failure)
    this.#waiting = undefined
  }
}

/** The sum of the characters modulo 256, in two digits. */
function checksum(text: string): string {
  const sum = Buffer.from(text, 'latin1').reduce((total, byte) => (total + byte) & 0xff, 0)
  return sum.toString(16).padStart(2, '0')
}
