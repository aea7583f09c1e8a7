/** Why it can't be listened there, with the variable to change; `cause` itself where that is unknown. @param prefix of the variable */
export function portError(cause: NodeJS.ErrnoException, host: string, port: number, prefix = ''): Error {
  const advice: Record<string, string> = {
    EADDRINUSE: `${prefix}PORT=${port}: another process listens there; stop it or choose another ${prefix}PORT.`,
    EACCES: `${prefix}PORT=${port}: this user may not listen there; choose a ${prefix}PORT above 1023.`,
    EADDRNOTAVAIL: `${prefix}HOST=${host}: not an address of this machine; choose another ${prefix}HOST.`,
    ENOTFOUND: `${prefix}HOST=${host}: no such host; choose another ${prefix}HOST.`,
  };
  const message = advice[cause.code ?? ''];
  return message ? new Error(message, { cause }) : cause;
}
