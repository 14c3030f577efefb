/** What is quoted of a file must not steer a terminal. */
export const printable = (quoted: string): string => quoted.replace(/\p{Cc}/gu, '?').slice(0, 80);
