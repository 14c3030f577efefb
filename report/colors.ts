import pc from 'picocolors';

export type Colors = ReturnType<typeof pc.createColors>;

export const colorsIf = (wanted: boolean): Colors => pc.createColors(wanted);

/** For documents, pipes and tests. */
export const PLAIN: Colors = colorsIf(false);
