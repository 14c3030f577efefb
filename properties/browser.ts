/** What tests in a browser share. */
import { describe } from '@jest/globals';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { env, stderr } from 'node:process';

const isExecutable = (file: string): boolean => {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

const findBrowser = (): string | undefined =>
  (env['PATH'] ?? '')
    .split(delimiter)
    .flatMap((folder) => ['chromium', 'chromium-browser', 'google-chrome'].map((name) => join(folder, name)))
    .find(isExecutable);

/** A suite in Chromium, given its path; where there is none, it is skipped, and the reason printed. */
export function browserSuite(title: string, body: (executablePath: string) => void): void {
  const browser = findBrowser();
  if (browser !== undefined) {
    describe(title, () => body(browser));
    return;
  }
  stderr.write(`skipped: ${title}: no Chromium here; apt-get install chromium\n`);
  describe.skip(title, () => body(''));
}
