/** A report as one HTML file that loads nothing: it can be opened from a disk or from a mail. */
import { createHash } from 'node:crypto';
import type { Report } from '../json.ts';
import { divergences } from './divergence.ts';
import { html, Html, jsonForScript } from './html.ts';
import { SCRIPT } from './script.ts';
import { header, invariants, known, rules, subject, unchecked } from './sections.ts';
import { STYLE } from './style.ts';

const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;

/** Nothing is loaded, and only the script and the style below are run: what a target says cannot become either. */
const POLICY = [
  "default-src 'none'",
  `script-src ${hashOf(SCRIPT)}`,
  `style-src ${hashOf(STYLE)}`,
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

export const printHtml = (report: Report): string =>
  html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${new Html(POLICY)}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="referrer" content="no-referrer" />
        <title>${report.verdict}: ${report.target} against ${report.profile}</title>
        ${new Html(`<style>${STYLE}</style>`)}
      </head>
      <body>
        ${header(report)}
        <main>
          ${subject(report)}${divergences(report)}${known(report)}${invariants(report)}${rules(report)}${unchecked(report)}
        </main>
        <footer>
          <p>
            Written by gmem-conformance ${report.version}. This file loads nothing. The whole report is in it, as JSON.
            <button type="button" data-save="report.json" hidden>Save it</button>
          </p>
        </footer>
        <script type="application/json" id="report">
          ${jsonForScript(report)}
        </script>
        ${new Html(`<script>${SCRIPT}</script>`)}
      </body>
    </html> `.markup;
