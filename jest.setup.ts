import fc from 'fast-check';

/** With GMEM_SEED every property starts from that seed, so that two runs of one commit do the same; without, from chance. */
const text = process.env['GMEM_SEED'];

if (text !== undefined && text !== '') {
  const seed = Number(text);
  if (!Number.isInteger(seed)) throw new Error(`GMEM_SEED is not a whole number: ${text}`);
  fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });
}
