/** The scenarios that come with the kit. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseScenario, SCENARIO_SUFFIX, type Scenario } from '../conformance/scenario.ts';
import { ROOT } from '../report/installation.ts';

const FOLDER = join(ROOT, 'scenarios');

/** Names of all, in order. */
export const scenarioNames = (): readonly string[] =>
  readdirSync(FOLDER)
    .filter((file) => file.endsWith(SCENARIO_SUFFIX))
    .map((file) => file.slice(0, -SCENARIO_SUFFIX.length))
    .toSorted();

export const scenarioFile = (name: string): string => join(FOLDER, `${name}${SCENARIO_SUFFIX}`);

export const scenarioText = (name: string): string => readFileSync(scenarioFile(name), 'utf8');

export const scenarioByName = (name: string): Scenario =>
  parseScenario(scenarioText(name), `scenarios/${name}${SCENARIO_SUFFIX}`);
