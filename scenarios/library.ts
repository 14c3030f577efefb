/** The scenarios that come with the kit. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseScenario, SCENARIO_SUFFIX, type Scenario } from '../conformance/scenario.ts';

const isScenario = (file: string): boolean => file.endsWith(SCENARIO_SUFFIX);

/** As a source this file stands beside them; built, two or three folders below the root of the package. */
const here = dirname(fileURLToPath(import.meta.url));
const FOLDER = [here, join(here, '../../scenarios'), join(here, '../../../scenarios')].find(
  (folder) => existsSync(folder) && readdirSync(folder).some(isScenario),
);

function folder(): string {
  if (FOLDER === undefined) throw new Error('scenarios are missing from the installation');
  return FOLDER;
}

/** Names of all, in order. */
export const scenarioNames = (): readonly string[] =>
  readdirSync(folder())
    .filter(isScenario)
    .map((file) => file.slice(0, -SCENARIO_SUFFIX.length))
    .toSorted();

export const scenarioFile = (name: string): string => join(folder(), `${name}${SCENARIO_SUFFIX}`);

export const scenarioText = (name: string): string => readFileSync(scenarioFile(name), 'utf8');

export const scenarioByName = (name: string): Scenario =>
  parseScenario(scenarioText(name), `scenarios/${name}${SCENARIO_SUFFIX}`);
