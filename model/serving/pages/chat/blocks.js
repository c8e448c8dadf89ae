// Markdown of several lines: headings, lists, tables, quotes, code. Parsing takes linear time.

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\s]{0,60})[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)/;
const QUOTE = /^ {0,3}> ?/;
const DIVIDER = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const DEEPEST = 12; // lists and quotes within each other
const MOST_COLUMNS = 64;

/**
 * Return the blocks of some lines.
 *
 * Each has `type`, `from` and `to`, the lines that it takes; and by type `lines`, `text`, `level`, `language`, `isOpen`,
 * `items` (each with `from` and `blocks`), `ordered`, `start`, `isLoose`, `blocks`, `alignments`, `rows`.
 */
export function blocks(lines, depth = 0) {
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (isBlank(lines[at])) {
      at++;
      continue;
    }
    const block = blockAt(lines, at, depth);
    block.from = at;
    at = block.to;
    found.push(block);
  }
  return found;
}

export function isBlank(line) {
  return line.trim() === "";
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return fenced(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { type: "heading", level: heading[1].length, text: headingText(line.slice(heading[0].length)), to: at + 1 };
  if (RULE.test(line)) return { type: "rule", to: at + 1 };
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  const columns = tableColumns(lines, at);
  if (columns) return table(lines, at, columns);
  return paragraph(lines, at);
}

function headingText(text) {
  const trimmed = text.trim();
  let end = trimmed.length;
  while (trimmed[end - 1] === "#") end--;
  return end === 0 || /\s/.test(trimmed[end - 1] ?? "") ? trimmed.slice(0, end).trim() : trimmed;
}

/** Return whether a line ends the paragraph before it. */
function interrupts(lines, at) {
  const line = lines[at];
  const item = ITEM.exec(line);
  return (
    FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
    (item !== null && item[0].length < line.length && (!/\d/.test(item[2]) || /^1[.)]$/.test(item[2]))) ||
    tableColumns(lines, at) !== null
  );
}

function paragraph(lines, at) {
  let to = at + 1;
  while (to < lines.length && !isBlank(lines[to]) && !interrupts(lines, to)) to++;
  return { type: "paragraph", text: lines.slice(at, to).map((line) => line.trim()).join("\n"), to };
}

/** Return whether a line closes code that a line such as ``` opened. */
export function closes(line, mark) {
  const trimmed = line.trim();
  if (trimmed.length < mark.length || trimmed[0] !== mark[0] || indent(line) > 3) return false;
  for (const character of trimmed) if (character !== mark[0]) return false;
  return true;
}

function fenced(lines, at, [opening, mark, language]) {
  const skipped = indent(opening);
  let to = at + 1;
  while (to < lines.length && !closes(lines[to], mark)) to++;
  const isOpen = to === lines.length;
  const inner = lines.slice(at + 1, to).map((line) => line.slice(Math.min(skipped, indent(line))));
  return { type: "code", mark, language, skipped, lines: inner, isOpen, to: isOpen ? to : to + 1 };
}

function quote(lines, at, depth) {
  let to = at;
  const inner = [];
  while (to < lines.length && QUOTE.test(lines[to])) inner.push(lines[to++].replace(QUOTE, ""));
  return { type: "quote", blocks: blocks(inner, depth + 1), to };
}

export function indent(line) {
  let count = 0;
  while (line[count] === " ") count++;
  return count;
}

function list(lines, at, depth) {
  const [, , first] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first);
  const items = [];
  let isLoose = false;
  let to = at;
  for (let next = at; next < lines.length; ) {
    const found = ITEM.exec(lines[next]);
    if (!found || /\d/.test(found[2]) !== ordered || RULE.test(lines[next])) break;
    isLoose ||= items.length > 0 && next > to;
    const item = listItem(lines, next, found, depth);
    items.push(item);
    isLoose ||= item.isLoose;
    to = next = item.to;
    while (next < lines.length && isBlank(lines[next])) next++;
  }
  return { type: "list", ordered, start: ordered ? parseInt(first, 10) : 1, items, isLoose, to };
}

function listItem(lines, from, [opening, margin, mark, gap], depth) {
  const width = margin.length + mark.length + (gap.length > 4 || !gap ? 1 : gap.length);
  const inner = [lines[from].slice(Math.min(width, opening.length))];
  let isLoose = false;
  let to = from + 1;
  for (let next = to; next < lines.length; ) {
    const line = lines[next];
    if (isBlank(line)) {
      next++;
      continue;
    }
    const inside = indent(line) >= Math.min(width, margin.length + 2);
    const isNew = ITEM.test(line) || interrupts(lines, next);
    if (!inside && (next > to || isNew)) break;
    if (next > to) {
      isLoose ||= !ITEM.test(line.trimStart());
      for (let blank = to; blank < next; blank++) inner.push("");
    }
    inner.push(inside ? line.slice(Math.min(width, indent(line))) : line.trimStart());
    to = ++next;
  }
  return { from, to, isLoose, blocks: blocks(inner, depth + 1) };
}

/** Return the alignments of the table that begins at a line; null if none does. */
function tableColumns(lines, at) {
  if (at + 1 >= lines.length || !lines[at].includes("|") || !lines[at + 1].includes("-")) return null;
  if (lines[at + 1].length > 5000 || !DIVIDER.test(lines[at + 1])) return null;
  const [names, dividers] = [cells(lines[at]), cells(lines[at + 1])];
  if (names.length !== dividers.length || names.length > MOST_COLUMNS) return null;
  return dividers.map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left"));
}

function table(lines, at, alignments) {
  let to = at + 2;
  while (to < lines.length && lines[to].includes("|") && !isBlank(lines[to])) to++;
  const rows = lines.slice(at + 2, to).map((line) => {
    const row = cells(line).slice(0, alignments.length);
    return [...row, ...Array(alignments.length - row.length).fill("")];
  });
  return { type: "table", alignments, names: cells(lines[at]), rows, to };
}

/** Split the row of a table. A bar that is escaped, or in code, is text. */
function cells(line) {
  const row = line.trim();
  const found = [];
  let cell = "";
  let isCode = false;
  for (let at = row[0] === "|" ? 1 : 0; at < row.length; at++) {
    const character = row[at];
    if (character === "\\" && row[at + 1] === "|") {
      cell += "|";
      at++;
    } else if (character === "|" && !isCode) {
      found.push(cell.trim());
      cell = "";
    } else {
      if (character === "`") isCode = !isCode && row.indexOf("`", at + 1) > 0;
      cell += character;
    }
  }
  if (cell.trim()) found.push(cell.trim());
  return found;
}
