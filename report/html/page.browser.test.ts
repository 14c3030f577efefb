import { afterAll, beforeAll, expect, test } from '@jest/globals';
import axe, { type AxeResults } from 'axe-core';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core';
import { browserSuite } from '../../properties/browser.ts';
import { conformingReport, divergingReport, scenarioFailure } from '../../properties/reports.ts';
import type { Report } from '../json.ts';
import { printHtml } from './page.ts';

const SCENARIOS = ['poisoned-frame-is-not-reused', 'conversion-changes-worlds', 'punched-page-leaves-the-host'];
/** Wider than any page: it must break, or scroll in a box of its own. */
const LONG = 'x'.repeat(500);

browserSuite('the page in a browser', (executablePath) => {
  let folder: string;
  let browser: Browser;
  let reports: Readonly<Record<'conforms' | 'diverges' | 'inconclusive', Report>>;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'gmem-page-'));
    browser = await chromium.launch({ executablePath });
    const conforms = await conformingReport();
    const known = { id: 'odd', rule: 'vm.create/created', programs: 3, observed: LONG, reason: LONG, source: LONG };
    const runs = conforms.runs.map((run) => ({ ...run, verdict: 'inconclusive' as const, reason: LONG }));
    reports = {
      conforms,
      diverges: divergingReport(conforms, await Promise.all(SCENARIOS.map(scenarioFailure))),
      inconclusive: {
        ...conforms,
        target: LONG,
        verdict: 'inconclusive',
        runs: [...runs, ...runs],
        skipped: [{ capability: LONG, reason: LONG }],
        knownDivergences: [
          { ...known, status: 'reproduced' },
          { ...known, status: 'changed', note: LONG },
        ],
      },
    };
    for (const [name, report] of Object.entries(reports))
      writeFileSync(join(folder, `${name}.html`), printHtml(report));
  });

  afterAll(async () => {
    await browser.close();
    rmSync(folder, { recursive: true });
  });

  /** The page, and what it asked for and complained of. */
  async function open(name: keyof typeof reports, options: BrowserContextOptions = {}) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    const complaints: string[] = [];
    const requests: string[] = [];
    page.on('console', (message) => complaints.push(message.text()));
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('request', (request) => requests.push(request.url()));
    const { href } = pathToFileURL(join(folder, `${name}.html`));
    await page.goto(href);
    return { page, complaints, requests, href };
  }

  const expectToFit = async (page: Page, width: number): Promise<void> => {
    await page.setViewportSize({ width, height: 800 });
    expect(await page.evaluate<number>('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
  };

  const openAll = (page: Page): Promise<unknown> =>
    page.evaluate('for (const details of document.querySelectorAll("details")) details.open = true');

  test.each([
    ['conforms', 'light'],
    ['diverges', 'light'],
    ['diverges', 'dark'],
    ['inconclusive', 'dark'],
  ] as const)('%s, %s: is accessible, fits, asks for nothing and complains of nothing', async (name, colorScheme) => {
    const { page, complaints, requests, href } = await open(name, { colorScheme });
    await openAll(page);
    await expectToFit(page, 1280);
    await expectToFit(page, 360);
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate<AxeResults>('axe.run({ resultTypes: ["violations"] })');
    expect(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)])).toEqual([]);
    expect(complaints).toEqual([]);
    expect(requests).toEqual([href]);
  });

  test('moves through the timeline by keys, buttons and lines, from where expectation and observation part', async () => {
    const { page } = await open('diverges');
    const { steps = [], at = 0 } = reports.diverges.failures[0] ?? {};
    const shown = (): Promise<string | null> => page.locator('#d1 .step:visible').getAttribute('id');
    expect(await shown()).toBe(`d1-${at + 1}`);
    await page.keyboard.press('ArrowLeft');
    expect(await shown()).toBe(`d1-${at}`);
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    expect(await shown()).toBe(`d1-${at + 1}`);
    await page
      .locator('#d1')
      .getByRole('link', { name: steps[0]?.command ?? '' })
      .click();
    expect(await shown()).toBe('d1-1');
    expect(await page.locator('#d1').getByRole('button', { name: 'Previous' }).isDisabled()).toBe(true);
    await page.locator('#d1').getByRole('button', { name: 'Next' }).click();
    expect(await shown()).toBe('d1-2');
    expect(await page.locator('#d1 output').textContent()).toBe(`Command 2 of ${steps.length}`);
    await page.getByLabel('Find').press('ArrowLeft');
    expect(await shown()).toBe('d1-2');
  });

  test('moves through the divergence that is being read', async () => {
    const { page } = await open('diverges');
    const [first, second] = reports.diverges.failures.map(({ at }) => at);
    await page.locator('#d2 summary').click();
    await page.keyboard.press('ArrowLeft');
    expect(await page.locator('#d1 .step:visible h4').textContent()).toMatch(new RegExp(`^${Number(first) + 1} `));
    expect(await page.locator('#d2 .step:visible h4').textContent()).toMatch(new RegExp(`^${Number(second)} `));
  });

  test('finds rules by words and by how far they were reached', async () => {
    const { page } = await open('conforms');
    await page.getByLabel('Find').fill('gmem.create ebadf');
    expect(await page.locator('[data-reach]:visible th').allTextContents()).toEqual(['gmem.create/bad-descriptor']);
    await page.getByLabel('Find').fill('');
    await page.getByLabel('Show').selectOption('missed');
    const missed = reports.conforms.rules.filter(({ hits, outOfReach }) => hits === 0 && outOfReach === undefined);
    expect(await page.locator('[data-reach]:visible').count()).toBe(missed.length);
    expect(await page.locator('.filter output').textContent()).toBe(`${missed.length} shown`);
  });

  test('copies the program, or selects it to be copied', async () => {
    const { page } = await open('diverges');
    await page.locator('#d1').getByRole('button', { name: 'Copy the program' }).click();
    expect(await page.evaluate<string>('getSelection().toString()')).toContain('vm.create vm=vm0 dev=kvm type=0');
  });

  test('saves the report', async () => {
    const { page } = await open('diverges');
    const download = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Save it' }).click();
    expect((await download).suggestedFilename()).toBe('report.json');
  });

  const ran = (): number => (reports.diverges.failures[0]?.at ?? 0) + 1;

  test('shows every step where scripts do not run', async () => {
    const { page, complaints } = await open('diverges', { javaScriptEnabled: false });
    expect(await page.locator('#d1 .step:visible').count()).toBe(ran());
    expect(await page.locator('button:visible').count()).toBe(0);
    expect(complaints).toEqual([]);
  });

  test('shows every step on paper', async () => {
    const { page } = await open('diverges');
    await page.emulateMedia({ media: 'print' });
    expect(await page.locator('#d1 .step:visible').count()).toBe(ran());
  });
});
