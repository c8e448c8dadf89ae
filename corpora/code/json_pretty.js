#!/usr/bin/env node
'use strict';

// Pretty-print JSON from standard input: short arrays and objects stay on
// one line, long ones are broken, keys can be sorted.
//
//   json_pretty.js [--width N] [--indent N] [--sort]

const { parseArgs } = require('node:util');

const DEFAULTS = { width: 80, indent: 2, sort: false };

/** Write a value on one line, with a blank after each comma and colon. */
function flat(value, options) {
  if (Array.isArray(value)) {
    return `[${value.map((item) => flat(item, options)).join(', ')}]`;
  }
  if (value !== null && typeof value === 'object') {
    const parts = entries(value, options).map(
      ([key, item]) => `${JSON.stringify(key)}: ${flat(item, options)}`
    );
    return parts.length ? `{ ${parts.join(', ')} }` : '{}';
  }
  return JSON.stringify(value);
}

function entries(object, { sort }) {
  const pairs = Object.entries(object);
  if (sort) {
    pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  }
  return pairs;
}

/**
 * Write a value, broken over several lines where it would not fit.
 *
 * @param {*} value      what JSON.parse returned
 * @param {object} options  see DEFAULTS
 * @param {number} depth    how deeply the value is nested
 * @param {number} used     columns already taken on the current line
 */
function pretty(value, options = DEFAULTS, depth = 0, used = 0) {
  const line = flat(value, options);
  const compound = value !== null && typeof value === 'object';
  if (!compound || line.length + used <= options.width || line.length <= 2) {
    return line;
  }

  const inner = ' '.repeat(options.indent * (depth + 1));
  const outer = ' '.repeat(options.indent * depth);
  const isArray = Array.isArray(value);

  const lines = isArray
    ? value.map((item) => inner + pretty(item, options, depth + 1, inner.length + 1))
    : entries(value, options).map(([key, item]) => {
        const head = `${inner}${JSON.stringify(key)}: `;
        return head + pretty(item, options, depth + 1, head.length + 1);
      });

  const [open, close] = isArray ? '[]' : '{}';
  return `${open}\n${lines.join(',\n')}\n${outer}${close}`;
}

async function readAll(stream) {
  stream.setEncoding('utf8');
  let text = '';
  for await (const chunk of stream) {
    text += chunk;
  }
  return text;
}

async function main() {
  const { values } = parseArgs({
    options: {
      width: { type: 'string', default: String(DEFAULTS.width) },
      indent: { type: 'string', default: String(DEFAULTS.indent) },
      sort: { type: 'boolean', default: DEFAULTS.sort },
    },
  });
  const options = {
    width: Number.parseInt(values.width, 10),
    indent: Number.parseInt(values.indent, 10),
    sort: values.sort,
  };

  try {
    console.log(pretty(JSON.parse(await readAll(process.stdin)), options));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    console.error(`not valid JSON: ${error.message}`);
    process.exitCode = 1;
  }
}

if (require.main === module) {
  main();
}

module.exports = { flat, pretty };
