/** `npm run docs`: writes the documents that are made from the code. */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, getFileInfo, resolveConfig } from 'prettier';
import { DOCUMENTS } from './documents.ts';

for (const { path, text } of DOCUMENTS) {
  const file = fileURLToPath(new URL(`../${path}`, import.meta.url));
  const { ignored } = await getFileInfo(file, { ignorePath: '.prettierignore' });
  const content = ignored ? text() : await format(text(), { ...(await resolveConfig(file)), filepath: file });
  writeFileSync(file, content);
  console.log(`wrote ${path}`);
}
