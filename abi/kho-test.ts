/**
 * kho_test: what the kernel's own KHO test module leaves. Two forms carry the same string.
 *
 * Source: lib/test_kho.c (Linux 6.17 and later).
 */
import { vmallocOf } from './kho-vmalloc.ts'
import type { PropertyType } from './schema.ts'
import { compatible, fdtNode, inlineArray, u32le, u64le } from './schema.ts'

const KHO_TEST_MAGIC = 0x4b484f21
const source = 'lib/test_kho.c'

const folioInfo = u64le('Physical address of the folio, its order in the low bits.', {
  show: 'hex',
  measures: 'address-order',
})

function test(foliosInfo: PropertyType) {
  return fdtNode({
    doc: 'State of the KHO test module.',
    source,
    slack: { count: 'nr_folios', bytes: 8 },
    properties: {
      compatible: compatible('kho-test-v1'),
      magic: u32le('KHO_TEST_MAGIC.', { show: 'hex', only: KHO_TEST_MAGIC }),
    },
    children: {
      data: fdtNode({
        doc: 'The preserved folios.',
        source,
        properties: {
          nr_folios: u32le('Number of folios.', { ctype: 'unsigned int' }),
          folios_info: foliosInfo,
          csum: u32le('Running csum_partial() over all folios, not folded.', {
            show: 'hex',
            ctype: '__wsum',
          }),
        },
      }),
    },
  })
}

/** Linux 6.17. */
export const khoTestV1Inline = test(inlineArray(folioInfo, 'nr_folios', 'Address | order of each folio.'))
/** Linux 6.18 and later. */
export const khoTestV1 = test(vmallocOf(folioInfo, { item: 'folio', count: 'nr_folios' }))
