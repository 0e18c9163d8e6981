/**
 * Client of QEMU's machine protocol: one JSON object a line, commands answered by id, events passed over.
 *
 * Source: QEMU docs/interop/qmp-spec.txt.
 */
import type { Duplex } from 'node:stream'
import { ConnectionLost, MachineFailure } from './failure.ts'

/** Longest line that is taken. */
const MAX_LINE = 1 << 20

interface Message {
  readonly QMP?: unknown
  readonly id?: number
  readonly return?: unknown
  readonly error?: { readonly class: string; readonly desc: string }
}

interface Waiting {
  readonly resolve: (value: unknown) => void
  readonly reject: (failure: MachineFailure) => void
}

export class QmpClient {
  readonly #stream: Duplex
  readonly #waiting = new Map<number, Waiting>()
  #greeted: Waiting | undefined
  #received = ''
  #next = 1
  #failure: MachineFailure | undefined

  private constructor(stream: Duplex) {
    this.#stream = stream
    stream.on('data', (bytes: Buffer) => this.#take(bytes.toString('utf8')))
    stream.on('error', (error) => this.#lose(`QEMU's control connection broke: ${error.message}`))
    stream.on('close', () => this.#lose('QEMU closed its control connection'))
  }

  /** Waits for QEMU's greeting and agrees on its capabilities: from then on it takes commands. */
  static async open(stream: Duplex): Promise<QmpClient> {
    const client = new QmpClient(stream)
    await new Promise<unknown>((resolve, reject) => {
      client.#greeted = { resolve, reject }
    })
    await client.execute('qmp_capabilities')
    return client
  }

  /** Runs a command; a refusal is a failure with QEMU's own words. */
  execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#failure) {
        reject(this.#failure)
        return
      }
      const id = this.#next++
      this.#waiting.set(id, { resolve, reject })
      this.#stream.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`)
    })
  }

  #take(text: string): void {
    const lines = (this.#received + text).split('\n')
    this.#received = lines.pop() ?? ''
    if (this.#received.length > MAX_LINE) this.#fail(new MachineFailure('QEMU sends no end of a line'))
    for (const line of lines) if (line.trim() !== '') this.#message(line)
  }

  #message(line: string): void {
    let message: Message
    try {
      message = JSON.parse(line)
    } catch {
      this.#fail(new MachineFailure(`QEMU answers no JSON: '${line.slice(0, 40)}'`))
      return
    }
    if (message.QMP !== undefined) this.#greeted?.resolve(undefined)
    const waiting = this.#waiting.get(message.id ?? 0)
    if (!waiting) return
    this.#waiting.delete(message.id as number)
    if (message.error) waiting.reject(new MachineFailure(`QEMU: ${message.error.desc}`))
    else waiting.resolve(message.return)
  }

  #lose(message: string): void {
    this.#fail(new ConnectionLost(message))
  }

  #fail(failure: MachineFailure): void {
    this.#failure ??= failure
    for (const waiting of [this.#greeted, ...this.#waiting.values()]) waiting?.reject(this.#failure)
    this.#waiting.clear()
  }
}
