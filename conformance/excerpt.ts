/** What a message quotes of a file: enough of it to find the place, on one line, and nothing that steers a terminal. */
export const excerpt = (quoted: string): string => quoted.replace(/\p{Cc}/gu, '?').slice(0, 80);
