/** From what a scenario says to the handover document that the encoder writes. */
import type { Path } from '../abi/fault.ts'
import { orderOf } from '../abi/layout.ts'
import { type ComponentVersion, componentOfSubtree } from '../abi/registry.ts'
import type { FdtStyle, PropertyType } from '../abi/schema.ts'
import { contentSource } from './content.ts'
import { buildFdt } from './fdt.ts'
import { type FdtTree, HANDOVER_SCHEMA, type HandoverDocument, type Luo, type Subtree } from './handover.ts'
import { type ContentContext, contentOf } from './scenario-content.ts'
import { releasesThatHave, type ScenarioMachine, textLimit, versionOf } from './scenario-machine.ts'
import { MemoryBuilder } from './scenario-memory.ts'
import { ramOf } from './scenario-ram.ts'
import type { Scenario, ScenarioNode, ScenarioProperty, ScenarioSubtree } from './scenario-schema.ts'
import { checkText, flbsOf, SessionBuilder, type SessionOrigin } from './scenario-sessions.ts'
import { textBytes } from './text.ts'

export interface ScenarioDocument {
  readonly document: HandoverDocument
  /** Where the sessions of the document stand in the scenario. */
  readonly origins: readonly SessionOrigin[]
}

/** Undefined after what is wrong was reported. */
export function documentOfScenario(
  scenario: Scenario,
  machine: ScenarioMachine,
  context: ContentContext,
): ScenarioDocument | undefined {
  const ram = ramOf(scenario.ram, machine, context.report)
  if (!ram) return undefined
  const memory = new MemoryBuilder(machine, ram, context)
  const regions = memory.reserveMem(scenario.reserve_mem ?? [])
  const scratch = memory.scratch(scenario.scratch)
  const ranges = memory.preserved(scenario.preserved ?? [])
  const khoTest = memory.khoTest(scenario.kho_test ?? { off: true })
  const { luo, origins } = luoOf(scenario, machine, context)
  const metadata = kexecMetadataOf(scenario, machine, context)
  const own: readonly (Subtree | undefined)[] = [
    metadata && { name: 'kexec-metadata', kexec_metadata: metadata },
    khoTest && { name: 'kho_test', kho_test: khoTest },
    luo && { name: 'LUO', luo },
    regions.length > 0 ? { name: 'memblock', memblock: { reserve_mem: { entries: regions } } } : undefined,
  ]
  const others = (scenario.subtrees ?? []).map((subtree, index) =>
    subtreeOf(subtree, machine, memory, ['subtrees', { index }], context),
  )
  checkNames(scenario.subtrees ?? [], context)
  const registered = [...own, ...others].filter((subtree) => subtree !== undefined)
  const style = rootStyle(machine)
  const document: HandoverDocument = {
    schema: HANDOVER_SCHEMA,
    page_size: machine.target.pageSize,
    arch: machine.arch,
    versions: machine.versions,
    ram: ram.ranges.map(({ start, end }) => ({ start, size: end - start })),
    reserved: [{ start: ram.firmware.start, size: ram.firmware.end - ram.firmware.start }],
    scratch,
    root: { style },
    // fdt_add_subnode() puts the newest first.
    subtrees: style === 'edited' ? registered.toReversed() : registered,
    preserved: { ranges },
    contents: memory.contents,
  }
  return { document, origins }
}

/** How the release puts its root FDT together. */
function rootStyle(machine: ScenarioMachine): FdtStyle {
  const root = versionOf(machine, 'kho')?.root
  const usual = root?.kind === 'fdt-node' ? root.style : undefined
  return machine.release?.rootStyle ?? usual ?? 'sequential'
}

function luoOf(
  scenario: Scenario,
  machine: ScenarioMachine,
  context: ContentContext,
): { readonly luo: Luo | undefined; readonly origins: readonly SessionOrigin[] } {
  const { sessions, origins } = new SessionBuilder(machine, context).build(scenario.sessions ?? [])
  const flbs = flbsOf(scenario, machine, sessions, context)
  const isOff = scenario.liveupdate === false
  for (const key of ['sessions', 'flbs', 'liveupdate_number'] as const) {
    if (!isOff || scenario[key] === undefined) continue
    context.report.wrong([key], 'expected none of them: liveupdate is false')
  }
  if (isOff || machine.versions.luo === undefined) return { luo: undefined, origins }
  const luo = {
    liveupdate_num: scenario.liveupdate_number ?? 1n,
    ...(sessions.length > 0 && { sessions: { entries: sessions } }),
    ...(flbs && { flbs: { entries: flbs } }),
  }
  return { luo, origins }
}

