/** `npm run fuzz:agent [-- COUNT [SEED]]`: messages for the agent's decoder, right ones and wrong ones, under sanitizers. */
import { spawnSync } from 'node:child_process';
import { AGENT_FUZZER, compile } from '../adapters/linux/compile.ts';

const [count = '10000000', ...seed] = process.argv.slice(2);
const { status } = spawnSync(compile(AGENT_FUZZER), [count, ...seed], { stdio: 'inherit' });
process.exitCode = status ?? 1;
