/** The application can't be changed by a program: its message says why, and what to write. */
export class InitError extends Error {}
