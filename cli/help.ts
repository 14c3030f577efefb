const EXIT_STATUS_HELP = `
Exit status:
  0  the target conforms
  1  the target diverges
  2  bad usage or input
  3  inconclusive, or the target is not available
  4  a defect of the kit itself`;

/** Examples and exit status, shown below the options of a subcommand. */
export const helpWith = (examples: readonly string[], status = EXIT_STATUS_HELP): string =>
  `\nExamples:\n${examples.map((line) => `  $ gmem-conformance ${line}\n`).join('')}${status}`;
