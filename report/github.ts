/**
 * Workflow commands of GitHub Actions, which become annotations of a job: an error for each case that failed or came to
 * nothing, a warning for each known divergence that nobody has explained, and one notice that sums up. They name no file: a
 * report speaks of programs and of kernel sources, and neither need be in the repository of the workflow.
 */
import type { Tests } from './cases.ts';
import { field, oneLine, printable } from './text.ts';

export function printGithub({ verdict, summary: subject, suites, unexplained }: Tests): string {
  const cases = suites.flatMap((suite) => suite.cases);
  const wrong = cases.filter(({ status }) => status === 'failed' || status === 'error');
  const lines = [
    ...wrong.map(({ name, summary, detail }) =>
      command('error', name, detail === '' ? [summary] : [summary, '', detail]),
    ),
    ...unexplained.map(([id, observed]) => command('warning', id, ['nobody has explained it', `observed ${observed}`])),
    command(
      'notice',
      verdict,
      subject.map(([name, value]) => field(name, value)),
    ),
  ];
  return `${lines.join('\n')}\n`;
}

const command = (level: 'error' | 'warning' | 'notice', title: string, message: readonly string[]): string =>
  `::${level} title=${property(`gmem-conformance: ${title}`)}::${data(message.join('\n'))}`;

const data = (text: string): string => encode(printable(text), /[%\r\n]/g);

const property = (text: string): string => encode(oneLine(text), /[%:,]/g);

const encode = (text: string, characters: RegExp): string =>
  text.replace(characters, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);
