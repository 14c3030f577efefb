import { Option, type Command } from 'commander';
import { modelHash } from '../conformance/model-hash.ts';
import { EXIT_STATUS } from '../conformance/verdict.ts';
import { DEFAULT_PROFILE } from '../model/core/profile.ts';
import { VERSION } from '../report/installation.ts';
import { rulesMarkdown } from '../report/rules-markdown.ts';
import { printRules } from '../report/tables.ts';
import { helpWith } from './help.ts';
import { specify } from './options.ts';
import { assertWritable, jsonText, tellBeside, TERMINAL_WIDTH, writeResult } from './output.ts';

interface RulesOptions {
  readonly profile?: string;
  readonly markdown?: true;
  readonly json?: string;
}

const RULES_SCHEMA = 'gmem-conformance-rules/1';

const STATUS = `
Exit status:
  0  the rules were shown
  2  bad usage
  4  a defect of the kit itself`;

export const addRules = (program: Command): Command =>
  program
    .command('rules')
    .summary('list every rule of the specification')
    .description(
      'Lists every rule with its condition, its result and its source. Rules of one command are tried from top to ' +
        'bottom, and the first whose condition holds decides.',
    )
    .option('--profile <name>', `whose rules to list (default: ${DEFAULT_PROFILE})`)
    .addOption(
      new Option('--markdown', 'print docs/rules.md, which covers all profiles').conflicts(['profile', 'json']),
    )
    .option('--json <file>', 'write the rules there as well; - for standard output')
    .addHelpText('after', helpWith(['rules --profile linux-6.18', 'rules --markdown > docs/rules.md'], STATUS))
    .action((options: RulesOptions) => {
      process.exitCode = rules(options);
    });

function rules({ profile = DEFAULT_PROFILE, markdown, json }: RulesOptions): number {
  if (markdown === true) {
    process.stdout.write(rulesMarkdown());
    return EXIT_STATUS.conforms;
  }
  assertWritable(json);
  const all = specify(profile).rules();
  writeResult(json, jsonText({ schema: RULES_SCHEMA, version: VERSION, modelHash: modelHash(), profile, rules: all }));
  tellBeside(json)(printRules(all, TERMINAL_WIDTH));
  return EXIT_STATUS.conforms;
}