function kexecMetadataOf(
  { kexec_metadata: said }: Scenario,
  machine: ScenarioMachine,
  context: ContentContext,
): Subtree['kexec_metadata'] {
  const version = versionOf(machine, 'kexec-metadata')
  const path: Path = ['kexec_metadata']
  if (version?.root.kind !== 'struct') {
    if (said) {
      const those = releasesThatHave((versions) => versions['kexec-metadata'] !== undefined)
      context.report.absent(path, `${machine.label} has no kexec-metadata; expected one of ${those}`)
    }
    return undefined
  }
  const named = `${(machine.release?.name ?? 'linux-unknown').slice('linux-'.length)}.0`
  const release = said?.previous_release ?? machine.update ?? named
  const limit = textLimit(version.root, 'previous_release')
  checkText(release, limit, 'the release', [...path, 'previous_release'], context)
  return { previous_release: release, kexec_count: said?.count ?? 1 }
}

function subtreeOf(
  { name, fdt, bytes }: ScenarioSubtree,
  machine: ScenarioMachine,
  memory: MemoryBuilder,
  path: Path,
  context: ContentContext,
): Subtree | undefined {
  if (fdt) {
    const tree = nodeOf('', fdt)
    if (buildFdt(tree, 'sequential', machine.target.pageSize)) return { name, fdt: tree }
    return context.report.wrong(
      [...path, 'fdt'],
      'the FDT does not fit into one page; expected a smaller one',
    )
  }
  const version = versionOf(machine, 'kho')
  if (!takesBytes(version)) {
    return context.report.absent([...path, 'bytes'], `a blob of ${version?.id} is an FDT; expected fdt`)
  }
  const place = { length: undefined, into: 'the blob' }
  const content = contentOf(bytes, place, [...path, 'bytes'], context)
  if (!content) return undefined
  const { length, fill } = contentSource(content)
  if (length === 0n) return context.report.wrong([...path, 'bytes'], 'no bytes; expected at least one')
  if (length > Number.MAX_SAFE_INTEGER) return context.report.wrong([...path, 'bytes'], `${length} bytes`)
  if (!memory.checkBlob(Number(length), [...path, 'bytes'])) return undefined
  const blob = new Uint8Array(Number(length))
  fill(0n, blob)
  return { name, bytes: blob, order: orderOf(blob.length, machine.target.pageSize) }
}

/** Whether the version stores the length of a blob, so that it can be something else than an FDT. */
function takesBytes(version: ComponentVersion | undefined): boolean {
  if (version?.root.kind !== 'fdt-node') return false
  const properties: readonly PropertyType[] = Object.values(version.root.each?.node.properties ?? {})
  return properties.some(
    (type) => type.kind === 'int' && type.to?.kind === 'blob' && type.to.size !== undefined,
  )
}

function checkNames(subtrees: readonly ScenarioSubtree[], { report }: ContentContext): void {
  const seen = new Set<string>()
  for (const [index, { name }] of subtrees.entries()) {
    const path = ['subtrees', { index }, 'name']
    if (!/^[!-.0-~]{1,255}$/.test(name)) {
      report.wrong(path, `${JSON.stringify(name)}; expected a name of visible characters without a slash`)
    } else if (componentOfSubtree(name)) {
      report.wrong(path, `${name} is a subsystem known here; expected the scenario to say what it holds`)
    } else if (seen.has(name)) report.wrong(path, `the name ${name} is there twice; expected another one`)
    seen.add(name)
  }
}

function nodeOf(name: string, { properties, children }: ScenarioNode): FdtTree {
  return {
    name,
    properties: [...(properties ?? [])].map(([property, value]) => ({
      name: property,
      value: propertyBytes(value),
    })),
    children: [...(children ?? [])].map(([child, node]) => nodeOf(child, node)),
  }
}

/** Integers as the kernel's own code stores them: in the order of the processor. */
function propertyBytes({ u32, u64, hex, texts }: ScenarioProperty): Uint8Array {
  if (hex) return hex
  if (texts) return textBytes(texts.map((text) => `${text}\0`).join(''))
  const view = new DataView(new ArrayBuffer(u32 === undefined ? 8 : 4))
  if (u32 === undefined) view.setBigUint64(0, u64 ?? 0n, true)
  else view.setUint32(0, u32, true)
  return new Uint8Array(view.buffer)
}
