/** How the page looks. Colour never stands alone: signs, words, borders and hatching say the same. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #fff; --raised: #f6f7f9; --line: #d5dae0; --text: #1b1f24; --quiet: #57606a; --link: #0a53a8;
  --good: #116329; --bad: #a61b1b; --doubt: #7a4b00;
  --bad-ground: #fdecea; --new: #0a53a8;
  --binding: #dceafb; --page: #e8ebee; --shared: #dcf2e1; --private: #ece1f9; --poison: #fbdcd9; --hatch: #00000014;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --raised: #1d2125; --line: #3a4149; --text: #e4e7ea; --quiet: #a3abb4; --link: #7db8fa;
    --good: #74d08f; --bad: #ff9a90; --doubt: #e6b94f;
    --bad-ground: #3a1d1b; --new: #7db8fa;
    --binding: #1c3553; --page: #30363d; --shared: #1a3d26; --private: #38284f; --poison: #55231f; --hatch: #ffffff14;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1.5rem clamp(0.9rem, 3vw, 2.5rem);
  background: var(--ground); color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
code, pre { font-family: ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 0.875em; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
h1 { font-size: 1.5rem; line-height: 1.3; margin: 0.2rem 0 0.6rem; font-weight: 400; }
h1 code { font-size: 0.85em; font-weight: 400; }
h2 { font-size: 1.25rem; margin: 0 0 0.5rem; }
h3 { font-size: 1.05rem; margin: 0; }
h4 { font-size: 1rem; margin: 1.25rem 0 0.5rem; }
h5 { font-size: 0.95rem; margin: 1rem 0 0.25rem; }
h5 .quiet { font-weight: 400; }
p { margin: 0.4rem 0; max-width: 48rem; }
section { margin-top: 2.25rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
cite { font-style: normal; font-size: 0.875em; color: var(--quiet); }
.quiet { color: var(--quiet); font-size: 0.9rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.verdict { display: inline-block; padding: 0 0.6rem; border: 2px solid; border-radius: 0.3rem; margin-right: 0.3rem; font-weight: 700; }
.conforms, .held, .exercised, .reproduced { color: var(--good); }
.diverges, .broken, .stale, .changed, .new { color: var(--bad); }
.inconclusive, .missed, .conceded { color: var(--doubt); }
.not-observable, .not-evaluated, .out, .not-applicable { color: var(--quiet); }
.note { border-left: 3px solid; padding-left: 0.75rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; margin: 0.75rem 0 0; padding: 0; list-style: none; }

table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; font-size: 0.925rem; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--quiet); font-size: 0.85rem; white-space: nowrap; }
td cite, th cite { display: block; }
.result { font-weight: 600; }
td.status { min-width: 5.5rem; }
dl { margin: 0.5rem 0; }
dd { margin: 0; }
dt { color: var(--quiet); font-size: 0.9rem; }
dl.facts > div { display: grid; grid-template-columns: 8.5rem minmax(0, 1fr); gap: 0 0.75rem; padding: 0.15rem 0; }
details { border: 1px solid var(--line); border-radius: 0.4rem; margin: 0.6rem 0; padding: 0 0.9rem; }
details[open] { padding-bottom: 0.6rem; }
summary { cursor: pointer; padding: 0.5rem 0; }
summary h3 { display: inline; }
h3.system { margin: 1.25rem 0 0.25rem; }
h3.system span { font-weight: 400; font-size: 1rem; }
details.command { border-width: 0 0 1px; border-radius: 0; margin: 0; padding: 0; }
details.command h4 { font-weight: 400; display: inline-block; margin: 0; min-width: 10rem; }
.command summary { padding: 0.3rem 0; }
meter { width: 5rem; vertical-align: middle; margin: 0 0.4rem; }
.filter { display: flex; flex-wrap: wrap; gap: 0.5rem 1.25rem; align-items: center; margin: 0.75rem 0; }
.filter[hidden], .controls[hidden] { display: none; }
input, select, button { font: inherit; font-size: 0.925rem; color: inherit; background: var(--raised); border: 1px solid var(--quiet); border-radius: 0.3rem; padding: 0.2rem 0.6rem; max-width: 100%; }
button { cursor: pointer; }
button:disabled { opacity: 0.5; cursor: default; }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: 0.3rem; padding: 0.6rem 0.75rem; margin: 0.3rem 0 0.9rem; overflow-x: auto; max-height: 22rem; }
#report { display: none; }
[id$='-replay'] { white-space: pre-wrap; overflow-wrap: anywhere; }
article.known { margin: 1rem 0 1.5rem; }
article.known .status { font-size: 0.9rem; font-weight: 400; margin-left: 0.5rem; }

.scroll { overflow-x: auto; max-width: 100%; }
.witness { overflow-wrap: normal; }
.witness td { white-space: nowrap; }
.witness td:nth-child(2) { white-space: normal; min-width: 16rem; }
.witness a { text-decoration: none; }
.witness a:hover { text-decoration: underline; }
.witness .parting td { background: var(--bad-ground); }
.witness .parting td:first-child { box-shadow: inset 3px 0 var(--bad); }
.witness td:first-child { padding-left: 0.6rem; color: var(--quiet); }
.witness a[aria-current] { font-weight: 700; text-decoration: underline; }
.controls { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin: 0.75rem 0; }
.controls output { font-weight: 600; margin: 0 0.5rem; min-width: 9.5rem; }
.steps { list-style: none; margin: 0; padding: 0; }
.step { border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.7rem 0.9rem; margin: 0.6rem 0; }
.step.parting { border: 2px solid var(--bad); }
.step h4 { margin: 0; font-weight: 600; }
.here { color: var(--bad); font-weight: 600; }
.pair { display: flex; flex-wrap: wrap; gap: 0.3rem 2.5rem; }
.parting .pair dd { font-weight: 600; }
.remarks { margin: 0.4rem 0; padding-left: 1.2rem; font-size: 0.925rem; }

.panels { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.worlds { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0 1.5rem; }
.lanes { width: auto; border-collapse: separate; border-spacing: 2px; overflow-wrap: normal; font-size: 0.85rem; }
.lanes caption { text-align: left; font-weight: 600; padding: 0.4rem 0 0.1rem; white-space: nowrap; }
.lanes th { border: 0; padding: 0.1rem 0.6rem 0.1rem 0; white-space: nowrap; color: var(--quiet); font-size: 0.85rem; }
.lanes thead th + th { text-align: center; padding: 0.1rem 0.4rem; border-bottom: 1px solid var(--line); font-family: ui-monospace, monospace; }
.lanes td { border: 1px solid transparent; border-radius: 3px; padding: 0.1rem 0.45rem; min-width: 6rem; text-align: center; white-space: nowrap; background: var(--raised); }
.lanes small { color: var(--quiet); }
.lanes .plain { border-color: var(--line); background: transparent; color: inherit; }
.lanes .binding { background: var(--binding); }
.lanes .page { background: var(--page); }
.lanes .shared { background: var(--shared); }
.lanes .private { background: repeating-linear-gradient(45deg, transparent 0 5px, var(--hatch) 5px 8px) var(--private); }
.lanes .poison { background: repeating-linear-gradient(-45deg, transparent 0 3px, var(--hatch) 3px 6px) var(--poison); }
.lanes .bad { background: var(--bad-ground); border: 1px solid var(--bad); }
.lanes .ghost { background: transparent; border: 1px dashed var(--quiet); color: var(--quiet); }
.lanes td.new { color: inherit; border: 2px solid var(--new); }
.lanes td.differs { border: 2px solid var(--bad); }
.lanes td.absent { border: 2px dashed var(--bad); }
.sign { margin-right: 0.3rem; color: var(--text); }
.sign.new { color: var(--new); }
.sign.differs, .sign.absent { color: var(--bad); }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.5rem; font-size: 0.875rem; color: var(--quiet); margin: 0.75rem 0; }
.legend > div { display: flex; gap: 0.4rem; }
.legend dt { white-space: nowrap; color: var(--text); }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); color: var(--quiet); font-size: 0.9rem; }

@media screen { .js .step:not(.current) { display: none; } }
@media (max-width: 60rem) { .worlds { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 40rem) {
  dl.facts > div { grid-template-columns: minmax(0, 1fr); padding: 0.3rem 0; }
  section table:not(.lanes, .witness) { font-size: 0.875rem; }
  th, td { padding-right: 0.5rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  button, .filter, .controls, nav { display: none !important; }
  details { border: 0; padding: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .step, tr, article { break-inside: avoid; }
  .scroll, pre { overflow: visible; max-height: none; white-space: pre-wrap; }
  .lanes td { print-color-adjust: exact; }
}
`;
