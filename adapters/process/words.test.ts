import { describe, expect, it } from '@jest/globals';
import { wordsOf } from './words.ts';

describe('a command line is cut into words as by a shell', () => {
  it.each([
    ['python3 model.py --strict', ['python3', 'model.py', '--strict']],
    [`'/my models/model' "a b" c\\ d`, ['/my models/model', 'a b', 'c d']],
    [`sh -c 'echo "$HOME" | cat; ls *'`, ['sh', '-c', 'echo "$HOME" | cat; ls *']],
    [`model it\\'s "that's" 'so "far'`, ['model', "it's", "that's", 'so "far']],
    ['model\t-x  ""', ['model', '-x', '']],
    ['A=1 ~/model {1,2}', ['A=1', '~/model', '{1,2}']],
  ])('%s', (commandLine, words) => {
    expect(wordsOf(commandLine)).toEqual(words);
  });
});

describe('what only a shell can do is refused', () => {
  it.each([
    ['model | tee log', '|'],
    ['model > log', '>'],
    ['model; other', ';'],
    ['model $HOME', '$HOME'],
    ['model "${HOME}/x"', '$HOME'],
    ['model *.py', '*.py'],
    ['model # fast', ' fast'],
  ])('%s', (commandLine, special) => {
    const message = `'${commandLine}' has ${special} in it, and is not given to a shell: put quotes around it, or write process:sh -c '…'`;
    expect(() => wordsOf(commandLine)).toThrow(new RangeError(message));
  });

  it.each([`sh -c 'exit`, `"model`, `model it's`, `model "a\\"`, `model "a" 'b`])('%s is left open', (commandLine) => {
    expect(() => wordsOf(commandLine)).toThrow(
      new RangeError(`'${commandLine}' has a quotation mark that is not closed: close it, or put \\ before it`),
    );
  });

  it.each(['', '  '])('%j is no program', (commandLine) => {
    expect(() => wordsOf(commandLine)).toThrow(new RangeError('process: wants a program: write process:CMD ARGS'));
  });
});
