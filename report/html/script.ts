/** What makes the page convenient. Without it everything can be read as well, so nothing here may add content. */
export const SCRIPT = `
'use strict';
document.documentElement.classList.add('js');
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Timelines: one command at a time, by buttons, by arrow keys, and by the lines of the program.
const timelines = all('.timeline').map((element) => {
  const steps = all('.step', element);
  const links = all('.witness a', element);
  const [back, forth] = all('.controls button', element);
  const position = element.querySelector('output');
  let at = 0;
  const show = (index) => {
    at = Math.min(Math.max(index, 0), steps.length - 1);
    steps.forEach((step, each) => step.classList.toggle('current', each === at));
    links.forEach((link, each) => {
      if (each === at) link.setAttribute('aria-current', 'step');
      else link.removeAttribute('aria-current');
    });
    back.disabled = at === 0;
    forth.disabled = at === steps.length - 1;
    position.textContent = 'Command ' + (at + 1) + ' of ' + all('.witness tbody tr', element).length;
  };
  const move = (by) => show(at + by);
  back.addEventListener('click', () => move(-1));
  forth.addEventListener('click', () => move(1));
  links.forEach((link, index) => link.addEventListener('click', (event) => {
    event.preventDefault();
    show(index);
  }));
  element.querySelector('.controls').hidden = steps.length === 0;
  if (steps.length > 0) show(Number(element.dataset.at));
  return { element, move };
});

// The one that was touched last, or the first that is open.
let active;
document.addEventListener('focusin', ({ target }) => {
  active = timelines.find(({ element }) => element.closest('details').contains(target)) ?? active;
});
const isOpen = ({ element }) => element.closest('details').open;
const scrolls = (target) => {
  const box = target.closest('.scroll, pre');
  return box !== null && box.scrollWidth > box.clientWidth;
};
document.addEventListener('keydown', (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const { target, altKey, ctrlKey, metaKey, shiftKey } = event;
  if (by === undefined || altKey || ctrlKey || metaKey || shiftKey) return;
  if (target.closest('input, select, textarea') || scrolls(target)) return;
  const timeline = active && isOpen(active) ? active : timelines.find(isOpen);
  if (timeline === undefined) return;
  event.preventDefault();
  timeline.move(by);
});

// Rules: by words and by how far they were reached.
for (const form of all('.filter')) {
  form.hidden = false;
  const apply = () => {
    const words = form.elements.text.value.toLowerCase().split(/\\s+/);
    const reach = form.elements.reach.value;
    const isActive = reach !== '' || words.some((word) => word !== '');
    let shown = 0;
    for (const details of all('details.command', form.parentElement)) {
      const rows = all('tbody tr', details);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !((reach === '' || row.dataset.reach === reach) && words.every((word) => text.includes(word)));
      }
      const left = rows.filter((row) => !row.hidden).length;
      shown += left;
      details.hidden = left === 0;
      details.open = isActive && left > 0;
    }
    form.querySelector('output').textContent = isActive ? shown + ' shown' : '';
  };
  form.addEventListener('input', apply);
  form.addEventListener('submit', (event) => event.preventDefault());
}

// Text to take along. Where there is no clipboard, it is selected.
for (const button of all('[data-copy]')) {
  button.hidden = false;
  const label = button.textContent;
  button.addEventListener('click', async () => {
    const source = document.getElementById(button.dataset.copy);
    getSelection().selectAllChildren(source);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'Selected: now copy it';
    }
    setTimeout(() => (button.textContent = label), 2000);
  });
}
for (const button of all('[data-save]')) {
  button.hidden = false;
  button.addEventListener('click', () => {
    const blob = new Blob([document.getElementById('report').textContent], { type: 'application/json' });
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = button.dataset.save;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
`;
