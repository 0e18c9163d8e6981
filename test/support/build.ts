/**
 * Builds dist/ once before the tests, so that those that run the CLI run what is in the tree. Types are
 * checked by `npm run types`, not here.
 */
import { execFileSync } from 'node:child_process'
import { ROOT } from './images.ts'

export function setup(): void {
  execFileSync('npm', ['run', '--silent', 'build', '--', '--noCheck'], { cwd: ROOT, stdio: 'inherit' })
}
