/** The package's own version. */
import { readFileSync } from 'node:fs'

/** The compiled file lies one level deeper than the source. */
const PLACES = ['../package.json', '../../package.json']

export function packageVersion(): string {
  for (const place of PLACES) {
    try {
      return JSON.parse(readFileSync(new URL(place, import.meta.url), 'utf8')).version
    } catch {}
  }
  return 'unknown'
}
